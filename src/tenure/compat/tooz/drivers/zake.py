"""A fake ZooKeeper inside of this process, for tests."""

from __future__ import annotations

from .._driver import TenureDriver
from .._events import Characteristics


class ZakeDriver(TenureDriver):
    """Tenure's zake driver."""

    CHARACTERISTICS = (Characteristics.DISTRIBUTED_ACROSS_THREADS,)
