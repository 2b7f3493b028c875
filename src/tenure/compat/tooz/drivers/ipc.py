"""Semaphores of one machine."""

from __future__ import annotations

from .._driver import TenureDriver
from .._events import Characteristics


class IPCDriver(TenureDriver):
    """Tenure's ipc driver: semaphores that the kernel gives back when a process ends."""

    CHARACTERISTICS = (
        Characteristics.DISTRIBUTED_ACROSS_THREADS,
        Characteristics.DISTRIBUTED_ACROSS_PROCESSES,
        Characteristics.NON_TIMEOUT_BASED,
    )
