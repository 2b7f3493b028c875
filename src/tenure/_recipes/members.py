"""Members of a group: what others read of them, how two readings differ, and the lease."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple, overload

from .. import _names
from .._model import Claim, Record
from .._session import Session
from ..errors import BackendError, SessionLost
from . import payload, records
from .post import PostedLease

logger = logging.getLogger("tenure")

ChangeKind = Literal["joined", "left", "changed", "lagged"]


class MemberInfo(NamedTuple):
    """A member of a group, as everybody can read it.

    `token` is the fencing token of its membership, and `owner` its coordinator's owner.
    `joined` is Unix time by the member's own clock, for people to read; `last_seen`, in
    seconds ago, is when its session was renewed last, and None where nobody asked for it.
    """

    id: str
    capabilities: Any
    owner: str
    token: int
    joined: float
    last_seen: float | None = None


class Change(NamedTuple):
    """One change of a group's membership.

    `member` is the one that joined, left or changed; for one that left, what was known of
    it last. `before` is what it was before it changed. Of kind `lagged`, without a member:
    the watcher looked too rarely, and what follows is the difference, not each step.
    """

    kind: ChangeKind
    member: MemberInfo | None = None
    before: MemberInfo | None = None


class Members:
    """The members of a group at one moment, in the order in which they joined. Immutable.

    It has a length, can be indexed and iterated, and `id in members` says whether there
    is a member of that id.
    """

    __slots__ = ("_by_id", "_claims", "_infos", "_since", "group", "unreadable")

    group: str
    """The group's name."""
    unreadable: int
    """How many entries were not written by Tenure, and are left out."""

    def __init__(self, group: str, claims: Iterable[Claim]) -> None:
        self.group = group
        self.unreadable = 0
        self._claims: dict[str, Claim] = {}
        self._by_id: dict[str, MemberInfo] = {}
        for claim in claims:
            info = _read(claim)
            if info is None:
                self.unreadable += 1
                continue
            # Two of one id: the first is dying, and the backend has not buried it yet.
            other = self._by_id.get(info.id)
            if other is None or other.token < info.token:
                self._by_id.pop(info.id, None)
                self._by_id[info.id] = info
                self._claims[info.id] = claim
        self._infos = tuple(self._by_id.values())
        self._since: tuple[Members, tuple[Change, ...]] | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The members' ids."""
        return tuple(self._by_id)

    def get(self, id: str) -> MemberInfo | None:
        """The member of an id; None if there is none."""
        return self._by_id.get(id)

    def session_of(self, id: str) -> str:
        """The session of the member of an id."""
        return self._claims[id].session

    def changes(self, later: Members) -> list[Change]:
        """What happened between this moment and a later one: who left, changed, and joined."""
        known = later._since
        if known is None or known[0] is not self:
            # Many watchers of one coordinator share both: it is found out once for all of them.
            known = later._since = self, tuple(self._differences(later))
            self._since = None  # or each would keep all those before it
        return list(known[1])

    def _differences(self, later: Members) -> list[Change]:
        gone, changed = [], []
        for info in self._infos:
            now = later.get(info.id)
            if now is None or now.token != info.token:
                gone.append(Change("left", info))
            elif later._claims[info.id].body != self._claims[info.id].body:
                changed.append(Change("changed", now, info))
        joined = []
        for info in later:
            before = self.get(info.id)
            if before is None or before.token != info.token:
                joined.append(Change("joined", info))
        return gone + changed + joined

    @overload
    def __getitem__(self, index: int) -> MemberInfo: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[MemberInfo, ...]: ...
    def __getitem__(self, index: int | slice) -> MemberInfo | tuple[MemberInfo, ...]:
        return self._infos[index]

    def __len__(self) -> int:
        return len(self._infos)

    def __iter__(self) -> Iterator[MemberInfo]:
        return iter(self._infos)

    def __contains__(self, id: str) -> bool:
        return id in self._by_id

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.ids[:10])) + (", …" if len(self) > 10 else "")
        count = f"{len(self)} member{'' if len(self) == 1 else 's'}"
        return f"<{count} of {self.group!r}{': ' if shown else ''}{shown}>"


def _read(claim: Claim) -> MemberInfo | None:
    """What a claim says of a member; None if somebody else wrote it."""
    found = payload.decode(claim.body)
    if found is None:
        return None
    id, token, at = found.get("id"), found.get("token"), found.get("at")
    if not isinstance(id, str) or not isinstance(token, int) or not isinstance(at, int | float):
        return None
    return MemberInfo(id, found.get("capabilities"), claim.owner, token, float(at))


def will(session: Session, estate: str, token: int) -> str:
    """The text of an estate's record: each is new to the world."""
    known = {"by": session.owner, "token": token, "write": session.runtime.unique()}
    return f'{json.dumps(known)[:-1]},"estate":{estate}}}'


def written_by(text: str) -> int:
    """The token of whoever wrote an estate's record; 0 if nobody can tell."""
    token = (payload.decode(text) or {}).get("token")
    return token if isinstance(token, int) else 0


class BaseMember(PostedLease):
    """What the members of both APIs share. Made by `join`, never by hand."""

    __slots__ = ("_capabilities", "_estate", "_estate_version", "_joined", "group", "id")

    group: str
    """The group's name."""
    id: str
    """The member's id, which no other member of the group has."""

    def __init__(self, *args: Any) -> None:
        self._estate: str | None = None
        self._estate_version: Any = None
        super().__init__(*args)

    def _introduce(self, group: str, id: str, capabilities: str) -> str:
        """What it shows when it enters."""
        self.group = group
        self.id = id
        self._joined = round(self._session.runtime.wall(), 3)
        self._capabilities = capabilities
        return self._shown()

    def _shown(self) -> str:
        return self._body(self._capabilities)

    def _body(self, capabilities: str) -> str:
        known = {"id": self.id, "token": self.token, "at": self._joined}
        return f'{json.dumps(known, separators=(",", ":"))[:-1]},"capabilities":{capabilities}}}'

    @property
    def capabilities(self) -> Any:
        """What it has published, as a copy."""
        return json.loads(self._capabilities)

    async def _update(self, capabilities: Any) -> None:
        text = payload.encode(capabilities, "capabilities")
        await self._rewrite(self._body(text))
        self._capabilities = text

    async def _stands(self) -> bool:
        """Say whether the group has its claim, still or again."""
        session, life, claim = self._session, self._life, self._claim
        self.check()
        if claim is None:
            return False
        roll = await session.retry(
            life,
            lambda: session.driver.read(life.id, claim.roster, claim.id),
            None,
            session.ttl / 3,
        )
        if roll.mine is not None:
            self._claim = roll.mine
        return roll.mine is not None

    # -- its estate ------------------------------------------------------------

    @property
    def estate(self) -> Any:
        """What it will leave behind if it dies, as a copy; None if that is nothing."""
        return None if self._estate is None else json.loads(self._estate)

    async def _recover(self, estate: str) -> None:
        """Take back the estate of an earlier self that nobody inherited; else make one."""
        for attempt in range(records.TRIES_MAX + 1):
            await records.pause(self._session, attempt)
            found = await self._found()
            left = None if found is None else payload.decode(found.text)
            if left is not None and "estate" in left:
                estate = json.dumps(left["estate"], separators=(",", ":"))
            try:
                if await self._write_will(estate, None if found is None else found.version):
                    return
            except BaseException:
                if found is None:
                    await self._session.runtime.finish(self._revoke())
                raise

    async def _revoke(self) -> None:
        """Joining failed, perhaps after the estate was written: see that none is left."""
        session, token = self._session, self.token
        try:
            found = await records.recall(session, self._will())
            if found is not None and written_by(found.text) == token:
                await records.swap(session, self._will(), None, found.version)
        except BackendError as error:
            logger.warning("tenure: the estate of %r may be left behind: %s", self.id, error)

    async def _bequeath(self, estate: Any) -> None:
        text = None if estate is None else payload.encode(estate, "the estate")
        async with self._writing:
            self.check()
            version = self._estate_version
            if version is None:
                found = await self._found()
                version = None if found is None else found.version
            if text is None and version is None:
                return
            if not await self._write_will(text, version):
                await self._dismiss(f"somebody else has the estate of {self.id!r}")
                raise self._loss()

    async def _found(self) -> Record | None:
        """The record of its estate. `LeaseLost` if a later member of this id has written it."""
        found = await records.recall(self._session, self._will())
        self.check()
        if found is not None and written_by(found.text) > self.token:
            await self._dismiss(f"somebody else has the estate of {self.id!r}")
            raise self._loss()
        return found

    async def _write_will(self, estate: str | None, version: Any) -> bool:
        text = None if estate is None else will(self._session, estate, self.token)
        written = await records.swap(self._session, self._will(), text, version)
        if written is None:
            return False
        self._estate = estate
        self._estate_version = None if estate is None else written
        return True

    def _will(self) -> str:
        return _names.of("estate", self.group, self.id)

    # -- its end -----------------------------------------------------------------

    async def _release(self) -> None:
        if self._reason is not None:
            raise self._loss()  # lost, or being dismissed
        try:
            # First of all: who leaves has no heirs.
            async with self._writing:
                if self._estate_version is not None and self.held():
                    version, self._estate_version = self._estate_version, None
                    await records.swap(self._session, self._will(), None, version)
                    self._estate = None
        finally:
            await super()._release()

    async def _removed(self, error: SessionLost) -> None:
        # Either the session is dead, or the group was deleted by force: the session says which.
        session, life = self._session, self._life
        if life.reason is not None:
            return  # a session that is over must not be renewed
        try:
            await session.driver.renew(life.id)
        except SessionLost:
            session.lose(life, str(error))
            return
        await self._dismiss(f"the member was removed from the group {self.group!r}")

    async def _dismiss(self, reason: str) -> None:
        """Lose this membership alone: the session, and what else it holds, goes on."""
        session, life, grant, claim = self._session, self._life, self._grant, self._claim
        with session.shared:
            if self._reason is not None or self._releasing or self._ended:
                return  # somebody is at it already
            # From here on it is not held, since its lock may be free before that is confirmed.
            self._reason = reason
        self._claim = None
        if claim is not None:
            session.owe(life, claim.roster, claim.id)
        try:
            if grant is not None:
                assert session.driver.mutex is not None
                await session.driver.mutex.unseize(grant)
            else:
                session.owe(life, self._roster, self._id)
        except SessionLost as gone:
            session.lose(life, str(gone))
        finally:
            session.drop(life, self)  # not before: at the deadline, the session ends it
            self.end(reason)
            self.tell()

    def __repr__(self) -> str:
        start = f"lease {self.name!r}"
        return super().__repr__().replace(start, f"member {self.id!r} of {self.group!r}", 1)
