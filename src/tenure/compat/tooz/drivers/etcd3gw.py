"""etcd, over its HTTP gateway."""

from __future__ import annotations

from .._driver import TenureDriver
from .._events import Characteristics


class Etcd3Driver(TenureDriver):
    """Tenure's etcd3+http driver."""

    CHARACTERISTICS = (
        Characteristics.DISTRIBUTED_ACROSS_THREADS,
        Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
        Characteristics.DISTRIBUTED_ACROSS_HOSTS,
        Characteristics.LINEARIZABLE,
        Characteristics.SERIALIZABLE,
    )
