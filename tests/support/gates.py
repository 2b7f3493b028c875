"""A connection that ends at the narrowest moment: when its user comes, or is about to let go."""

from __future__ import annotations

from typing import Any


class NarrowGate:
    """The gate of a thread's connection: another thread ends that right before it is released, or
    with `early`, right after it was acquired."""

    def __init__(self, link: Any, *, early: bool = False) -> None:
        self._link = link
        self._gate = link._gate
        self._early = early
        self._ended = False
        link._gate = self

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._link.end("ended meanwhile")

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        acquired = bool(self._gate.acquire(blocking, timeout))
        if self._early:
            self._end()
        return acquired

    def locked(self) -> bool:
        return bool(self._gate.locked())

    def release(self) -> None:
        self._end()
        self._gate.release()
