"""Locks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from . import NotImplemented as NotProvided
from . import ToozError
from ._errors import LockAcquireFailed, shown

L = TypeVar("L", bound="Lock")


class LockLost(ToozError):
    """The lock was lost inside of a `with` block: somebody else may hold it by now."""


class Lock(ABC):
    """A lock on a name. As a context manager it is held in the block.

    Called with the arguments of `acquire` it returns a context manager that uses those:
    `with lock(blocking=False): ...`.
    """

    def __init__(self, name: bytes | str) -> None:
        self._name = name

    @property
    def name(self) -> bytes | str:
        """The lock's name, as it was asked for."""
        return self._name

    @abstractmethod
    def acquire(
        self, blocking: bool | float = True, shared: bool = False, timeout: float | None = None
    ) -> bool:
        """Acquire the lock; say whether it is held now.

        It waits at most `timeout` seconds, or for ever without one; not at all if `blocking`
        is false. A number as `blocking` is a timeout. A `shared` lock is held beside other
        shared ones.
        """

    @abstractmethod
    def release(self) -> bool:
        """Give the lock back; False if it was not held."""

    def break_(self) -> bool:
        """Take the lock away from whoever holds it; False if nobody does."""
        raise NotProvided

    def is_still_owner(self) -> bool:
        """Ask the backend whether the lock is still held by this object."""
        raise NotProvided

    def heartbeat(self) -> bool:
        """Keep the lock alive; False if it is not held."""
        raise NotProvided

    def __call__(self, *args: Any, **kwargs: Any) -> _LockProxy[Self]:
        return _LockProxy(self, *args, **kwargs)

    def __enter__(self, *args: Any, **kwargs: Any) -> Self:
        if not self.acquire(*args, **kwargs):
            raise LockAcquireFailed(f"The lock {shown(self.name)} is taken")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.release()


class _LockProxy(Generic[L]):
    """A lock for one `with`, with the arguments of its `acquire`."""

    def __init__(self, lock: L, *args: Any, **kwargs: Any) -> None:
        self.lock = lock
        self.args = args
        self.kwargs = kwargs

    def __enter__(self) -> L:
        return self.lock.__enter__(*self.args, **self.kwargs)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.lock.__exit__(exc_type, exc_val, exc_tb)
