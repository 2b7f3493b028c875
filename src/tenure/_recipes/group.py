"""Groups: a record says that a group exists, and a roster of the same name who is in it.

A member enters its claim first and looks at the record afterwards; who deletes a group
marks the record first and counts the members afterwards. So of two that race, at least
one sees the other: a group that has a member is never deleted, unless by force.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from .. import _names
from .._lease import BaseLease
from .._model import Claim, Record
from .._session import Session
from ..errors import (
    AlreadyJoined,
    GroupExists,
    GroupNotEmpty,
    GroupNotFound,
    LeaseLost,
    MemberExists,
    MemberNotFound,
    SessionLost,
    Unavailable,
)
from . import payload, records
from .census import census
from .lock import LockRecipe
from .members import BaseMember, MemberInfo, Members
from .post import PostRecipe

L = TypeVar("L", bound=BaseLease)
M = TypeVar("M", bound=BaseMember)


async def groups(session: Session) -> Sequence[str]:
    """The names of all groups, sorted."""
    session.check_open()
    prefix = _names.prefix("group")
    found = await records.insist(session, lambda: session.driver.recorded(prefix))
    return sorted(_names.read(each).name for each in found)


class GroupRecipe(Generic[M]):
    """One group. Holds nothing itself: every join returns a member of its own."""

    __slots__ = ("_member_type", "name", "roster", "session")

    def __init__(self, session: Session, name: str, member_type: type[M]) -> None:
        self.session = session
        self._member_type = member_type
        self.name = name
        self.roster = _names.of("group", name)

    # -- the group -------------------------------------------------------------

    async def create(self, exist_ok: bool) -> None:
        """Create it; `GroupExists` if there is one, unless that is all right."""
        for attempt in range(records.TRIES_MAX + 1):
            await records.pause(self.session, attempt)
            if await self._write(None) is not None:
                return
            if await self.exists():
                if exist_ok:
                    return
                raise GroupExists(f"there is a group {self.name!r} already")

    async def exists(self) -> bool:
        """Say whether there is such a group."""
        self.session.check_open()
        return await self._look() is not None

    async def _look(self) -> Record | None:
        """Read the group's record, and remember which group that is."""
        found = await records.recall(self.session, self.roster)
        if found is not None:
            self.session.groups[self.roster] = _identity(found)
        else:
            self.session.groups.pop(self.roster, None)
        return found

    async def delete(self, force: bool) -> None:
        """Delete it, if it is empty; with `force`, its members and estates as well."""
        identity: str | None = None
        for attempt in range(records.TRIES_MAX + 1):
            await records.pause(self.session, attempt)
            found = await records.recall(self.session, self.roster)
            if found is None and identity is None:
                raise GroupNotFound(f"there is no group {self.name!r}")
            if found is None or identity not in (None, _identity(found)):
                return  # somebody else deleted it at the same time
            identity = _identity(found)
            version = await self._write(found, marked=True)
            if version is None:
                continue
            try:
                await self._empty(force)
            except GroupNotEmpty:
                await self._write(Record(found.text, version))
                raise
            if await records.swap(self.session, self.roster, None, version) is not None:
                return
            # Somebody joined, or another deletes it, too.

    async def _empty(self, force: bool) -> None:
        """See that nobody is in it; with `force`, make it so."""
        session, driver = self.session, self.session.driver
        claims = await records.insist(session, lambda: driver.census(self.roster))
        # In this order: the estate of a member that died in between is seen.
        estates = await records.insist(session, lambda: driver.recorded(self.estates()))
        if not force and claims:
            members = Members(self.name, claims)
            raise GroupNotEmpty(f"the group {self.name!r} is not empty: {members!r}")
        if not force and estates:
            raise GroupNotEmpty(
                f"the group {self.name!r} has {len(estates)} estate(s) of dead members"
                f" that nobody has inherited"
            )
        for claim in claims:
            await records.insist(session, functools.partial(self._evict, claim))
        for name in estates:
            await self._delete_record(name)

    async def _evict(self, claim: Claim) -> None:
        await self.session.driver.withdraw(claim.session, claim.roster, claim.id)

    async def _delete_record(self, name: str) -> None:
        for attempt in range(records.TRIES_MAX + 1):
            await records.pause(self.session, attempt)
            found = await records.recall(self.session, name)
            if found is None:
                return
            if await records.swap(self.session, name, None, found.version) is not None:
                return

    async def _write(self, old: Record | None, marked: bool = False) -> Any:
        """Write the group's record over an old one, marked as being deleted, or not."""
        session = self.session
        unique = session.runtime.unique
        identity = unique() if old is None else _identity(old)
        text = {
            "id": identity,
            "by": session.owner,
            "at": round(session.runtime.wall(), 3),
            "write": unique(),
            "deleting": marked,
        }
        version = None if old is None else old.version
        written = await records.swap(session, self.roster, json.dumps(text), version)
        if written is not None:
            session.groups[self.roster] = identity
        return written

    def estates(self) -> str:
        """What the names of its dead members' estates begin with."""
        return _names.of("estate", self.name, "")

    # -- its members -----------------------------------------------------------

    async def members(self) -> Members:
        """Who is in it now; `GroupNotFound` if there is no such group."""
        members = await self.census()
        if not members and not await self.exists():
            raise GroupNotFound(f"there is no group {self.name!r}")
        return members

    async def census(self, since: int | None = None) -> Members:
        """Who is in it now, whether or not there is such a group. One round trip."""
        return await census(self.session, self.roster, self._members, since)

    def _members(self, claims: tuple[Claim, ...]) -> Members:
        return Members(self.name, claims)

    async def member(self, id: str) -> MemberInfo:
        """One member, and when it was seen last; `MemberNotFound` if there is none."""
        session = self.session
        members = await self.census()
        info = members.get(id)
        seen = None
        if info is not None:
            of = members.session_of(id)
            seen = await records.insist(session, lambda: session.driver.last_seen(of))
        if info is None or seen is None:
            raise MemberNotFound(f"the group {self.name!r} has no member {id!r}")
        return info._replace(last_seen=seen)

    async def join(
        self,
        capabilities: Any,
        id: str | None,
        create: bool,
        timeout: float | None,
        estate: Any,
    ) -> M:
        """Join it, as `id`; wait for `timeout` seconds for another of that id to go."""
        session = self.session
        session.check_open()
        id = session.owner if id is None else id
        text = payload.encode(capabilities, "capabilities")
        left = None if estate is None else payload.encode(estate, "the estate")
        # Where a group was known, to look afterwards is enough: that has to be done anyway.
        if not create and self.roster not in session.groups and not await self.exists():
            raise GroupNotFound(f"there is no group {self.name!r}")
        lock = self.lock_of(id, self._member_type)
        if session.gates.taken(lock.roster):
            raise AlreadyJoined(f"this coordinator is in the group {self.name!r} as {id!r} already")
        known = session.groups.get(self.roster)
        post = PostRecipe(lock, self.roster)

        def introduced(member: M) -> str:
            return member._introduce(self.name, id, text)

        if timeout == 0:
            member = await post.try_acquire(introduced)
        else:
            member = await post.acquire(
                None if timeout is None else session.now() + timeout, introduced
            )
        if member is None:
            holder = await lock.holder()
            by = f", by {holder.owner!r}" if holder is not None else ""
            raise MemberExists(f"in the group {self.name!r}, the id {id!r} is taken{by}")
        try:
            await self._settle(member, create, known)
            if left is not None:
                await member._recover(left)
            member.check()
        except BaseException as error:
            await session.runtime.finish(member.release_at_close())
            if isinstance(error, SessionLost | LeaseLost):
                raise Unavailable(f"the session was lost at once: {error}") from error
            raise
        return member

    def lock_of(self, id: str, lease_type: type[L]) -> LockRecipe[L]:
        """The lock that the member of an id holds, or whoever takes over what it left."""
        roster = _names.of("member", self.name, id)
        return LockRecipe(self.session, f"{self.name}/{id}", False, lease_type, roster=roster)

    async def _settle(self, member: M, create: bool, known: str | None) -> None:
        """Its claim was entered: see that it is in a group that is not being deleted.

        `known` is the group that was there before. If there is another one now, the first
        may have been deleted meanwhile, by force, and the claim with it.
        """
        for attempt in range(records.TRIES_MAX + 1):
            await records.pause(self.session, attempt)
            found = await self._look()
            whole = found is not None and not _marked(found)
            if found is not None and whole and _identity(found) == known:
                return
            if found is None and not create:
                raise GroupNotFound(f"the group {self.name!r} was deleted")
            if not whole and await self._write(found) is None:
                continue
            if await member._stands():
                return
            known = None if found is None else _identity(found)
            await member._put_up(self.roster, member._shown())


def _identity(record: Record) -> str:
    """What tells a group from another of its name, before or after it."""
    return str((payload.decode(record.text) or {}).get("id", ""))


def _marked(record: Record) -> bool:
    """Whether somebody is about to delete the group, or died over it."""
    return (payload.decode(record.text) or {}).get("deleting") is True
