"""Claims: a fixed list of slots, dealt out among the members of a group, a lock for each.

Every member deals the same slots to the same members, and so knows which are its own; the
locks see to it that a slot has one holder even while they disagree. Three jobs share the
work. The ring's reads the group. The taker takes what is due and free, and waits for what
is not free yet. The teller alone calls back, and gives up what is due to others: so a slot
is released when its `on_release` has returned, and not before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from .. import _names
from .._callbacks import call_back_and_wait
from .._lease import BaseLease
from .._runtime.base import Job
from .._session import Session
from ..errors import BackendError, ClosedError, ForkedError, LeaseLost, SessionLost
from .group import GroupRecipe
from .lock import LockRecipe
from .members import BaseMember
from .ring import RingRecipe, Weigh

L = TypeVar("L", bound=BaseLease)

logger = logging.getLogger("tenure")

POINTS = 64
WAIT_SECONDS = 0.5
"""How long the taker waits for one slot before it looks at the others again."""

TRIES_MAX = 20
"""Slots that the taker finds taken between two waits."""

CLOSE_SECONDS_MAX = 10.0

Tell = Callable[[str, Any], object] | None


class Told(NamedTuple):
    """Whom to call, each with the slot and its lease."""

    gain: Tell
    release: Tell
    lost: Tell


class _Slot(Generic[L]):
    """A slot that is held, or whose loss is yet to be told."""

    __slots__ = ("gained", "lease")

    def __init__(self, lease: L) -> None:
        self.lease = lease
        self.gained = False
        """Whether `on_gain` was called."""


class ClaimsRecipe(Generic[L]):
    """One member's claims, from `open` to `close`."""

    def __init__(
        self,
        group: GroupRecipe[Any],
        member: BaseMember,
        slots: Sequence[str],
        lease_type: type[L],
        told: Told,
        weigh: Weigh | None,
        ignore: Collection[str],
    ) -> None:
        session = group.session
        self._session: Session = session
        self._told = told
        self._ring = RingRecipe(group, member, weigh, POINTS, ignore)
        self._locks = {slot: _lock(group, slot, lease_type) for slot in slots}
        self._slots: dict[str, _Slot[L]] = {}
        self._opening = session.runtime.mutex()
        self._assigning = session.runtime.lock()
        self._due = session.runtime.signal()  # for the taker: there may be something to take
        self._work = session.runtime.signal()  # for the teller: something may have changed
        self._taker: Job | None = None
        self._teller: Job | None = None
        self._taking = False
        self._away = False
        self._turn = 0
        self.member = member
        self.slots = tuple(slots)
        self.wanted: frozenset[str] = frozenset()
        """The slots that are due to the member."""
        self.closed = False

    async def open(self) -> None:
        """Begin. `LeaseLost` if it is no member any more; does nothing if it has begun."""
        async with self._opening:
            session = self._session
            self._check_open()
            if self._taker is not None:
                return
            self.member.check()
            self._ring.refreshed = self._assign
            await self._ring.open()
            self._check_open()
            session.watchers.update((self._due, self._work))
            self.member.on_lost(self._unseated)
            self._assign()
            what = f"the claims of {self.member.id!r} in {self.member.group!r}"
            self._taking = True
            self._taker = session.runtime.spawn(self._take, f"{what}: taking")
            self._teller = session.runtime.spawn(self._tell, f"{what}: telling")

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError(f"the claims of {self.member.id!r} are closed")
        self._session.check_open()

    def held(self) -> dict[str, L]:
        """The slots that are held at this moment, and their leases."""
        held = {slot: each.lease for slot, each in list(self._slots.items()) if each.lease.held()}
        return {slot: held[slot] for slot in self.slots if slot in held}

    async def close(self) -> None:
        """Give everything up, as if it were due to others. Idempotent."""
        self.closed = True
        self._assign()
        await self._ring.close()
        until = self._session.now() + CLOSE_SECONDS_MAX
        for job in (self._taker, self._teller):
            if job is not None:
                await job.join(until)
        self._session.watchers -= {self._due, self._work}

    def _unseated(self, member: BaseMember) -> None:
        self._assign()

    def _assign(self) -> None:
        """Find out which slots are due to the member."""
        # Asked outside of the lock: if the answer is that it has just been lost, that calls here.
        held = self.member.held()
        with self._assigning:
            wanted: Mapping[str, list[str]] = {}
            if held and not self.closed:
                wanted = self._ring.latest.dealt(self.slots)
            self.wanted = frozenset(wanted.get(self.member.id, ()))
        self._due.set()
        self._work.set()
        if held and not self.member.held():
            self._assign()

    # -- the taker ---------------------------------------------------------------

    async def _take(self) -> None:
        try:
            while not self.closed:
                self._session.check_open()
                self._due.clear()
                missing = self._missing()
                if not missing:
                    await self._due.wait(self._session.now() + self._session.ttl)
                    continue
                try:
                    await self._take_some(missing)
                    self._away = False
                except BackendError as error:
                    level = logging.DEBUG if self._away else logging.ERROR
                    self._away = True
                    logger.log(level, "tenure: cannot take slots of %r: %s", self.member, error)
                    await self._due.wait(self._session.now() + self._session.ttl / 6)
        except (ClosedError, ForkedError):
            pass  # with its coordinator
        finally:
            self._taking = False
            self._work.set()

    def _missing(self) -> list[str]:
        """What is due and not held, another one first each time."""
        if not self.member.held():
            return []  # what it was due is due to others as soon as they know
        wanted = self.wanted
        missing = [slot for slot in self.slots if slot in wanted and slot not in self._slots]
        if missing:
            self._turn = (self._turn + TRIES_MAX) % len(missing)
        return missing[self._turn :] + missing[: self._turn]

    async def _take_some(self, missing: list[str]) -> None:
        """Take some that are free; then wait for one after the other, while that helps."""
        taken = 0
        for slot in missing:
            if taken < TRIES_MAX and self._is_due(slot):
                lease = await self._locks[slot].try_acquire()
                taken += lease is None
                if lease is not None:
                    await self._gain(slot, lease)
        for slot in missing:
            if slot in self._slots or not self._is_due(slot):
                continue
            lease = await self._locks[slot].acquire(self._session.now() + self._patience())
            if lease is None:
                return
            await self._gain(slot, lease)

    def _patience(self) -> float:
        return min(WAIT_SECONDS, self._session.ttl / 4)

    def _is_due(self, slot: str) -> bool:
        return slot in self.wanted and self.member.held()

    async def _gain(self, slot: str, lease: L) -> None:
        # Not if the member was lost meanwhile: then the slot was taken in another session.
        if self._is_due(slot):
            self._slots[slot] = _Slot(lease)
            self._work.set()
        else:
            await self._session.runtime.finish(lease.release_at_close())

    # -- the teller --------------------------------------------------------------

    async def _tell(self) -> None:
        session = self._session
        try:
            while True:
                self._work.clear()
                session.check_open()
                for slot, each in list(self._slots.items()):
                    await self._settle(slot, each)
                if self.closed and not self._taking and not self._slots:
                    return
                await self._work.wait(session.now() + session.ttl / 3)
        except (ClosedError, ForkedError):
            for slot, each in list(self._slots.items()):
                await self._drop(slot, each)  # released, or ended, with the coordinator

    async def _settle(self, slot: str, each: _Slot[L]) -> None:
        """Do what is due to a slot now, if anything is."""
        if self._expelled() and not await self._confirmed():
            return
        if not each.lease.held():
            await self._drop(slot, each)
        elif slot not in self.wanted:
            if each.gained:
                await self._call(self._told.release, slot, each)
            try:
                await each.lease._release()
            except LeaseLost:
                await self._drop(slot, each)
                return
            except BackendError as error:
                logger.warning("tenure: releasing the slot %r: %s", slot, error)
            del self._slots[slot]
            self._due.set()  # it may have become due again meanwhile
        elif not each.gained:
            each.gained = True
            await self._call(self._told.gain, slot, each)
            self._work.set()  # who knows what has happened meanwhile

    def _expelled(self) -> bool:
        """Whether the group does not show the member, and the member does not know why."""
        known = self._ring.members
        return known is not None and self.member.id not in known and self.member.held()

    async def _confirmed(self) -> bool:
        """See whether the session is dead, or the member was removed from a group that lives on.

        In the one case each slot is lost, in the other it is to be given up.
        """
        try:
            await self.member._removed(SessionLost("the group does not show the member any more"))
        except BackendError as error:
            logger.info("tenure: cannot see what became of %r: %s", self.member, error)
        return not self.member.held()

    async def _drop(self, slot: str, each: _Slot[L]) -> None:
        """It is not held any more, and was not given up."""
        del self._slots[slot]
        if each.gained:
            await self._call(self._told.lost, slot, each)
        self._due.set()

    async def _call(self, tell: Tell, slot: str, each: _Slot[L]) -> None:
        if tell is None:
            return
        failed = "tenure: a callback failed on the slot %r of %r"
        runtime, news = self._session.runtime, (slot, each.lease)
        await call_back_and_wait(runtime, tell, news, failed, slot, self.member)


def _lock(group: GroupRecipe[Any], slot: str, lease_type: type[L]) -> LockRecipe[L]:
    roster = _names.of("claims", group.name, slot)
    return LockRecipe(group.session, f"{group.name}/{slot}", False, lease_type, roster=roster)
