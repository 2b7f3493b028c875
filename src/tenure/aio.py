"""The asyncio API: the same names as `tenure`, awaited.

    async with tenure.aio.connect("redis://localhost") as coordinator:
        async with coordinator.lock("nightly", timeout=10) as lease, lease.cancel_on_loss():
            await write(fence=lease.token)

A coordinator belongs to the event loop that it was connected in.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from ._coordinator import checked_name, checked_timeout, make_session
from ._lease import BaseLease, State
from ._model import Event, Holder
from ._recipes.lock import LockRecipe
from ._runtime.aio import AsyncioRuntime
from ._session import Session
from .errors import AcquireTimeout, InvalidArgument, LeaseLost

__all__ = ["Coordinator", "Lease", "Lock", "Loss", "connect"]

P = ParamSpec("P")
R = TypeVar("R")


class Loss:
    """The loss signal of a lease: set, with a reason, when the lease is lost."""

    __slots__ = ("_lease",)

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def is_set(self) -> bool:
        """Say whether the lease is lost, by the clock of this very moment."""
        return self._lease.state is State.LOST

    @property
    def reason(self) -> str | None:
        """Why the lease was lost; None if it was not."""
        return self._lease.reason

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until the lease is lost, at most `timeout` seconds; say whether it is."""
        seconds = checked_timeout(timeout)
        until = None if seconds is None else self._lease._session.runtime.now() + seconds
        return await self._lease._signal().wait(until)

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

    def __init__(self, lease: Lease) -> None:
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

        def lost(lease: Lease) -> None:
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


class Lock:
    """A lock's name and mode. Acquiring it returns a `Lease`; the lock itself holds nothing.

    As a context manager it acquires on entry and releases on exit, raising
    `LeaseLost` if the lease was lost in between; as a decorator it does so around
    each call. One lock may be used by many tasks at a time.
    """

    __slots__ = ("_entered", "_recipe", "timeout")

    def __init__(self, session: Session, name: str, timeout: float | None, shared: bool) -> None:
        self._recipe = LockRecipe(session, checked_name(name), shared, Lease)
        self._entered: dict[object, list[Lease]] = {}
        self.timeout = checked_timeout(timeout)

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
        seconds = self.timeout if timeout is None else checked_timeout(timeout)
        until = None if seconds is None else self._recipe.now() + seconds
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

    async def __aenter__(self) -> Lease:
        lease = await self.acquire()
        self._entered.setdefault(self._recipe.caller(), []).append(lease)
        return lease

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        caller = self._recipe.caller()
        leases = self._entered[caller]
        lease = leases.pop()
        if not leases:
            del self._entered[caller]
        await lease.__aexit__(kind, error, trace)

    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> Callable[P, Coroutine[Any, Any, R]]:
        """Decorate a coroutine function: each call runs while holding the lock."""
        if not inspect.iscoroutinefunction(function):
            raise InvalidArgument(
                f"{function!r} is not a coroutine function: use a lock of tenure.connect()"
            )

        @functools.wraps(function)
        async def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            async with self:
                return await function(*args, **kwargs)

        return locked

    def __repr__(self) -> str:
        return f"<{'shared ' if self.shared else ''}lock {self.name!r}>"


class Coordinator:
    """A connection to a backend, and an identity there. Made by `connect`.

    Any number of tasks may share one. It is a context manager; closing it releases
    all that it holds.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def owner(self) -> str:
        """The name under which it holds what it holds."""
        return self._session.owner

    @property
    def ttl(self) -> float:
        """How long, in seconds, its session outlives its last renewal."""
        return self._session.ttl

    def lock(self, name: str, *, timeout: float | None = None, shared: bool = False) -> Lock:
        """A lock on a name of up to 1,000 characters. Nothing is asked of the backend yet.

        `timeout` in seconds is the default of `acquire` and of `async with`; None
        waits for ever. `shared` asks for a reader's lock and raises `Unsupported`
        where the driver has none.
        """
        return Lock(self._session, name, timeout, shared)

    async def close(self) -> None:
        """Release all that it holds and disconnect. Does nothing the second time."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<coordinator {self.owner!r} at {self._session.driver.url}>"


class _Connecting:
    """What `connect` returns: await it, or enter it with `async with`."""

    def __init__(self, open: Callable[[], Awaitable[Coordinator]]) -> None:
        self._open = open
        self._coordinator: Coordinator | None = None

    def __await__(self) -> Generator[Any, None, Coordinator]:
        return self._open().__await__()

    async def __aenter__(self) -> Coordinator:
        self._coordinator = await self._open()
        return self._coordinator

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._coordinator is not None
        await self._coordinator.close()


def connect(
    url: str | None = None,
    *,
    namespace: str | None = None,
    ttl: float | None = None,
    owner: str | None = None,
    on_event: Callable[[Event], object] | None = None,
) -> _Connecting:
    """Connect to a backend: `await connect(url)`, or `async with connect(url)`.

    `url` defaults to the variable TENURE_URL, else to lock files in the user's runtime
    directory. Names in different namespaces never meet. `ttl` is how many seconds a
    session outlives its last renewal (15 by default); after a crash of the holder, the
    backend may need that long to free what it held. `owner` names this client to
    others. `on_event` is called with each `Event`; it must be quick.

    Raises `InvalidURL`, `UnknownDriver` or `InvalidArgument` for bad arguments,
    `Unavailable` if the backend cannot be reached, `AuthenticationFailed` if it
    refuses the credentials.
    """

    async def opened() -> Coordinator:
        session = make_session(AsyncioRuntime(), url, namespace, ttl, owner, on_event)
        await session.open()
        return Coordinator(session)

    return _Connecting(opened)
