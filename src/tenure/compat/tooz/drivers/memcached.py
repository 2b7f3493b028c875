"""memcached."""

from __future__ import annotations

from .._driver import TenureDriver
from .._events import Characteristics


class MemcachedDriver(TenureDriver):
    """Tenure's memcached driver."""

    CHARACTERISTICS = (
        Characteristics.DISTRIBUTED_ACROSS_THREADS,
        Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
        Characteristics.DISTRIBUTED_ACROSS_HOSTS,
        Characteristics.CAUSAL,
    )
