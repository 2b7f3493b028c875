"""How a coroutine of the core is run: here, it is driven to its end at once."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext

from .._runtime.thread import ThreadRuntime
from .._runtime.thread import drive as run
from ..errors import InvalidArgument
from ._lock import Lease

__all__ = ["check_function", "mutex", "run", "while_held"]


def while_held(lease: Lease) -> AbstractContextManager[None]:
    """Nothing: a thread cannot be cancelled. The asyncio twin cancels the body on loss."""
    return nullcontext()


def mutex() -> AbstractContextManager[bool]:
    """A mutual exclusion for what has no runtime yet."""
    return ThreadRuntime().lock()


def check_function(function: object) -> None:
    """`InvalidArgument` if it is no function, or a coroutine function, which would not wait."""
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise InvalidArgument(f"{function!r} is not a plain function: use tenure.aio")
