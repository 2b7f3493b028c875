"""Consul."""

from __future__ import annotations

from .._driver import TenureDriver
from .._events import Characteristics


class ConsulDriver(TenureDriver):
    """Tenure's consul driver."""

    CHARACTERISTICS = (
        Characteristics.DISTRIBUTED_ACROSS_THREADS,
        Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
        Characteristics.DISTRIBUTED_ACROSS_HOSTS,
    )
