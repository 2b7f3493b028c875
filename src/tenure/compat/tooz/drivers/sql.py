"""Tables of a SQL database; Tooz has no such drivers."""

from __future__ import annotations

from .._driver import TenureDriver
from .._events import Characteristics


class SqlDriver(TenureDriver):
    """Tenure's sql driver: tables on a server."""

    CHARACTERISTICS = (
        Characteristics.DISTRIBUTED_ACROSS_THREADS,
        Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
        Characteristics.DISTRIBUTED_ACROSS_HOSTS,
    )


class SqliteDriver(TenureDriver):
    """Tenure's sqlite driver: tables in one file."""

    CHARACTERISTICS = (
        Characteristics.DISTRIBUTED_ACROSS_THREADS,
        Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
    )
