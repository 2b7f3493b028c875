"""MySQL and MariaDB."""

from __future__ import annotations

from .._driver import TenureDriver
from .._events import Characteristics


class MySQLDriver(TenureDriver):
    """Tenure's mysql driver: locks of GET_LOCK, which end with the connection."""

    CHARACTERISTICS = (
        Characteristics.DISTRIBUTED_ACROSS_THREADS,
        Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
        Characteristics.DISTRIBUTED_ACROSS_HOSTS,
    )
