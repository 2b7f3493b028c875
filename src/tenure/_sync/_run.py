"""How a coroutine of the core is run: here, it is driven to its end at once."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from .._runtime.thread import drive as run
from ._lock import Lease

__all__ = ["run", "while_held"]


def while_held(lease: Lease) -> AbstractContextManager[None]:
    """Nothing: a thread cannot be cancelled. The asyncio twin cancels the body on loss."""
    return nullcontext()
