"""MySQL and MariaDB."""

from __future__ import annotations

from .._driver import TenureDriver


class MySQLDriver(TenureDriver):
    """Tenure's mysql driver: locks of GET_LOCK, which end with the connection."""

    SCHEME = "mysql"
