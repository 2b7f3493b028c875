"""The asyncio flavour of the connections to a database; see `wires.sql`."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import OutcomeUnknown, Unavailable
from .sql import CUT_SHARE, Limit, Line, Maker, Row, not_free


class _Answer:
    """What a call on another thread returned or raised, and who waits for it."""

    __slots__ = ("call", "done", "failure", "found", "waiter")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.done = False
        self.found: Any = None
        self.failure: BaseException | None = None
        self.waiter: asyncio.Future[None] | None = None

    def settle(self, found: Any, failure: BaseException | None) -> None:
        """On the loop's thread: it has come. The first one counts."""
        if not self.done:
            self.done, self.found, self.failure = True, found, failure
            if self.waiter is not None and not self.waiter.done():
                self.waiter.set_result(None)


class _Desk:
    """A line and the thread that uses it."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Answer | None] = queue.SimpleQueue()
        self._started = False
        self.over: asyncio.Future[None] = self._loop.create_future()

    def submit(self, answer: _Answer) -> None:
        """Have it answered on the thread."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._work, name="tenure-sql", daemon=True).start()
        self._jobs.put(answer)

    def stop(self) -> None:
        """Let the thread close the connection and end, when it comes to it."""
        if self._started:
            self._jobs.put(None)
        else:
            self._ended()

    def _work(self) -> None:
        while (answer := self._jobs.get()) is not None:
            found, failure = None, None
            try:
                found = answer.call()
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                failure = error
            self._tell(answer.settle, found, failure)
            del answer, found, failure  # an idle thread keeps nothing alive
        self.line.drop()
        self._tell(self._ended)

    def _tell(self, call: Callable[..., None], *values: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(call, *values)

    def _ended(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class LoopPool:
    """At most so many connections, used by any number of tasks of one loop."""

    def __init__(self, maker: Maker, patience: float, size: int) -> None:
        self._maker = maker
        self.limit = Limit(patience)
        self._idle: list[_Desk] = []
        self._desks: list[_Desk] = []
        self._free = asyncio.Semaphore(size)

    async def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """What the statement finds."""
        found: list[Row] = await self._run(statement, values, True)
        return found

    async def change(self, statement: str, values: Sequence[Any] = ()) -> int:
        """How many rows the statement has changed."""
        count: int = await self._run(statement, values, False)
        return count

    async def _run(self, statement: str, values: Sequence[Any], rows: bool) -> Any:
        if self._free.locked():
            try:
                async with asyncio.timeout(self.limit.seconds / (2 if self._maker.local else 1)):
                    await self._free.acquire()
            except TimeoutError as error:
                raise not_free(self._maker.label) from error
        else:
            await self._free.acquire()
        desk = self._idle.pop() if self._idle else self._desk()
        try:
            return await self._answer(desk, lambda: desk.line.run(statement, values, rows))
        finally:
            if desk.line.discarded:
                self._desks.remove(desk)
                desk.stop()
            else:
                self._idle.append(desk)
            self._free.release()

    def _desk(self) -> _Desk:
        desk = _Desk(Line(self._maker, self.limit, None))
        self._desks.append(desk)
        return desk

    async def _answer(self, desk: _Desk, call: Callable[[], Any]) -> Any:
        """Wait for the answer, even through a cancellation, but no longer than is allowed."""
        loop = asyncio.get_running_loop()
        answer = _Answer(call)
        cut = loop.call_later(self.limit.seconds * CUT_SHARE, desk.line.end, "no reply in time")
        late = loop.call_later(self.limit.seconds, self._give_up, desk, answer)
        cancelled: asyncio.CancelledError | None = None
        try:
            desk.submit(answer)
            while not answer.done:
                answer.waiter = loop.create_future()
                try:
                    await answer.waiter
                except asyncio.CancelledError as error:
                    cancelled = error
        finally:
            cut.cancel()
            late.cancel()
        if cancelled is not None:
            raise cancelled
        if answer.failure is not None:
            raise answer.failure
        return answer.found

    def _give_up(self, desk: _Desk, answer: _Answer) -> None:
        # Not even the cut has helped: it is connecting, or the disk does not answer.
        desk.line.discarded = True
        kind = OutcomeUnknown if desk.line.asking else Unavailable
        answer.settle(None, kind(f"{self._maker.label}: no reply in time"))

    async def close(self) -> None:
        """Close every connection; one that is in use, when its thread comes to it."""
        for desk in self._desks:
            if desk not in self._idle:
                desk.line.end("closed")
            desk.stop()
        if self._desks:
            await asyncio.wait([desk.over for desk in self._desks], timeout=self.limit.seconds)

    def abandon(self) -> None:
        """In a forked child: forget every connection."""
        for desk in self._desks:
            desk.line.abandon()
