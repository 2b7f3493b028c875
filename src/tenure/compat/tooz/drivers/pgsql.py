"""PostgreSQL."""

from __future__ import annotations

from .._driver import TenureDriver
from .._events import Characteristics


class PostgresDriver(TenureDriver):
    """Tenure's postgresql driver: advisory locks, which end with the session."""

    CHARACTERISTICS = (
        Characteristics.DISTRIBUTED_ACROSS_THREADS,
        Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
        Characteristics.DISTRIBUTED_ACROSS_HOSTS,
        Characteristics.NON_TIMEOUT_BASED,
    )
