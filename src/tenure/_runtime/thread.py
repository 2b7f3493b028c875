"""The runtime of the synchronous API: leaves block, so a coroutine never suspends.

`drive` runs a coroutine with a single `send`. That costs under a microsecond, where
an event loop in a thread of its own costs tens; and a driver that would suspend is
a bug that shows at once.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

from . import _clock
from .base import Flavour

T = TypeVar("T")

logger = logging.getLogger("tenure")


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends to its end, on this thread."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise RuntimeError(f"{work!r} suspended on the thread runtime: a leaf must block instead")


class ThreadSignal:
    """`runtime.base.Signal` over a `threading.Event`."""

    __slots__ = ("_event", "clear", "is_set", "set")

    def __init__(self) -> None:
        event = self._event = threading.Event()
        self.set = event.set
        self.clear = event.clear
        self.is_set = event.is_set

    async def wait(self, until: float | None) -> bool:
        if until is None:
            return self._event.wait()
        while not self._event.wait(max(0.0, min(until - _clock.now(), threading.TIMEOUT_MAX))):
            if _clock.now() >= until:
                return self._event.is_set()
        return True


class ThreadMutex(AbstractAsyncContextManager[None]):
    """A `threading.Lock` for `async with`."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


class ThreadTimer:
    """A due call in the timer thread's heap."""

    __slots__ = ("call", "cancelled")

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ThreadJob:
    """A daemon thread that drives a coroutine."""

    __slots__ = ("_thread",)

    def __init__(self, main: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        def run() -> None:
            try:
                drive(main())
            except BaseException:
                logger.exception("background job %r failed", name)

        self._thread = threading.Thread(target=run, name=f"tenure-{name}", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """A thread cannot be cancelled: its main waits for a stop signal of its own."""

    def ended(self) -> bool:
        return not self._thread.is_alive()

    async def join(self, until: float) -> bool:
        if self._thread is threading.current_thread():
            return False
        self._thread.join(max(0.0, until - _clock.now()))
        return not self._thread.is_alive()


class ThreadRuntime:
    """Blocking leaves, daemon threads, and one timer thread for every coordinator."""

    flavour: Flavour = "thread"
    now = staticmethod(_clock.now)
    wall = staticmethod(_clock.wall)
    random = staticmethod(_clock.random)
    unique = staticmethod(_clock.unique)
    # Not the number of the thread, which another one gets when it has ended.
    caller = staticmethod(threading.current_thread)

    def cancelling(self) -> bool:
        return False

    def signal(self) -> ThreadSignal:
        return ThreadSignal()

    def lock(self) -> AbstractContextManager[bool]:
        return threading.Lock()

    def mutex(self) -> AbstractAsyncContextManager[None]:
        return ThreadMutex()

    async def sleep(self, until: float) -> None:
        await ThreadSignal().wait(until)

    def call_at(self, when: float, call: Callable[[], None]) -> ThreadTimer:
        return _alarm().add(when, call)

    def spawn(self, main: Callable[[], Coroutine[Any, Any, None]], name: str) -> ThreadJob:
        return ThreadJob(main, name)

    async def blocking(self, call: Callable[[], T]) -> T:
        return call()

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        return await work


class _Alarm:
    """The timer thread: calls what is due, in order of time."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, ThreadTimer]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="tenure-alarm", daemon=True).start()

    def add(self, when: float, call: Callable[[], None]) -> ThreadTimer:
        timer = ThreadTimer(call)
        with self._changed:
            heapq.heappush(self._due, (when, next(self._order), timer))
            if self._due[0][2] is timer:
                self._changed.notify()
        return timer

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or (wait := self._due[0][0] - _clock.now()) > 0:
                    # Bounded, because this wait does not count the time of a suspend.
                    self._changed.wait(min(wait, 1.0) if self._due else None)
                timer = heapq.heappop(self._due)[2]
            if not timer.cancelled:
                try:
                    timer.call()
                except BaseException:
                    logger.exception("a timer's call failed")


_alarms: list[_Alarm] = []
_alarms_lock = threading.Lock()


def _alarm() -> _Alarm:
    with _alarms_lock:
        if not _alarms:
            _alarms.append(_Alarm())
        return _alarms[0]


def _forget_alarm() -> None:
    # Threads do not survive a fork, and the lock may have been held by one of them.
    global _alarms_lock
    _alarms_lock = threading.Lock()
    _alarms.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_alarm)
