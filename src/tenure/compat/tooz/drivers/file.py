"""Files of one machine."""

from __future__ import annotations

from .._driver import TenureDriver
from .._events import Characteristics


class FileDriver(TenureDriver):
    """Tenure's file driver: locks of the kernel's, which end with the process."""

    CHARACTERISTICS = (
        Characteristics.DISTRIBUTED_ACROSS_THREADS,
        Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
        Characteristics.NON_TIMEOUT_BASED,
    )
