"""Semaphores of one machine."""

from __future__ import annotations

from .._driver import TenureDriver


class IPCDriver(TenureDriver):
    """Tenure's ipc driver: semaphores that the kernel gives back when a process ends."""

    SCHEME = "ipc"
