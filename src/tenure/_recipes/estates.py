"""Estates: what a member leaves behind when it dies, and the one that takes it over.

An estate is a record. It is an orphan's as soon as nobody holds the lock of that member's
id, for a living member does; whoever takes over takes that very lock. So there is one at
a time, a member that comes back is as good as any heir, and tokens tell them apart. The
record goes when the work is done, not before: if the heir dies, there will be another.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any, Generic, TypeVar

from .. import _names
from .._lease import BaseLease
from ..errors import LeaseLost, Unavailable
from . import payload, records
from .group import GroupRecipe
from .members import will, written_by
from .watch import RosterWatch

logger = logging.getLogger("tenure")


class BaseOrphan(BaseLease):
    """What the orphans of both APIs share. Made by `inherit`, never by hand."""

    __slots__ = ("_estate", "_record", "_version", "group", "member")

    group: str
    """The group's name."""
    member: str
    """The id of the member that died."""

    @property
    def estate(self) -> Any:
        """What it left behind, as a copy."""
        return json.loads(self._estate)

    async def _take(self, group: str, member: str) -> bool:
        """Take the estate; say whether there is one. Its writers from before are shut out."""
        session = self._session
        self.group = group
        self.member = member
        self._record = _names.of("estate", group, member)
        for attempt in range(records.TRIES_MAX + 1):
            await records.pause(session, attempt)
            found = await records.recall(session, self._record)
            if found is None or written_by(found.text) > self.token:
                return False  # or this lease is lost, and its successor is at it
            known = payload.decode(found.text)
            if known is None or "estate" not in known:
                logger.error("tenure: the record %r is no estate, and is left alone", self._record)
                return False
            self._estate = json.dumps(known["estate"], separators=(",", ":"))
            text = will(session, self._estate, self.token)
            self._version = await records.swap(session, self._record, text, found.version)
            if self._version is not None:
                return True
        return False

    async def _settle(self) -> None:
        """The work is done: delete the estate, and let go."""
        self.check()
        session = self._session
        try:
            done = await records.swap(session, self._record, None, self._version)
            taken = done is None and await records.recall(session, self._record) is not None
        except BaseException:
            # As after a release that failed: it is not held, and what is left is the next one's.
            await session.runtime.finish(self.release_at_close())
            raise
        if taken:
            await self._release()
            raise LeaseLost(
                f"the estate of {self.member!r} was taken over by somebody else",
                lease=self,
                reason="somebody else has taken it over",
            )
        await self._release()

    def __repr__(self) -> str:
        start = f"lease {self.name!r}"
        return super().__repr__().replace(start, f"orphan {self.member!r} of {self.group!r}", 1)


T = TypeVar("T", bound=BaseOrphan)


class Heirs(Generic[T]):
    """The dead of one group, and how to take over what they left."""

    __slots__ = ("_orphan_type", "group")

    def __init__(self, group: GroupRecipe[Any], orphan_type: type[T]) -> None:
        self.group = group
        self._orphan_type = orphan_type

    async def orphans(self) -> tuple[str, ...]:
        """The ids of the dead whose estates are there, also of those that are being handled."""
        session, prefix = self.group.session, self.group.estates()
        session.check_open()
        names = await records.insist(session, lambda: session.driver.recorded(prefix))
        if not names:
            return ()
        living = await self.group.census()
        ids = [name.removeprefix(prefix) for name in names]
        return tuple(sorted(id for id in ids if id not in living))

    async def inherit(self, ids: Collection[str] | None = None) -> T | None:
        """Take over from one of the dead, or of those given; None if none can be had."""
        for id in await self.orphans() if ids is None else ids:
            orphan = await self.group.lock_of(id, self._orphan_type).try_acquire()
            if orphan is None:
                continue  # it has come back, or somebody else is at it
            try:
                if await orphan._take(self.group.name, id):
                    orphan.check()
                    return orphan
            except BaseException as error:
                await self.group.session.runtime.finish(orphan.release_at_close())
                if isinstance(error, LeaseLost):
                    raise Unavailable(f"the session was lost at once: {error}") from error
                raise
            with suppress(LeaseLost):
                await orphan._release()
        return None


class Vigil(Generic[T]):
    """Waits for deaths in a group, and hands over one orphan at a time."""

    __slots__ = ("_call", "_closed", "_due", "_heirs", "_known", "_opened", "_shunned", "_watch")

    def __init__(self, heirs: Heirs[T], call: Callable[[T], object]) -> None:
        self._heirs = heirs
        self._call = call
        self._watch = RosterWatch(heirs.group.session, heirs.group.roster)
        self._known: frozenset[tuple[str, int]] = frozenset()
        self._shunned: dict[str, float] = {}
        self._due = 0.0
        self._opened = self._closed = False

    def close(self) -> None:
        """End it. Idempotent."""
        self._closed = True
        self._watch.close()
        self._watch.wake()

    async def next(self) -> T | None:
        """The next orphan; None when it was closed."""
        session, group = self._heirs.group.session, self._heirs.group
        try:
            if not self._opened:
                self._opened = True
                await self._watch.open()
            while not self._closed:
                living = frozenset((info.id, info.token) for info in await group.census())
                if self._known - living or session.now() >= self._due:
                    orphan = await self._look()
                    if orphan is not None:
                        return orphan  # and look again at once, when it is settled
                self._known = living
                if not self._closed:
                    await self._watch.wait(self._due)
            return None
        finally:
            if self._closed:
                self._watch.close()  # it may have begun to listen again just before

    async def _look(self) -> T | None:
        """Take what can be had. Of what somebody else is at, look soon what became of it."""
        session = self._heirs.group.session
        now = session.now()
        ids = await self._heirs.orphans()
        self._shunned = {id: until for id, until in self._shunned.items() if until > now}
        orphan = await self._heirs.inherit([id for id in ids if id not in self._shunned])
        if orphan is None:
            self._due = now + (session.ttl / 4 if ids else session.ttl)
        return orphan

    async def handle(self, orphan: T) -> None:
        """Call back; the estate is settled when that returns, and left to others if it fails."""
        session = self._heirs.group.session
        try:
            told = self._call(orphan)
            if isinstance(told, Awaitable):
                await told
        except BaseException:
            self._shunned[orphan.member] = session.now() + session.ttl
            await session.runtime.finish(orphan.release_at_close())
            raise
        await orphan._settle()
