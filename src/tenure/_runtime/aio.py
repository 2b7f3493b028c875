"""The runtime of the asyncio API: leaves await, timers and jobs belong to the loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

from . import _clock
from .base import Flavour

T = TypeVar("T")

logger = logging.getLogger("tenure")

LOOK_SECONDS = 1.0
"""How late a timer may be after the machine was suspended."""


class AsyncioSignal:
    """`runtime.base.Signal` for tasks of one loop; `set` may come from any thread."""

    __slots__ = ("_flag", "_loop", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._flag = False
        self._waiters: set[asyncio.Future[None]] = set()

    def set(self) -> None:
        self._flag = True
        if not self._waiters:
            return
        if _running() is self._loop:
            self._wake()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def clear(self) -> None:
        self._flag = False

    def is_set(self) -> bool:
        return self._flag

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, until: float | None) -> bool:
        waiter: asyncio.Future[None] = self._loop.create_future()
        # Registered before the flag is read: a `set` between the two is never missed.
        self._waiters.add(waiter)
        timer: asyncio.TimerHandle | None = None
        try:
            if self._flag:
                return True
            if until is not None:
                timer = self._loop.call_later(max(0.0, until - _clock.now()), _end, waiter)
            await waiter
            return self._flag
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


class AsyncioMutex(AbstractAsyncContextManager[None]):
    """An `asyncio.Lock` for `async with`."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


class AsyncioTimer:
    """A due call. The loop's clock does not count a suspend, so it looks every second."""

    __slots__ = ("_call", "_handle", "_loop", "_when")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, when: float, call: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._when = when
        self._call = call
        self._handle = loop.call_later(self._wait(), self._look)

    def _wait(self) -> float:
        return max(0.0, min(self._when - _clock.now(), LOOK_SECONDS))

    def _look(self) -> None:
        if _clock.now() >= self._when:
            self._call()
        else:
            self._handle = self._loop.call_later(self._wait(), self._look)

    def cancel(self) -> None:
        self._handle.cancel()


class AsyncioJob:
    """A task whose failure is logged when it happens."""

    __slots__ = ("_task",)

    def __init__(self, main: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        async def run() -> None:
            try:
                await main()
            except Exception:
                logger.exception("background job %r failed", name)

        self._task = asyncio.get_running_loop().create_task(run(), name=f"tenure-{name}")

    def cancel(self) -> None:
        self._task.cancel()

    def ended(self) -> bool:
        return self._task.done()

    async def join(self, until: float) -> bool:
        if self._task is asyncio.current_task():
            return False
        done, _ = await asyncio.wait((self._task,), timeout=max(0.0, until - _clock.now()))
        return bool(done)


class AsyncioRuntime:
    """Tasks and timers of the running loop. Made inside of it."""

    flavour: Flavour = "asyncio"
    now = staticmethod(_clock.now)
    wall = staticmethod(_clock.wall)
    random = staticmethod(_clock.random)
    unique = staticmethod(_clock.unique)

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Work that outlives its cancelled caller; a loop holds its tasks weakly.
        self._finishing: set[asyncio.Task[Any]] = set()

    def caller(self) -> object:
        return asyncio.current_task()

    def cancelling(self) -> bool:
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    def signal(self) -> AsyncioSignal:
        return AsyncioSignal(self._loop)

    def lock(self) -> AbstractContextManager[bool]:
        return threading.Lock()  # a client library's own thread may call in

    def mutex(self) -> AbstractAsyncContextManager[None]:
        return AsyncioMutex()

    async def sleep(self, until: float) -> None:
        await asyncio.sleep(until - _clock.now())

    def call_at(self, when: float, call: Callable[[], None]) -> AsyncioTimer:
        return AsyncioTimer(self._loop, when, call)

    def spawn(self, main: Callable[[], Coroutine[Any, Any, None]], name: str) -> AsyncioJob:
        return AsyncioJob(main, name)

    async def blocking(self, call: Callable[[], T]) -> T:
        return await asyncio.to_thread(call)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        task = self._loop.create_task(work)
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            if not task.cancelled() and task.exception() is not None:
                logger.warning("work of a cancelled caller failed: %s", task.exception())
            raise cancelled
        return task.result()


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
