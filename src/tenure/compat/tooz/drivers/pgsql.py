"""PostgreSQL."""

from __future__ import annotations

from .._driver import TenureDriver


class PostgresDriver(TenureDriver):
    """Tenure's postgresql driver: advisory locks, which end with the session."""

    SCHEME = "postgresql"
