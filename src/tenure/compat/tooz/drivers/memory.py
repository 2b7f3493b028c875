"""Memory of this process, for tests; Tooz has no such driver."""

from __future__ import annotations

from .._driver import TenureDriver
from .._events import Characteristics


class MemoryDriver(TenureDriver):
    """Tenure's memory driver."""

    CHARACTERISTICS = (Characteristics.DISTRIBUTED_ACROSS_THREADS,)
