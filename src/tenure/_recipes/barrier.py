"""The barrier: whoever comes waits until so many have come, and then they all go on.

Everybody who has come has a claim in a roster; a record of the same name says how far, by
token, the claims have been let through. Whoever sees enough claims beyond that moves it on,
by compare and set. Claims and record cannot be read in one step, so a party that gives up
first removes its claim, and then writes the record anew, unchanged: that undoes every attempt
to let it through that began before. If it comes too late for that, it was let through.
A claim whose request may arrive after its party has gone is named in the record, and is
not counted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final

from .. import _names
from .._model import Claim
from .._session import Life, Session
from ..errors import LimitMismatch, OutcomeUnknown, SessionLost, Unavailable
from .ledger import MARKS_MAX, TRIES_MAX, Entry, Ledger
from .records import insist
from .watch import RosterWatch

PARTIES_MAX = 1000
"""The greatest number of parties."""

WAITS: Final = -1
SKIPPED: Final = -2
FORGOTTEN: Final = -3


def standing(entry: Entry, token: int) -> int:
    """A party's place among those it was let through with, from 0; or what else became of it.

    It still `WAITS`; or it was `SKIPPED`, since its claim had gone; or all who were let through
    together with it have left and are `FORGOTTEN`.
    """
    if token > entry["upto"]:
        return WAITS
    for before, *tokens in entry["trips"]:
        if before < token <= tokens[-1]:
            return tokens.index(token) if token in tokens else SKIPPED
    return FORGOTTEN


def opened(entry: Entry, claims: Iterable[Claim], parties: int) -> Entry | None:
    """The record once those who are enough are let through; None if they are too few.

    Who was let through and has not left yet will still ask, and is remembered till then; so
    are the last, since one of them may have lost its claim.
    """
    claims = tuple(claims)
    present = [claim.token for claim in claims]
    upto = entry["upto"]
    gone = entry.get("gone", ())
    pending = [claim.token for claim in claims if claim.token > upto and claim.id not in gone]
    if len(pending) < parties:
        return None
    trips = [trip for trip in entry["trips"][:-1] if not set(present).isdisjoint(trip[1:])]
    trips += entry["trips"][-1:]
    while len(pending) >= parties:
        trips.append([upto, *pending[:parties]])
        upto = pending[parties - 1]
        pending = pending[parties:]
    return {**entry, "upto": upto, "trips": trips}


class BarrierRecipe:
    """One name, and the number of parties that its user takes it to have."""

    __slots__ = ("_agreed", "_ledger", "_session", "name", "parties")

    def __init__(self, session: Session, name: str, parties: int) -> None:
        self._session = session
        self._ledger = Ledger(session, _names.of("barrier", name))
        self._agreed = False
        self.name = name
        self.parties = parties

    async def waiting(self) -> int:
        """How many parties wait at this moment."""
        session = self._session
        session.check_open()
        entry = await self._agree(None)
        census = await insist(
            session, lambda: session.driver.census(self._ledger.name), None, session.ttl
        )
        gone = entry.get("gone", ())
        return sum(claim.token > entry["upto"] and claim.id not in gone for claim in census)

    async def wait(self, until: float | None) -> int | None:
        """Wait for the others; the place among them, or None if the time came first."""
        session = self._session
        session.check_open()
        if not self._agreed:
            await self._agree(until)
        unknown = False
        while True:
            try:
                life = session.alive
                if life is None:
                    life = await insist(session, session.life, until, session.ttl)
                party = _Party(self, session, self._ledger, life)
                try:
                    place = await party.wait(until)
                finally:
                    unknown = unknown or party.unknown
            except _Gone:
                # For the others, too: so it comes anew, behind those who are there.
                session.check_open()
            except Unavailable as error:
                if not unknown:
                    raise
                raise OutcomeUnknown(f"{self._untold()}; and then: {error}") from error
            else:
                if place is None and unknown:
                    raise OutcomeUnknown(self._untold())
                return place
            await session.runtime.sleep(session.now() + session.ttl / 30)

    def _untold(self) -> str:
        return (
            f"whether it was let through the barrier {self.name!r} is not known: the session was"
            " lost before it was told that it had come"
        )

    async def _agree(self, until: float | None) -> Entry:
        entry = await self._ledger.read(until)
        if entry is None:
            first = {"parties": self.parties, "upto": 0, "trips": []}
            entry = await self._ledger.change(lambda old: first if old is None else None)
            assert entry is not None
        if entry["parties"] != self.parties:
            raise LimitMismatch(
                f"the barrier {self.name!r} is for {entry['parties']} parties, not {self.parties}",
                given=self.parties,
                found=int(entry["parties"]),
            )
        self._agreed = True
        return entry


class _Gone(Exception):
    """The claim is not there any more, and was not let through."""


class _Party:
    """One claim at the barrier, in one life of the session."""

    def __init__(
        self, barrier: BarrierRecipe, session: Session, ledger: Ledger, life: Life
    ) -> None:
        self._barrier = barrier
        self._session = session
        self._ledger = ledger
        self._life = life
        self._id = life.next_id()
        self._token: int | None = None
        self._unsure = False  # whether a request to enter the claim may yet arrive
        self.unknown = False
        """Whether it may have come, and been let through, and nobody can tell any more."""
        self._watch: RosterWatch | None = None

    async def wait(self, until: float | None) -> int | None:
        """Come, wait and go; whatever ends it, the claim is gone then."""
        session, life, finish = self._session, self._life, self._session.runtime.finish
        place: int | None = None
        lost: SessionLost | None = None
        answers = True
        try:
            try:
                place = await self._stand(until)
            except SessionLost as error:
                lost = error
            except Unavailable:
                answers = False
                raise
            except BaseException:
                with contextlib.suppress(Unavailable):
                    await finish(self._give_up())
                raise
            if place is not None:
                await finish(self._pass())
                return place
            place = await finish(self._give_up())
            if place is None and lost is not None:
                session.lose(life, str(lost))
                raise _Gone from lost
            return place
        except Unavailable as error:
            if not answers:  # the caller need not wait for that twice
                session.owe(life, self._ledger.name, self._id)
            raise OutcomeUnknown(
                f"whether it was let through the barrier {self._barrier.name!r} is not known:"
                f" {error}"
            ) from error
        finally:
            if self._watch is not None:
                session.not_waiting(life, self._watch._signal)
                self._watch.close()

    async def _stand(self, until: float | None) -> int | None:
        session, life, roster = self._session, self._life, self._ledger.name
        driver = session.driver
        self._unsure = True
        try:
            roll = await driver.claim(life.id, roster, self._id, "", None)
            self._unsure = False
        except ConnectionError:
            roll = await session.retry(
                life, lambda: driver.claim(life.id, roster, self._id, "", None), until, session.ttl
            )
        if roll.mine is None:
            raise _Gone
        token = self._token = roll.mine.token
        if roll.rank + 1 >= self._barrier.parties:
            place = await self._look(token, until, True)  # the last to come need not listen
            if place is not None:
                return place
        watch = self._watch = RosterWatch(session, roster)
        session.waiting(life, watch._signal)
        await watch.open()
        while True:
            # The last to come lets them through; if it is stopped before it could, the first do.
            place = await self._look(token, until, roll.rank < 2)
            if place is not None:
                return place
            if life.reason is not None:
                raise SessionLost(life.reason)
            if until is not None and session.now() >= until:
                return None
            await watch.wait(until)

    async def _look(self, token: int, until: float | None, count: bool) -> int | None:
        """See whether it was let through; to `count` is to let them through if they are enough."""
        session, runtime, ledger = self._session, self._session.runtime, self._ledger
        for attempt in range(TRIES_MAX):
            if attempt:
                await runtime.sleep(runtime.now() + runtime.random() * 0.002 * min(attempt, 25))
            entry, version = await ledger.look(until)
            if entry is None:  # the backend has lost its data, or somebody deleted the record
                await self._barrier._agree(until)
                continue
            place = standing(entry, token)
            if place != WAITS:
                return self._judged(place)
            if not count:
                return None
            census = await session.retry(
                self._life, lambda: session.driver.census(ledger.name), until, session.ttl
            )
            new = opened(entry, census, self._barrier.parties)
            if new is None:
                return None
            await ledger.write(new, version)  # done, or somebody was faster: the record tells
        raise Unavailable(f"the barrier {self._barrier.name!r} is too contended")

    def _judged(self, place: int) -> int:
        if place == SKIPPED:
            raise _Gone
        if place == FORGOTTEN:
            raise OutcomeUnknown("the claim was lost, and the record does not tell any more")
        return place

    async def _give_up(self) -> int | None:
        """Be gone, or find that it was let through: then, its place."""
        if self._unsure:
            try:
                await self._disown()
            except BaseException:
                self._session.owe(self._life, self._ledger.name, self._id)
                raise
        await self._leave(patient=True)
        token = self._token
        if token is None:
            return None
        for _ in range(TRIES_MAX):
            entry, version = await self._ledger.look()
            if entry is None:
                return None
            place = standing(entry, token)
            if place == SKIPPED:
                return None
            if place != WAITS:
                return self._judged(place)
            if await self._ledger.write(entry, version):
                return None
        raise Unavailable(f"the barrier {self._barrier.name!r} is too contended")

    async def _pass(self) -> None:
        """It was let through: be gone, and do not come again by a request that is late."""
        if self._unsure:
            # While it stands, its late request finds it; so it goes when it does not count.
            with contextlib.suppress(Unavailable):  # it is owed, and so goes soon if it comes
                await self._disown()
        await self._leave(patient=False)

    async def _disown(self) -> None:
        """Write that the claim does not count from now on; if it is there, learn its token."""
        session, life, ledger, id = self._session, self._life, self._ledger, self._id
        driver = session.driver
        for _ in range(TRIES_MAX):
            entry, version = await ledger.look()
            if entry is None:
                return
            if self._token is None:
                # After the record, so that one that was counted by then is seen here.
                try:
                    roll = await insist(
                        session, lambda: driver.read(life.id, ledger.name, id), None, session.ttl
                    )
                except SessionLost as error:
                    session.lose(life, str(error))
                    roll = None
                if roll is not None and roll.mine is not None:
                    self._token = roll.mine.token
                elif life.reason is not None:
                    self.unknown = True
                    return
            gone = entry.get("gone", [])
            if id in gone:
                return
            if await ledger.write({**entry, "gone": [*gone, id][-MARKS_MAX:]}, version):
                return
        raise Unavailable(f"the barrier {self._barrier.name!r} is too contended")

    async def _leave(self, patient: bool) -> None:
        session, life, roster = self._session, self._life, self._ledger.name
        driver = session.driver
        until = None if patient else session.now()
        try:
            await insist(
                session, lambda: driver.withdraw(life.id, roster, self._id), until, session.ttl
            )
            if self._unsure:
                session.owe(life, roster, self._id)  # it may be entered after this
        except SessionLost as error:
            session.lose(life, str(error))
        except BaseException as error:
            session.owe(life, roster, self._id)
            if patient or not isinstance(error, Unavailable):
                raise
