"""A hash ring over the members of a group, kept up to date in the background.

Every watcher of the group makes the same ring of the same reading, so all agree on who
owns what, without a word between them. For a moment after a change they may not: the
ring says who should do the work, not that nobody else does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from .._hashring import HashRing, K, Key, weighted
from ..errors import ClosedError, InvalidArgument
from .group import GroupRecipe
from .groupwatch import BUFFER, Callbacks, GroupWatch
from .members import BaseMember, Change, MemberInfo, Members

logger = logging.getLogger("tenure")

Weigh = Callable[[MemberInfo], float]


class Move(NamedTuple):
    """A key that has another owner than before; None stands for nobody."""

    key: Key
    before: str | None
    after: str | None


class RingChange(NamedTuple):
    """The members of a ring have changed: what it was like before, and what it is like now."""

    before: HashRing
    after: HashRing

    @property
    def joined(self) -> tuple[str, ...]:
        """The ids of those that are new."""
        return tuple(node for node in self.after.nodes if node not in self.before)

    @property
    def left(self) -> tuple[str, ...]:
        """The ids of those that are gone."""
        return tuple(node for node in self.before.nodes if node not in self.after)

    def moves(self, keys: Iterable[Key]) -> list[Move]:
        """Those of the keys that have another owner now, and which."""
        moves = (Move(key, self.before.owner(key), self.after.owner(key)) for key in keys)
        return [move for move in moves if move.before != move.after]


class RingRecipe:
    """A group's ring, from `open` to `close`. Reads the group whenever it changes."""

    __slots__ = (
        *("_closed", "_followers", "_ignore", "_odd", "_opening", "_refresher", "_seen", "_watch"),
        *("_weigh", "group", "latest", "member", "refreshed"),
    )

    def __init__(
        self,
        group: GroupRecipe[Any],
        member: BaseMember | None,
        weigh: Weigh | None,
        points: int,
        ignore: Collection[str],
    ) -> None:
        if member is not None and (
            not isinstance(member, BaseMember) or member.group != group.name
        ):
            raise InvalidArgument(f"not a member of the group {group.name!r}: {member!r}")
        if weigh is not None and not callable(weigh):
            raise InvalidArgument(f"weights must be a function of a MemberInfo, not {weigh!r}")
        self.group = group
        self.member = member
        self._weigh = weigh
        self._ignore = frozenset({ignore} if isinstance(ignore, str) else ignore)
        self._watch = GroupWatch(group, None, BUFFER)
        self._seen: object = None
        self._odd: set[str] = set()
        self._refresher: Callbacks | None = None
        self._followers: list[Follower] = []
        self._opening = group.session.runtime.mutex()
        self._closed = False
        self.latest = HashRing(points=points)
        """The ring, as the group was read last."""
        self.refreshed: Callable[[], None] | None = None
        """Called, if it is set, when there is another ring."""

    async def open(self) -> None:
        """Read the group, and do so whenever it changes. Does nothing if that is so already."""
        async with self._opening:
            self.check_open()
            if self._refresher is None:
                await self._watch.open()
                self.check_open()
                self._refresh(None)
                watch, what = self._watch, f"the ring of the group {self.group.name!r}"
                self._refresher = Callbacks(
                    self.group.session, what, lambda: watch.next(None), self._refresh, watch.close
                )

    def check_open(self) -> None:
        """Raise `ClosedError` if it was closed, or its coordinator."""
        if self._closed:
            raise ClosedError(f"the ring of the group {self.group.name!r} is closed")
        self.group.session.check_open()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def members(self) -> Members | None:
        """The group's members as they were read last, also those to ignore."""
        return self._watch.known

    def current(self) -> HashRing:
        """The ring, for a question to it; `ClosedError` if nobody keeps it up to date."""
        self.check_open()
        if self._refresher is None:
            raise ClosedError(
                f"the ring of the group {self.group.name!r} is not open: enter it first"
            )
        return self.latest

    def mine(self, keys: Iterable[K]) -> list[K]:
        """Those of the keys that the member owns; none once it is no member any more."""
        id, held = self._me()
        return self.current().mine(id, keys) if held else []

    def is_mine(self, key: Key) -> bool:
        """Whether the member owns the key; not once it is no member any more."""
        id, held = self._me()
        return self.current().owner(key) == id and held

    def _me(self) -> tuple[str, bool]:
        if self.member is None:
            raise InvalidArgument(
                f"the ring of the group {self.group.name!r} does not know which member asks:"
                f" make it with the member, group.ring(member)"
            )
        return self.member.id, self.member.held()

    def _refresh(self, change: Change | None) -> None:
        # Of many changes found in one reading, the first brings the ring to the last of them.
        members = self._watch.known
        if members is None or members is self._seen:
            return
        self._seen = members
        weights = {info.id: self._weight(info) for info in members if info.id not in self._ignore}
        before, self.latest = self.latest, self.latest.replacing(weights)
        if self.latest is not before:
            for follower in list(self._followers):
                follower.wake()
            if self.refreshed is not None:
                self.refreshed()

    def _weight(self, info: MemberInfo) -> float:
        """The weight of a member. All must come to the same one, so an error counts as 1."""
        if self._weigh is None:
            return 1.0
        try:
            return weighted({info.id: self._weigh(info)}, self.latest.points)[info.id]
        except Exception:
            level = logging.DEBUG if info.id in self._odd else logging.ERROR
            self._odd.add(info.id)
            told = "tenure: the ring of %r takes the weight of %r to be 1"
            logger.log(level, told, self.group.name, info.id, exc_info=True)
            return 1.0

    def follow(self, callback: Callable[[RingChange], object]) -> Callbacks:
        """Call back for each change from now on."""
        self.current()
        follower = Follower(self)
        self._followers.append(follower)
        follower.wake()  # for what has changed since it was made
        what = f"following the ring of the group {self.group.name!r}"
        session = self.group.session
        follower.job = Callbacks(session, what, follower.next, callback, follower.close)
        return follower.job

    def forget(self, follower: Follower) -> None:
        """It follows no more."""
        if follower in self._followers:
            self._followers.remove(follower)

    async def close(self) -> None:
        """Read no more, and call back no more. Idempotent."""
        self._closed = True
        if self._refresher is not None:
            await self._refresher.close()
        self._watch.close()
        for follower in list(self._followers):
            if follower.job is not None:
                await follower.job.close()


class Follower:
    """What one subscriber was told last."""

    def __init__(self, ring: RingRecipe) -> None:
        self._ring = ring
        self._told = ring.latest
        self._closed = False
        session = ring.group.session
        self._news = session.runtime.signal()
        session.watchers.add(self._news)
        self.job: Callbacks | None = None

    def wake(self) -> None:
        """The ring is another."""
        self._news.set()

    async def next(self) -> RingChange | None:
        """What has changed since it was told last; None once it is closed."""
        session = self._ring.group.session
        while not self._closed:
            session.check_open()
            await self._news.wait(None)
            self._news.clear()
            before, self._told = self._told, self._ring.latest
            if self._told != before:
                return RingChange(before, self._told)
        return None

    def close(self) -> None:
        """Be told no more."""
        self._closed = True
        self._ring.group.session.watchers.discard(self._news)
        self._ring.forget(self)
        self._news.set()
