"""Watching a group: the difference between two readings of it, one change at a time.

However a wake-up came, or did not come, what is told is what changed since the reading
before. So nothing is missed or told twice across a reconnect, a compaction, a restart or
a lost session; what came and went between two readings is not seen.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from .._callbacks import call_back_and_wait
from .._runtime.base import Job
from .._session import Session
from ..errors import ClosedError, ForkedError, TenureError, Unavailable
from .group import GroupRecipe
from .members import Change, Members
from .watch import RosterWatch

logger = logging.getLogger("tenure")

BUFFER = 1000
"""Wake-ups that a consumer may sleep through before it is told so."""

CLOSE_SECONDS_MAX = 10.0


class GroupWatch:
    """One watcher, for one consumer. It begins at a snapshot, or when it is opened."""

    __slots__ = (
        *("_away", "_buffer", "_closed", "_known", "_looked", "_opened", "_pending", "_reading"),
        *("_watch", "group"),
    )

    def __init__(self, group: GroupRecipe[Any], since: Members | None, buffer: int) -> None:
        self.group = group
        self._known = since
        self._buffer = buffer
        self._pending: deque[Change] = deque()
        self._watch = RosterWatch(group.session, group.roster)
        self._reading = group.session.runtime.mutex()
        self._opened = self._closed = self._looked = self._away = False

    async def open(self) -> None:
        """Begin. Does nothing if it has begun, or is over."""
        async with self._reading:
            await self._open()

    async def _open(self) -> None:
        if self._opened or self._closed:
            return
        await self._watch.open()
        try:
            if self._known is None:
                self._known = await self.group.census()
                self._looked = True
            self._opened = True
        finally:
            if not self._opened or self._closed:
                self._watch.close()

    def close(self) -> None:
        """End it: whoever waits in `next` gets None. Idempotent."""
        self._closed = True
        self._watch.close()
        self._watch.wake()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def known(self) -> Members | None:
        """The members, as far as the changes told so far go, and those about to be told."""
        return self._known

    async def next(self, until: float | None) -> Change | None:
        """The next change; None if the time came first, or the watch was closed."""
        try:
            async with self._reading:
                await self._open()
                return await self._next(until)
        finally:
            if self._closed:
                self._watch.close()  # it may have begun to listen again just before

    async def _next(self, until: float | None) -> Change | None:
        waited = False
        while not self._closed:
            if self._pending:
                return self._pending.popleft()
            slept = 0
            if self._looked:
                if waited and until is not None and self.group.session.now() >= until:
                    return None
                slept, waited = self._watch.woken, True
                await self._watch.wait(until)
            if not self._closed:
                await self._look(slept)
        return None

    async def _look(self, slept: int) -> None:
        """Read the group, and compare. While the backend is away, there is nothing to tell."""
        self._looked = True
        try:
            members = await self.group.census(self._watch.since)
        except Unavailable as error:
            if not self._away:
                logger.warning("tenure: cannot watch the group %r: %s", self.group.name, error)
            self._away = True
            return
        self._away = False
        known, self._known = self._known, members
        assert known is not None
        if slept > self._buffer:
            self._pending.append(Change("lagged"))
        self._pending.extend(known.changes(members))


class Callbacks:
    """Calls back for each thing that `next` brings, in the background, until it is closed."""

    __slots__ = ("_call", "_close", "_job", "_next", "_session", "_stop", "what")

    def __init__(
        self,
        session: Session,
        what: str,
        next: Callable[[], Coroutine[Any, Any, Any]],
        call: Callable[[Any], object],
        close: Callable[[], None],
    ) -> None:
        self._session = session
        self.what = what
        self._next = next
        self._call = call
        self._close = close
        self._stop = session.runtime.signal()
        self._job: Job = session.runtime.spawn(self._run, what)

    async def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    news = await self._next()
                except (ClosedError, ForkedError):
                    return  # with its coordinator
                except TenureError as error:
                    logger.error("tenure: %s: %s", self.what, error)
                    await self._stop.wait(self._session.now() + self._session.ttl / 3)
                    continue
                if news is not None and not self._stop.is_set():
                    await self._tell(news)
        finally:
            self._stop.set()
            self._close()

    async def _tell(self, news: Any) -> None:
        failed = "tenure: %s: the callback failed on %r"
        runtime = self._session.runtime
        await call_back_and_wait(runtime, self._call, (news,), failed, self.what, news)

    @property
    def closed(self) -> bool:
        """Whether it was closed, or its coordinator."""
        return self._stop.is_set()

    async def close(self) -> None:
        """No callback begins after this. One that runs is waited for, up to ten seconds."""
        self._stop.set()
        self._close()
        await self._job.join(self._session.now() + CLOSE_SECONDS_MAX)
