"""ZooKeeper."""

from __future__ import annotations

from .._driver import TenureDriver
from .._events import Characteristics


class KazooDriver(TenureDriver):
    """Tenure's zookeeper driver."""

    CHARACTERISTICS = (
        Characteristics.DISTRIBUTED_ACROSS_THREADS,
        Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
        Characteristics.DISTRIBUTED_ACROSS_HOSTS,
        Characteristics.SEQUENTIAL,
    )
