"""The blocking flavour of the connections to a database; see `wires.sql`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

from .._runtime.base import Job, Runtime
from ..errors import Unavailable
from .hangup import Hangup
from .sql import Limit, Line, Maker, Row, not_free


class ThreadPool:
    """At most so many connections, used by any number of threads."""

    def __init__(self, maker: Maker, runtime: Runtime, patience: float, size: int) -> None:
        self._maker = maker
        self._runtime = runtime
        self.limit = Limit(patience)
        hangup = None if maker.local else self._watch
        self._lines = [Line(maker, self.limit, hangup) for _ in range(size)]
        self._idle = list(self._lines)
        self._given = threading.Condition()
        self._waiting = 0
        self._starting = threading.Lock()
        self._hangup: Hangup | None = None
        self._job: Job | None = None

    async def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """What the statement finds."""
        found: list[Row] = self._run(statement, values, True)
        return found

    async def change(self, statement: str, values: Sequence[Any] = ()) -> int:
        """How many rows the statement has changed."""
        count: int = self._run(statement, values, False)
        return count

    def _run(self, statement: str, values: Sequence[Any], rows: bool) -> Any:
        try:
            line = self._idle.pop()
        except IndexError:
            # A local database is waited for by its own time limit, so the two share the patience.
            line = self._wait(self.limit.seconds / (2 if self._maker.local else 1))
        try:
            return line.run(statement, values, rows)
        finally:
            self._give(line)

    def _give(self, line: Line) -> None:
        self._idle.append(line)
        if self._waiting:
            with self._given:
                self._given.notify()

    def _wait(self, seconds: float) -> Line:
        until = self._runtime.now() + seconds
        with self._given:
            self._waiting += 1
            try:
                # Looked for only now that whoever gives one back sees that somebody waits.
                while True:
                    with contextlib.suppress(IndexError):
                        return self._idle.pop()
                    left = until - self._runtime.now()
                    if left <= 0:
                        raise not_free(self._maker.label)
                    self._given.wait(left)
            finally:
                self._waiting -= 1

    def _watch(self) -> Hangup:
        with self._starting:
            if self._hangup is None:
                self._hangup = Hangup(min(0.5, self.limit.seconds / 8), "no reply in time")
                self._job = self._runtime.spawn(self._hangup.run, "sql-hangup")
            return self._hangup

    async def close(self) -> None:
        """Close every connection; one that is in use, when it is given back."""
        until = self._runtime.now() + self.limit.seconds
        for _ in self._lines:
            with contextlib.suppress(Unavailable):
                self._wait(until - self._runtime.now()).drop()
        for line in self._lines:
            line.end("closed")
        if self._hangup is not None and self._job is not None:
            self._hangup.stop()
            await self._job.join(self._runtime.now() + self.limit.seconds)

    def abandon(self) -> None:
        """In a forked child: forget every connection."""
        if self._hangup is not None:
            self._hangup.abandon()
        for line in self._lines:
            line.abandon()
