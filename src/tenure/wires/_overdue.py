"""Ends blocking calls that the kernel's own limit does not end.

A limit of the kernel's counts for one wait. After each signal that has a handler, Python begins
that wait anew; so under signals that come more often than the limit lasts, those of a profiler
for instance, there would be no end. What is asked of the wires for that, at each call, is to
write down when it began: looking whether a timer runs costs a call of the system, and does not
tell of signals that others send. One thread of the process looks whose time is over.
"""

from __future__ import annotations

import math
import os
import threading
import time
from typing import Protocol
from weakref import WeakSet


class Timed(Protocol):
    """A connection whose calls are watched."""

    since: float
    """When the call that is under way began; 0 if there is none."""
    limit: float
    """How many seconds one may take: more than the kernel's own limit, which comes first."""

    def hang_up(self) -> None:
        """End the connection, so that whoever waits on it gets an error."""
        ...


class _Watch:
    """The thread, and the connections that it looks at."""

    def __init__(self) -> None:
        self._links: WeakSet[Timed] = WeakSet()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="tenure-overdue", daemon=True).start()

    def add(self, link: Timed) -> None:
        with self._changed:
            self._links.add(link)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:  # so that nothing is added between looking and waiting
                self._changed.wait(self._look(time.monotonic()))

    def _look(self, now: float) -> float | None:
        """Hang up what is overdue; how many seconds to wait for the next, if there is one."""
        due = math.inf
        for link in list(self._links):
            since = link.since
            if not since:
                since = now
            elif now - since >= link.limit:
                link.hang_up()
                since = now
            due = min(due, since + link.limit)
        return None if due == math.inf else due - now


_watches: list[_Watch] = []
_lock = threading.Lock()


def watch(link: Timed) -> None:
    """Hang the connection up when a call on it is overdue, for as long as there is one."""
    with _lock:
        if not _watches:
            _watches.append(_Watch())
        _watches[0].add(link)


def _forget() -> None:
    # Threads do not survive a fork, and the lock may have been held by one of them.
    global _lock
    _lock = threading.Lock()
    _watches.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
