"""The semaphore: a lock that as many hold at a time as its record says.

The claims of all who hold or wait stand in one roster, in their order; the first so many
hold. How many is a record, which the first user writes and `resize` changes. It is read after
the claim's place, and a place only gets better: so at the moment of that reading the claim
really was among the first so many, and no resize that has returned is missed. That costs a
second round trip, which is the price of a limit that can be changed.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from .. import _names
from .._gate import Ticket
from .._lease import BaseLease
from .._session import Life, Session
from ..errors import InvalidArgument, LimitMismatch
from .ledger import Entry, Ledger
from .lock import LockRecipe

LIMIT_MAX = 10_000
"""The greatest limit of a semaphore."""
HINTS_MAX = 1000
"""Of how many semaphores a session remembers the limit."""


class PermitLease(BaseLease):
    """One of the permits of a semaphore."""

    __slots__ = ()

    def __repr__(self) -> str:
        return super().__repr__().replace("<lease", "<permit", 1)

    async def _release(self) -> None:
        # As wide as the semaphore is now, so that whoever comes into it is woken.
        self._width = self._session.limits.get(self._roster, self._width)
        await super()._release()


P = TypeVar("P", bound=PermitLease)


class SemaphoreRecipe(Generic[P]):
    """One name. `limit` is what its user takes the limit to be; None, whatever it is."""

    __slots__ = ("_agreed", "_ledger", "_lock", "_session", "limit")

    def __init__(self, session: Session, name: str, limit: int | None, lease_type: type[P]) -> None:
        roster = _names.of("semaphore", name)
        self._session = session
        self._ledger = Ledger(session, roster)
        self._lock = LockRecipe(session, name, False, lease_type, roster, limit or 1, self._ask)
        self._agreed = False
        self.limit = limit

    @property
    def name(self) -> str:
        """The semaphore's name."""
        return self._lock.name

    async def try_acquire(self) -> P | None:
        """Take a permit if there is one; no write if there is none.

        It passes by the local gate: that somebody here is waiting for an answer does not
        mean that there is none left.
        """
        session = self._session
        session.check_open()
        await self._agree(session.now() + session.ttl / 3)
        while True:
            width = self._lock.width
            ticket = Ticket(self._lock.roster, False)
            ticket.left = True  # it never was at the gate
            lease = await self._lock._take(ticket, False, None)
            if lease is not None or self._lock.width <= width:
                return lease
            # It has grown since anybody here last looked.

    async def acquire(self, until: float | None) -> P | None:
        """Take a permit, waiting in turn until the time comes; None if it came first."""
        self._session.check_open()
        await self._agree(until)
        lease = await self._lock.acquire(until)
        if lease is not None:
            # The next one here may ask; this one's place at the backend is all it needs.
            self._session.gates.leave(lease._ticket)
        return lease

    async def read(self) -> int | None:
        """How many permits there are in all; None if nobody has said so yet."""
        self._session.check_open()
        entry = await self._ledger.read()
        return None if entry is None else self._noted(entry)

    async def resize(self, limit: int) -> None:
        """Have another limit, for every acquire that begins after this has returned."""
        self._session.check_open()
        new = {"limit": limit}
        self._noted(await self._ledger.change(lambda old: None if old == new else new) or new)
        self.limit = limit
        self._agreed = True

    async def _agree(self, until: float | None) -> None:
        """Before the first claim: know the limit, so that a wrong one leaves no trace."""
        hint = self._session.limits.get(self._lock.roster)
        if hint is not None and self.limit in (None, hint):
            self._lock.width = hint
        elif not self._agreed:
            self._lock.width = await self._ask(None, until)

    async def _ask(self, life: Life | None, until: float | None) -> int:
        entry = await self._ledger.read(until)
        if entry is None:
            if self.limit is None:
                raise InvalidArgument(
                    f"the semaphore {self.name!r} has no limit yet: its first user must give one"
                )
            first = {"limit": self.limit}
            entry = await self._ledger.change(lambda old: first if old is None else None)
            assert entry is not None
        limit = self._noted(entry)
        if not self._agreed and self.limit not in (None, limit):
            raise LimitMismatch(
                f"the semaphore {self.name!r} has a limit of {limit}, not of {self.limit}:"
                " pass that, or None for whatever it is, or resize it",
                given=self.limit,
                found=limit,
            )
        self._agreed = True
        return limit

    def _noted(self, entry: Entry) -> int:
        hints, limit = self._session.limits, int(entry["limit"])
        if len(hints) >= HINTS_MAX and self._lock.roster not in hints:
            hints.clear()
        hints[self._lock.roster] = limit
        return limit
