"""A connection that ends at the narrowest moment: when its user comes, or is about to let go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tenure


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


def check_closed(
    coordinator: tenure.Coordinator, use: Callable[[Any], object], *, early: bool = False
) -> None:
    """Its connection ends while `use(link)` comes or goes: the lease is lost, and nothing open."""
    lease = coordinator.lock("x").acquire()
    driver: Any = coordinator._session.driver
    link = driver.session.main
    NarrowGate(link, early=early)
    use(link)
    assert lease.lost.is_set()
    assert link._finished
    assert not link.busy
