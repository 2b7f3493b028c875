"""Many locks at a time, and reader-writer locks."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from .._coordinator import checked_name
from .._recipes.lock import LockRecipe
from .._recipes.multilock import NAMES_MAX, BaseMultiLease, MultiRecipe
from .._session import Session
from ..errors import AcquireTimeout, InvalidArgument, LeaseLost
from ._lock import Guard, Lease, Lock, Loss, _CancelOnLoss
from ._run import run


class MultiLease(BaseMultiLease[Lease]):
    """Proof of holding many locks: one handle, which answers as a lease does.

    Made by acquiring a multi-lock, never by hand. The loss of one lock is the loss of all. As
    a context manager it is released at the end of the block.
    """

    __slots__ = ()

    @property
    def lost(self) -> Loss:
        """The loss signal: `await lease.lost.wait(timeout)`, `if lease.lost: ...`."""
        return Loss(self)

    async def release(self) -> None:
        """Give all the locks back.

        Does nothing if they were released already. Raises `LeaseLost` if one was lost
        before, and a `BackendError` if the backend does not answer; what is not confirmed
        is then freed in the background, at the latest when the session ends.
        """
        await run(self._release())

    # asyncio only: begin
    def cancel_on_loss(self) -> AbstractAsyncContextManager[None]:
        """Cancel the body of an `async with` block when a lock is lost.

        Like `asyncio.timeout`: the task is cancelled inside of the block, and the
        block raises `LeaseLost` in place of the cancellation.
        """
        return _CancelOnLoss(self)

    # asyncio only: end

    async def __aenter__(self) -> Self:
        self.check()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.release()
        except LeaseLost as loss:
            if error is None:
                raise
            error.add_note(f"tenure: {loss}")


class MultiLock(Guard[MultiLease]):
    """Many names, to be locked together: all of them, or none.

    In whatever order two programs name them, they never wait for each other in a circle. The
    locks are those of `Coordinator.lock`. As a context manager it acquires on entry and
    releases on exit, raising `LeaseLost` if one was lost in between; as a decorator it does
    so around each call.
    """

    __slots__ = ("_recipe",)

    def __init__(self, session: Session, names: Iterable[str], timeout: float | None) -> None:
        super().__init__(session, timeout)
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise InvalidArgument(f"the names of a multi-lock are a list of names, not {names!r}")
        checked = {checked_name(name) for name in names}
        if not 1 <= len(checked) <= NAMES_MAX:
            raise InvalidArgument(
                f"a multi-lock has from 1 to {NAMES_MAX:,} names, not {len(checked):,}"
            )
        self._recipe = MultiRecipe(session, checked, Lease)

    @property
    def names(self) -> tuple[str, ...]:
        """The locks' names, each once, in the order in which they are acquired."""
        return self._recipe.names

    async def acquire(self, timeout: float | None = None) -> MultiLease:
        """Acquire all the locks, waiting in turn for each.

        `timeout` is in seconds and for all of them together; None means the multi-lock's own
        timeout, and without one to wait for ever. Raises `AcquireTimeout` if one is still
        taken by then, `Unavailable` if the backend cannot be reached for a whole TTL; then
        nothing is held and no place in a queue is kept.
        """
        seconds, until = self._until(timeout)
        leases = await run(self._recipe.acquire(until))
        if leases is None:
            raise AcquireTimeout(f"one of {self.names} was still taken after {seconds:g} s")
        return MultiLease(self._session, leases)

    async def try_acquire(self) -> MultiLease | None:
        """Acquire all the locks if they are free at this moment; None if one is taken."""
        leases = await run(self._recipe.try_acquire())
        return None if leases is None else MultiLease(self._session, leases)

    def __repr__(self) -> str:
        return f"<multi-lock {', '.join(map(repr, self.names))}>"


class RWLock:
    """One name, to be locked by many readers together or by one writer alone.

    Both are the locks of `Coordinator.lock` with that name. They are served in turn: a writer
    that waits is not overtaken by readers that come later.
    """

    __slots__ = ("_session", "name")

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self.name = LockRecipe(session, checked_name(name), True, Lease).name

    def read_lock(self, *, timeout: float | None = None) -> Lock:
        """The lock of a reader. `timeout` in seconds is its default; None waits for ever."""
        return Lock(self._session, self.name, timeout, True)

    def write_lock(self, *, timeout: float | None = None) -> Lock:
        """The lock of a writer. `timeout` in seconds is its default; None waits for ever."""
        return Lock(self._session, self.name, timeout, False)

    def __repr__(self) -> str:
        return f"<reader-writer lock {self.name!r}>"
