"""Redis: one server, Sentinel, or a cluster."""

from __future__ import annotations

from .._driver import TenureDriver
from .._events import Characteristics


class RedisDriver(TenureDriver):
    """Tenure's redis driver."""

    CHARACTERISTICS = (
        Characteristics.DISTRIBUTED_ACROSS_THREADS,
        Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
        Characteristics.DISTRIBUTED_ACROSS_HOSTS,
        Characteristics.CAUSAL,
    )
