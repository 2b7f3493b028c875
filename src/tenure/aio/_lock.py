"""Locks and leases."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

from .._coordinator import checked_name, checked_timeout
from .._entered import inside, left
from .._lease import BaseLease, State
from .._model import Holder
from .._recipes.lock import LockRecipe
from .._session import Session
from ..errors import AcquireTimeout, InvalidArgument, LeaseLost

if TYPE_CHECKING:
    from .._recipes.multilock import BaseMultiLease

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound="AbstractAsyncContextManager[Any]")


class Loss:
    """The loss signal of a lease: set, with a reason, when the lease is lost."""

    __slots__ = ("_lease",)

    def __init__(self, lease: Lease | BaseMultiLease[Lease]) -> None:
        self._lease = lease

    def is_set(self) -> bool:
        """Say whether the lease is lost, by the clock of this very moment."""
        return self._lease.state is State.LOST

    @property
    def reason(self) -> str | None:
        """Why the lease was lost; None if it was not."""
        return self._lease.reason

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for the loss or the release, at most `timeout` seconds; say whether it is lost."""
        seconds = checked_timeout(timeout)
        until = None if seconds is None else self._lease._session.runtime.now() + seconds
        await self._lease._signal().wait(until)
        return self.is_set()

    def __bool__(self) -> bool:
        return self.is_set()

    def __repr__(self) -> str:
        return f"<loss of {self._lease.name!r}: {self.reason or 'not lost'}>"


class Lease(BaseLease):
    """Proof of holding a lock: a token, a deadline and a loss signal.

    Made by acquiring a lock, never by hand. Any task may use it. As a context
    manager it is released at the end of the block.
    """

    __slots__ = ()

    @property
    def lost(self) -> Loss:
        """The loss signal: `await lease.lost.wait(timeout)`, `if lease.lost: ...`."""
        return Loss(self)

    async def release(self) -> None:
        """Give the lock back.

        Does nothing if it was released already. Raises `LeaseLost` if the lease was
        lost before, and a `BackendError` if the backend does not answer; the lock is
        then freed in the background, at the latest when the session ends.
        """
        await self._release()

    def cancel_on_loss(self) -> AbstractAsyncContextManager[None]:
        """Cancel the body of an `async with` block when the lease is lost.

        Like `asyncio.timeout`: the task is cancelled inside of the block, and the
        block raises `LeaseLost` in place of the cancellation.
        """
        return _CancelOnLoss(self)

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


class _CancelOnLoss(AbstractAsyncContextManager[None]):
    """The block of `Lease.cancel_on_loss`."""

    def __init__(self, lease: Lease | BaseMultiLease[Lease]) -> None:
        self._lease = lease
        self._task: asyncio.Task[Any] | None = None
        self._requests = 0
        self._cancelled = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("cancel_on_loss() can only be used inside of a task")
        self._lease.check()
        self._task = task
        self._requests = task.cancelling()
        loop = asyncio.get_running_loop()

        def lost(lease: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._cancel)

        self._lease.on_lost(lost)

    def _cancel(self) -> None:
        if self._task is not None and not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        assert task is not None
        if (
            self._cancelled
            and task.uncancel() <= self._requests
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise self._lease._loss() from error


class Guard(Generic[H]):
    """What a `with` block or a decorated function can hold: a lock, a semaphore, many locks."""

    __slots__ = ("_entered", "_session", "timeout")

    def __init__(self, session: Session, timeout: float | None) -> None:
        self._session = session
        self._entered: dict[object, list[H]] = {}
        self.timeout = checked_timeout(timeout)

    async def acquire(self, timeout: float | None = None) -> H:
        """Acquire it, waiting in turn; `timeout` in seconds, None for its own."""
        raise NotImplementedError

    def _until(self, timeout: float | None) -> tuple[float | None, float | None]:
        """For how long to wait, in seconds, and until when."""
        seconds = self.timeout if timeout is None else checked_timeout(timeout)
        return seconds, None if seconds is None else self._session.now() + seconds

    async def __aenter__(self) -> H:
        lease = await self.acquire()
        self._entered.setdefault(self._session.runtime.caller(), []).append(lease)
        return lease

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        caller, lease = inside(self._entered, self._session.runtime.caller())
        try:
            await lease.__aexit__(kind, error, trace)
        finally:
            left(self._entered, caller, lease)

    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        """Decorate a coroutine function: each call runs while holding it."""
        if not inspect.iscoroutinefunction(function):
            raise InvalidArgument(
                f"{function!r} is not a coroutine function: use a lock of tenure.connect()"
            )

        @functools.wraps(function)
        async def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            async with self:
                return await function(*args, **kwargs)

        return locked


class Lock(Guard[Lease]):
    """A lock's name and mode. Acquiring it returns a `Lease`; the lock itself holds nothing.

    As a context manager it acquires on entry and releases on exit, raising
    `LeaseLost` if the lease was lost in between; as a decorator it does so around
    each call. One lock may be used by many tasks at a time.
    """

    __slots__ = ("_recipe",)

    def __init__(self, session: Session, name: str, timeout: float | None, shared: bool) -> None:
        super().__init__(session, timeout)
        self._recipe = LockRecipe(session, checked_name(name), shared, Lease)

    @property
    def name(self) -> str:
        """The lock's name, as it was asked for."""
        return self._recipe.name

    @property
    def shared(self) -> bool:
        """Whether it admits other shared leases at the same time."""
        return self._recipe.shared

    async def acquire(self, timeout: float | None = None) -> Lease:
        """Acquire the lock, waiting in turn.

        `timeout` is in seconds; None means the lock's own timeout, and without one
        to wait for ever. Raises `AcquireTimeout` if the lock is still taken by then,
        `Unavailable` if the backend cannot be reached for a whole TTL; then nothing
        is held and no place in the queue is kept.
        """
        seconds, until = self._until(timeout)
        lease = await self._recipe.acquire(until)
        if lease is None:
            raise AcquireTimeout(f"{self.name!r} was still taken after {seconds:g} s")
        return lease

    async def try_acquire(self) -> Lease | None:
        """Acquire the lock if it is free at this moment; None if it is taken."""
        return await self._recipe.try_acquire()

    async def holder(self) -> Holder | None:
        """Who holds the lock, as far as the backend tells; None if nobody does."""
        return await self._recipe.holder()

    def __repr__(self) -> str:
        return f"<{'shared ' if self.shared else ''}lock {self.name!r}>"
