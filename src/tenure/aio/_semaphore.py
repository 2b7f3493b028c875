"""Semaphores and their permits."""

from __future__ import annotations

from .._coordinator import checked_name, checked_number
from .._recipes.semaphore import LIMIT_MAX, PermitLease, SemaphoreRecipe
from .._session import Session
from ..errors import AcquireTimeout
from ._lock import Guard, Lease
from ._run import run


class Permit(PermitLease, Lease):
    """Proof of holding one of a semaphore's permits: a lease, with all that a lease has.

    Made by acquiring, never by hand. Its token is greater than that of every permit of this
    name whose acquire began before.
    """

    __slots__ = ()


class Semaphore(Guard[Permit]):
    """A lock that a limited number may hold at a time, wherever they are.

    As a context manager it acquires a permit on entry and releases it on exit, raising
    `LeaseLost` if it was lost in between; as a decorator it does so around each call. One
    semaphore may be used by many tasks at a time, each with a permit of its own.
    """

    __slots__ = ("_recipe",)

    def __init__(
        self, session: Session, name: str, limit: int | None, timeout: float | None
    ) -> None:
        super().__init__(session, timeout)
        if limit is not None:
            limit = checked_number(limit, "limit", LIMIT_MAX)
        self._recipe = SemaphoreRecipe(session, checked_name(name), limit, Permit)

    @property
    def name(self) -> str:
        """The semaphore's name, as it was asked for."""
        return self._recipe.name

    async def acquire(self, timeout: float | None = None) -> Permit:
        """Acquire a permit, waiting in turn.

        `timeout` is in seconds; None means the semaphore's own timeout, and without one
        to wait for ever. Raises `AcquireTimeout` if there is none by then, `LimitMismatch` if
        the limit is another than the one given, `Unavailable` if the backend cannot be
        reached for a whole TTL; then nothing is held and no place in the queue is kept.
        """
        seconds, until = self._until(timeout)
        permit = await run(self._recipe.acquire(until))
        if permit is None:
            raise AcquireTimeout(f"{self.name!r} had no permit left after {seconds:g} s")
        return permit

    async def try_acquire(self) -> Permit | None:
        """Acquire a permit if there is one at this moment; None if there is none."""
        return await run(self._recipe.try_acquire())

    async def limit(self) -> int | None:
        """How many may hold it at a time; None if nobody has said so yet."""
        return await run(self._recipe.read())

    async def resize(self, limit: int) -> None:
        """Change the limit, for every acquire that begins after this has returned.

        Those who wait learn of it, too. Who holds a permit keeps it: after the limit has
        fallen, none is granted until fewer are held than that.
        """
        await run(self._recipe.resize(checked_number(limit, "limit", LIMIT_MAX)))

    def __repr__(self) -> str:
        limit = "" if self._recipe.limit is None else f" limit={self._recipe.limit}"
        return f"<semaphore {self.name!r}{limit}>"
