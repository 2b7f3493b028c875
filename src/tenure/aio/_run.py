"""How a coroutine of the core is run: here, it is awaited."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from .._runtime.aio import AsyncioMutex
from ..errors import InvalidArgument
from ._lock import Lease

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """The coroutine, to await. The synchronous twin drives it to its end."""
    return work


def while_held(lease: Lease) -> AbstractAsyncContextManager[None]:
    """Cancel the body of the block when the lease is lost. The synchronous twin cannot."""
    return lease.cancel_on_loss()


def mutex() -> AbstractAsyncContextManager[None]:
    """A mutual exclusion for what has no runtime yet."""
    return AsyncioMutex()


def check_function(function: object) -> None:
    """`InvalidArgument` if it is not a coroutine function. The twin wants one that is not."""
    if not inspect.iscoroutinefunction(function):
        raise InvalidArgument(f"{function!r} is not a coroutine function: use the synchronous API")
