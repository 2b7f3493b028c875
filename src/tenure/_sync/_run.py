"""How a coroutine of the core is run: here, it is driven to its end at once."""

from __future__ import annotations

from .._runtime.thread import drive as run

__all__ = ["run"]
