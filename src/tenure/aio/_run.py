"""How a coroutine of the core is run: here, it is awaited."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from ._lock import Lease

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """The coroutine, to await. The synchronous twin drives it to its end."""
    return work


def while_held(lease: Lease) -> AbstractAsyncContextManager[None]:
    """Cancel the body of the block when the lease is lost. The synchronous twin cannot."""
    return lease.cancel_on_loss()
