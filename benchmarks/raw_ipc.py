"""The raw clients of semaphores: one operation that takes, and one that gives back.

The semaphores are private ones, so nobody else can wait for them: making a set that others find,
and setting it, is more than the fewest calls.
"""

from __future__ import annotations

import ctypes
from collections.abc import Awaitable, Callable
from typing import Any

from .contestants import AsyncContestant, Contestant, Lock
from .raw import load

_UNDO = 0x1000
_SET_VALUE = 16
_REMOVE = 0


class Semop(Contestant):
    """`semop` with `SEM_UNDO` through ctypes, as the driver calls it."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._sets: list[int] = []

    def cycle(self, name: str) -> Callable[[], object]:
        semop = self._libc.semop
        set = self._libc.semget(0, 1, 0o600)
        self._libc.semctl(set, 0, _SET_VALUE, 1)
        self._sets.append(set)
        operation = ctypes.c_short * 3
        take, give = operation(0, -1, _UNDO), operation(0, 1, _UNDO)

        def once() -> None:
            semop(set, take, 1)
            semop(set, give, 1)

        return once

    def close(self) -> None:
        for set in self._sets:
            self._libc.semctl(set, 0, _REMOVE)


class TaskSemop(AsyncContestant):
    """The same calls, made by a coroutine on the loop's own thread."""

    async def start(self) -> None:
        self._semop = Semop(self.url)

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        once = self._semop.cycle(name)

        async def task() -> None:
            once()

        return task

    async def stop(self) -> None:
        self._semop.close()


class SysvIpc(Contestant):
    """The library sysv_ipc."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._library = load("sysv_ipc")
        self._semaphores: list[Any] = []

    def lock(self, name: str) -> Lock:
        library = self._library
        semaphore = library.Semaphore(library.IPC_PRIVATE, library.IPC_CREX, 0o600, 1)
        semaphore.undo = True
        self._semaphores.append(semaphore)
        lock: Lock = semaphore
        return lock

    def close(self) -> None:
        for semaphore in self._semaphores:
            semaphore.remove()
