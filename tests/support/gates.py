"""A connection that ends at the narrowest moment: when its last user is about to let go of it."""

from __future__ import annotations

from typing import Any


class EndsAtRelease:
    """The gate of a thread's connection: another one ends it right before it is released."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self._gate = link._gate
        self._ended = False
        link._gate = self

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return bool(self._gate.acquire(blocking, timeout))

    def locked(self) -> bool:
        return bool(self._gate.locked())

    def release(self) -> None:
        if not self._ended:
            self._ended = True
            self._link.end("ended meanwhile")
        self._gate.release()
