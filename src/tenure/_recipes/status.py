"""What goes on in a namespace, for an operator to read: who holds, waits, leads and is there.

First the names of all rosters and records are read, and then, one after the other, what
they say. So it is no snapshot: what changes meanwhile is seen as it was before, or after.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple

from .. import _names, _verdicts
from .._model import Claim, Holder, Taken
from .._session import Session
from ..errors import Unsupported
from . import payload
from .candidates import candidates
from .election import leader
from .members import MemberInfo, Members
from .records import insist, recall

StatusKind = Literal["lock", "semaphore", "election", "group", "claim", "barrier", "latch"]


class Status(NamedTuple):
    """What goes on under one name, for an operator to read.

    `name` is None, or shortened, where the backend does not know it all. `holders` are
    those who hold the lock, the claim or a permit, or lead. `waiters` says how many clients
    wait, and is None where the backend cannot count them.

    `limit` is how many may hold the semaphore, or must wait at the barrier, or where the
    latch began. `value` is what the leader has published, or what is left of the latch.
    `members` and `orphans`, the ids of dead members whose estates nobody has settled, are
    the group's.
    """

    kind: StatusKind
    name: str | None
    holders: tuple[Holder, ...] = ()
    waiters: int | None = 0
    limit: int | None = None
    shared: bool = False
    value: Any = None
    members: tuple[MemberInfo, ...] = ()
    orphans: tuple[str, ...] = ()


_KINDS: dict[str, StatusKind] = {
    "lock": "lock",
    "semaphore": "semaphore",
    "election": "election",
    "leader": "election",
    "candidate": "election",
    "group": "group",
    "estate": "group",
    "claims": "claim",
    "barrier": "barrier",
    "latch": "latch",
}
"""What a roster or record is about, by its own kind. The locks of members are left out."""

_ORDER = tuple(dict.fromkeys(_KINDS.values()))


async def status(session: Session) -> tuple[Status, ...]:
    """All that goes on, by kind and name. One or two round trips for each name, and three."""
    session.check_open()
    driver, mutex = session.driver, session.driver.mutex
    survey = _Survey(session)
    survey.rosters = frozenset(await _all(session, driver.rosters))
    for roster in survey.rosters:
        survey.add(roster)
    for record in await _all(session, driver.recorded):
        survey.add(record)
    if mutex is not None:
        for taken in await insist(session, mutex.taken):
            survey.add_taken(taken)
    return await survey.read()


async def _all(session: Session, names: Callable[[str], Awaitable[Sequence[str]]]) -> Sequence[str]:
    try:
        return await insist(session, lambda: names(""))
    except Unsupported:
        return ()  # a driver with nothing but a lock of its own


class _Survey:
    """First the names of what there is, and then what can be read under them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.rosters: frozenset[str] = frozenset()
        self._asked: set[tuple[StatusKind, str]] = set()
        self._estates: dict[str, list[str]] = {}
        self._found: list[Status] = []

    def add(self, text: str) -> None:
        """A roster or a record."""
        kind, name = _names.read(text)
        if kind == "estate":
            name, member = _names.split(name)
            self._estates.setdefault(name, []).append(member)
        if kind in _KINDS:
            self._asked.add((_KINDS[kind], name))

    def add_taken(self, taken: Taken) -> None:
        """A lock of the backend's own: of those for something else, that is told elsewhere."""
        kind, name = ("lock", None) if taken.name is None else _names.read(taken.name)
        if kind == "election":
            self._asked.add(("election", name or ""))
        elif kind in ("lock", "claims"):
            shown = name if name is None or kind == "lock" else _slot(name)
            waiters, shared = taken.waiters, taken.shared
            self._found.append(Status(_KINDS[kind], shown, taken.holders, waiters, shared=shared))

    async def read(self) -> tuple[Status, ...]:
        """Ask for what is not known yet. What has gone meanwhile is left out."""
        readers: dict[StatusKind, Callable[[str], Awaitable[Status | None]]] = {
            "lock": self._lock,
            "semaphore": self._semaphore,
            "election": self._election,
            "group": self._group,
            "claim": self._claim,
            "barrier": self._barrier,
            "latch": self._latch,
        }
        for kind, name in sorted(self._asked):
            found = await readers[kind](name)
            if found is not None:
                self._found.append(found)
        self._found.sort(key=lambda each: (_ORDER.index(each.kind), each.name is None, each.name))
        return tuple(self._found)

    async def _lock(self, name: str) -> Status | None:
        return _held("lock", name, await self._census(_names.of_lock(name)), 1)

    async def _claim(self, name: str) -> Status | None:
        return _held("claim", _slot(name), await self._census(_names.of("claims", name)), 1)

    async def _semaphore(self, name: str) -> Status | None:
        roster = _names.of("semaphore", name)
        entry = await self._entry(roster)
        limit = entry.get("limit")
        found = _held("semaphore", name, await self._census(roster), limit or 1)
        if found is None and limit is not None:
            found = Status("semaphore", name)
        return None if found is None else found._replace(limit=limit)

    async def _election(self, name: str) -> Status | None:
        first = leader(await self._census(_names.of("leader", name)))
        waiting = candidates(await self._census(_names.of("candidate", name)))
        found = Status("election", name, waiters=len(waiting))
        if first is None:
            return found
        holder = Holder(first.owner, first.token, first.since)
        return found._replace(holders=(holder,), value=first.value)

    async def _group(self, name: str) -> Status | None:
        roster = _names.of("group", name)
        members = Members(name, await self._census(roster))
        orphans = tuple(id for id in self._estates.get(name, ()) if id not in members)
        if orphans:
            # Who has left since they were listed has taken its estate away before itself.
            driver, prefix = self._session.driver, _names.of("estate", name, "")
            left = await insist(self._session, lambda: driver.recorded(prefix))
            orphans = tuple(id for id in orphans if prefix + id in left)
        if not members and not orphans and await recall(self._session, roster) is None:
            return None
        return Status("group", name, members=tuple(members), orphans=orphans)

    async def _barrier(self, name: str) -> Status | None:
        roster = _names.of("barrier", name)
        entry = await self._entry(roster)
        upto = entry.get("upto", 0)
        waiting = [claim for claim in await self._census(roster) if claim.token > upto]
        return Status("barrier", name, waiters=len(waiting), limit=entry.get("parties"))

    async def _latch(self, name: str) -> Status | None:
        entry = await self._entry(_names.of("latch", name))
        if not entry:
            return None
        return Status("latch", name, waiters=None, limit=entry.get("of"), value=entry.get("count"))

    async def _census(self, roster: str) -> tuple[Claim, ...]:
        if roster not in self.rosters:
            return ()
        return await insist(self._session, lambda: self._session.driver.census(roster))

    async def _entry(self, name: str) -> dict[str, Any]:
        record = await recall(self._session, name)
        return (payload.decode(record.text) if record is not None else None) or {}


def _held(kind: StatusKind, name: str, claims: Sequence[Claim], width: int) -> Status | None:
    """What a roster says whose first claims hold, and whose others wait."""
    if not claims:
        return None
    first = _verdicts.holding(claims, width)
    holders = tuple(Holder(claim.owner, claim.token) for claim in first)
    return Status(kind, name, holders, len(claims) - len(holders), shared=claims[0].shared)


def _slot(name: str) -> str:
    group, slot = _names.split(name)
    return f"{group}/{slot}" if group else slot
