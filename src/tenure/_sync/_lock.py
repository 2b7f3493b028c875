"""Locks and leases."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

from .._coordinator import checked_name, checked_timeout
from .._entered import inside, left
from .._lease import BaseLease, State
from .._model import Holder
from .._recipes.lock import LockRecipe
from .._runtime.thread import drive
from .._session import Session
from ..errors import AcquireTimeout, InvalidArgument, LeaseLost, TenureError

if TYPE_CHECKING:
    from .._recipes.multilock import BaseMultiLease

P = ParamSpec("P")
R = TypeVar("R")
H = TypeVar("H", bound="AbstractContextManager[Any]")


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

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the loss or the release, at most `timeout` seconds; say whether it is lost."""
        seconds = checked_timeout(timeout)
        until = None if seconds is None else self._lease._session.runtime.now() + seconds
        drive(self._lease._signal().wait(until))
        return self.is_set()

    def __bool__(self) -> bool:
        return self.is_set()

    def __repr__(self) -> str:
        return f"<loss of {self._lease.name!r}: {self.reason or 'not lost'}>"


class Lease(BaseLease):
    """Proof of holding a lock: a token, a deadline and a loss signal.

    Made by acquiring a lock, never by hand. Any thread may use it. As a context
    manager it is released at the end of the block.
    """

    __slots__ = ()

    @property
    def lost(self) -> Loss:
        """The loss signal: `lease.lost.wait(timeout)`, `if lease.lost: ...`."""
        return Loss(self)

    def release(self) -> None:
        """Give the lock back.

        Does nothing if it was released already. Raises `LeaseLost` if the lease was
        lost before, and a `BackendError` if the backend does not answer; the lock is
        then freed in the background, at the latest when the session ends.
        """
        try:
            drive(self._release())
        except KeyboardInterrupt:
            # It may have come before anything was done. To release twice does no harm.
            with suppress(TenureError):
                drive(self._release())
            raise

    def __enter__(self) -> Self:
        self.check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.release()
        except LeaseLost as loss:
            if error is None:
                raise
            error.add_note(f"tenure: {loss}")


class Guard(Generic[H]):
    """What a `with` block or a decorated function can hold: a lock, a semaphore, many locks."""

    __slots__ = ("_entered", "_session", "timeout")

    def __init__(self, session: Session, timeout: float | None) -> None:
        self._session = session
        self._entered: dict[object, list[H]] = {}
        self.timeout = checked_timeout(timeout)

    def acquire(self, timeout: float | None = None) -> H:
        """Acquire it, waiting in turn; `timeout` in seconds, None for its own."""
        raise NotImplementedError

    def _until(self, timeout: float | None) -> tuple[float | None, float | None]:
        """For how long to wait, in seconds, and until when."""
        seconds = self.timeout if timeout is None else checked_timeout(timeout)
        return seconds, None if seconds is None else self._session.now() + seconds

    def __enter__(self) -> H:
        lease = self.acquire()
        try:
            self._entered.setdefault(self._session.runtime.caller(), []).append(lease)
        except BaseException:
            lease.__exit__(None, None, None)
            raise
        return lease

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            caller, lease = inside(self._entered, self._session.runtime.caller())
        except KeyboardInterrupt:
            self.__exit__(kind, error, trace)  # it came before anything was done
            raise
        try:
            lease.__exit__(kind, error, trace)
        except KeyboardInterrupt:
            with suppress(TenureError):
                lease.__exit__(kind, error, trace)  # again, if it had begun
            raise
        finally:
            left(self._entered, caller, lease)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: each call runs while holding it."""
        import inspect  # dear to import, and decorating is rare

        if inspect.iscoroutinefunction(function):
            raise InvalidArgument(
                f"{function.__qualname__} is a coroutine function: use a lock of tenure.aio"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidArgument(
                f"{function.__qualname__} is a generator function: it would run after the release;"
                " use `with` inside of it"
            )

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return locked


class Lock(Guard[Lease]):
    """A lock's name and mode. Acquiring it returns a `Lease`; the lock itself holds nothing.

    As a context manager it acquires on entry and releases on exit, raising
    `LeaseLost` if the lease was lost in between; as a decorator it does so around
    each call. One lock may be used by many threads at a time.
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

    def acquire(self, timeout: float | None = None) -> Lease:
        """Acquire the lock, waiting in turn.

        `timeout` is in seconds; None means the lock's own timeout, and without one
        to wait for ever. Raises `AcquireTimeout` if the lock is still taken by then,
        `Unavailable` if the backend cannot be reached for a whole TTL; then nothing
        is held and no place in the queue is kept.
        """
        seconds, until = self._until(timeout)
        lease = drive(self._recipe.acquire(until))
        if lease is None:
            raise AcquireTimeout(f"{self.name!r} was still taken after {seconds:g} s")
        return lease

    def try_acquire(self) -> Lease | None:
        """Acquire the lock if it is free at this moment; None if it is taken."""
        return drive(self._recipe.try_acquire())

    def holder(self) -> Holder | None:
        """Who holds the lock, as far as the backend tells; None if nobody does."""
        return drive(self._recipe.holder())

    def __repr__(self) -> str:
        return f"<{'shared ' if self.shared else ''}lock {self.name!r}>"
