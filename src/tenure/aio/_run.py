"""How a coroutine of the core is run: here, it is awaited."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """The coroutine, to await. The synchronous twin drives it to its end."""
    return work
