"""The lock: a claim at the head of a roster, or the backend's native mutex.

An acquire first passes the local gate, so that the many waiters of one coordinator
cost the backend one. Whatever ends it early (time-out, cancellation, an error, the
loss of the session), nothing stays behind at the backend or in the gate.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeAlias, TypeVar

from .. import _names, _verdicts
from .._gate import Ticket
from .._lease import BaseLease
from .._model import Claim, Event, EventKind, Holder, Interest, Roll
from .._session import Life, Session
from ..drivers.base import Mutex
from ..errors import BackendError, SessionLost, Unavailable, Unsupported

L = TypeVar("L", bound=BaseLease)
Ask: TypeAlias = Callable[[Life, float | None], Awaitable[int]]
"""What the width is now; asked with the session's life and the time to give up."""


class _ClaimVanished(Exception):
    """The backend has no claim of this id any more."""


class LockRecipe(Generic[L]):
    """One name, one mode. Stateless: every acquire returns a lease of its own.

    `roster` is what the name is called at the backend, if it is no lock's name. With a
    `width` above 1, so many hold it at a time. With `ask`, the width may change: it is
    asked for whenever the claim's place is known, and the place counts only if it is among
    the first so many then; the record of the roster's name wakes those who wait.
    """

    __slots__ = ("_ask", "_lease_type", "_mutex", "_session", "name", "roster", "shared", "width")

    def __init__(
        self,
        session: Session,
        name: str,
        shared: bool,
        lease_type: type[L],
        roster: str | None = None,
        width: int = 1,
        ask: Ask | None = None,
    ) -> None:
        if shared and not session.driver.traits.shared:
            raise Unsupported(
                f"{session.driver.url.scheme}: shared locks are not supported by this driver"
            )
        self._session = session
        self._lease_type = lease_type
        self._mutex = session.driver.mutex if width == 1 and ask is None else None
        self._ask = ask
        self.name = name
        self.roster = _names.of_lock(name) if roster is None else roster
        self.shared = shared
        self.width = width

    async def try_acquire(self) -> L | None:
        """Take the lock if it is free; one round trip, and no write if it is taken."""
        self._session.check_open()
        return await self._take(Ticket(self.roster, self.shared), False, None)

    async def acquire(self, until: float | None) -> L | None:
        """Take the lock, waiting in turn until the time comes; None if it came first."""
        self._session.check_open()
        return await self._take(Ticket(self.roster, self.shared), True, until)

    async def holder(self) -> Holder | None:
        """Who holds the lock, as far as the backend tells."""
        driver = self._session.driver
        self._session.check_open()
        if self._mutex is not None:
            return await self._mutex.holder(self.roster)
        life = await self._session.life()
        roll = await driver.read(life.id, self.roster, "")
        return Holder(roll.claims[0].owner, roll.claims[0].token) if roll.claims else None

    async def _take(self, ticket: Ticket, wait: bool, until: float | None) -> L | None:
        """Through the gate, and inside of it one attempt for each life of the session."""
        session = self._session
        now = session.now
        began = now() if session.watched else 0.0
        lease: L | None = None
        life: Life | None = None
        lives = 0
        unreachable_since: float | None = None
        try:
            # Who has left already passes by.
            inside = ticket.left or session.gates.enter_now(ticket)
            if not inside and not (wait and await session.gates.enter(ticket, until)):
                return None
            while True:
                try:
                    life = session.alive or await session.life()
                    mutex = self._mutex
                    if mutex is not None:
                        lease = await self._seize(mutex, life, ticket, wait, until)
                    else:
                        lease = await self._queue(life, ticket, wait, until)
                    break
                except _ClaimVanished:
                    # Somebody removed it, or its session died: the next claim will tell.
                    session.check_open()
                    await session.runtime.sleep(now() + session.ttl / 30)
                except SessionLost as error:
                    # A waiter whose session died is never granted: it queues again,
                    # in a new life, at the end.
                    session.check_open()
                    if life is not None:
                        session.lose(life, str(error))
                    lives += 1
                    unreachable_since = None  # it was there to begin the session
                    if not wait and lives > 1:
                        raise Unavailable(f"the session was lost again: {error}") from error
                    if until is not None and now() >= until:
                        break
                    if lives > 1:
                        await session.runtime.sleep(now() + session.ttl / 30)
                except Unavailable:
                    if not wait:
                        raise
                    unreachable_since = unreachable_since or now()
                    over = unreachable_since + session.ttl
                    if now() >= (over if until is None else min(over, until)):
                        raise
                    await session.runtime.sleep(now() + session.ttl / 30)
        finally:
            if lease is None:
                session.gates.leave(ticket)
        if lease is not None and session.watched:
            kinds: tuple[EventKind, ...] = (
                ("waited", "acquired") if ticket.waited else ("acquired",)
            )
            for kind in kinds:
                event = Event(kind, self.name, lease.token, session.owner, now() - began)
                session.emit(event)
        return lease

    # -- the native mutex ------------------------------------------------------

    async def _seize(
        self, mutex: Mutex, life: Life, ticket: Ticket, wait: bool, until: float | None
    ) -> L | None:
        session = self._session
        shared = self.shared
        id = life.next_id()
        grant = await mutex.seize(life.id, self.roster, id, shared=shared, until=None)
        if grant is None and wait:
            ticket.waited = True
            forever = float("inf") if until is None else until
            grant = await mutex.seize(life.id, self.roster, id, shared=shared, until=forever)
        if grant is None:
            return None
        try:
            return self._lease_type(
                session, life, ticket, self.name, grant.token, id, grant, self.roster, 1
            )
        except BaseException:
            await session.runtime.finish(mutex.unseize(grant))
            raise

    # -- the roster ------------------------------------------------------------

    async def _queue(self, life: Life, ticket: Ticket, wait: bool, until: float | None) -> L | None:
        session = self._session
        driver, roster, shared = session.driver, self.roster, self.shared
        width = self.width
        limit = None if wait else width
        id = life.next_id()
        lease: L | None = None
        given = False
        waiter: _Waiter | None = None
        sure = False  # whether every request that could enter the claim was answered
        try:
            try:
                roll = await driver.claim(life.id, roster, id, "", limit, shared)
                sure = True
            except ConnectionError:
                budget = session.ttl if wait else session.ttl / 3
                roll = await session.retry(
                    life,
                    lambda: driver.claim(life.id, roster, id, "", limit, shared),
                    until,
                    budget,
                )
            if self._ask is not None:
                give_up = until if wait else session.now() + session.ttl / 3
                width = self.width = await self._ask(life, give_up)
            mine = _verdicts.granted(roll, width)
            if mine is None and wait:
                ticket.waited = True
                waiter = _Waiter(session, life, roster, id, width, self._ask)
                mine = await waiter.granted(roll, until)
            if mine is not None:
                lease = self._lease_type(
                    session, life, ticket, self.name, mine.token, id, None, roster, width
                )
                lease.unsure = not sure
            elif sure and not wait and roll.mine is None:
                id = ""  # nothing was written: there is nothing to withdraw
            given = lease is not None
            return lease
        except Unavailable:
            # The backend does not answer: the caller need not wait for that twice.
            session.owe(life, roster, id, width)
            id = ""
            raise
        finally:
            try:
                if not given and id:
                    if lease is not None:  # interrupted just when it was granted
                        session.drop(life, lease)
                    await session.runtime.finish(self._withdraw(life, id, sure))
            finally:
                if waiter is not None:
                    waiter.leave()

    async def _withdraw(self, life: Life, id: str, sure: bool) -> None:
        session = self._session
        if life.reason is not None:
            return  # the claim died with the session
        refused: BackendError | None = None
        try:
            await session.driver.withdraw(life.id, self.roster, id, self.width)
        except BackendError as error:
            sure = False
            refused = None if isinstance(error, Unavailable) else error
        except SessionLost as error:
            session.lose(life, str(error))
        if not sure:
            session.owe(life, self.roster, id, self.width)
        if refused is not None:
            raise refused


class _Waiter:
    """A claim that stands in the queue until it is granted, or the time or the life ends."""

    __slots__ = (
        *("_ask", "_id", "_interest", "_life", "_roster", "_session", "_wake", "_watch"),
        "_width",
    )

    def __init__(
        self, session: Session, life: Life, roster: str, id: str, width: int, ask: Ask | None
    ) -> None:
        self._session = session
        self._life = life
        self._roster = roster
        self._id = id
        self._width = width
        self._ask = ask
        self._wake = session.runtime.signal()
        self._interest: Interest | None = None
        self._watch: Interest | None = None
        session.waiting(life, self._wake)

    def leave(self) -> None:
        """Nothing of it is left at the backend, or the session has been told so."""
        self._session.not_waiting(self._life, self._wake)
        for interest in (self._interest, self._watch):
            if interest is not None:
                self._session.driver.unlisten(interest)

    async def granted(self, roll: Roll, until: float | None) -> Claim | None:
        """Wait for the head of the queue; None if the time came first."""
        session, life = self._session, self._life
        driver, runtime = session.driver, session.runtime
        poll, ttl = driver.traits.poll, session.ttl
        while True:
            session.check_open()
            if life.reason is not None:
                raise SessionLost(life.reason)
            if roll.mine is None:
                raise _ClaimVanished
            mine = _verdicts.granted(roll, self._width)
            if mine is not None:
                return mine
            if not await self._listening(roll.before):
                now = runtime.now()
                if until is not None and now >= until:
                    return None
                line = roll.rank - self._width + 1
                nap = _verdicts.patience(line, poll, ttl) * (0.75 + runtime.random() / 2)
                await self._wake.wait(now + nap if until is None else min(now + nap, until))
                self._wake.clear()
            roll = await session.retry(
                life,
                lambda: driver.read(life.id, self._roster, self._id, self._width),
                until,
                ttl,
            )
            if self._ask is not None:
                # After the reading: a place only gets better, so it is as good at this moment.
                self._width = await self._ask(life, until)

    async def _listening(self, before: str | None) -> bool:
        """Watch the claim before ours; say whether that is new, so that one must look again."""
        driver = self._session.driver
        interest = Interest(self._life.id, self._roster, self._id, before, self._width)
        if interest == self._interest:
            return False
        if self._ask is not None and self._watch is None:
            await self._watching()
        if self._interest is not None:
            driver.unlisten(self._interest)
            self._interest = None
        try:
            await driver.listen(interest, self._wake.set)
        except Unavailable:
            return False  # no push for now: the bounded look does, and tries again
        self._interest = interest
        return True

    async def _watching(self) -> None:
        """Hear of a width that changes."""
        session = self._session
        watch = Interest("", self._roster, session.runtime.unique(), None, watch=True)
        with contextlib.suppress(Unavailable):  # as above: the bounded look finds it, too
            await session.driver.listen(watch, self._wake.set)
            self._watch = watch
