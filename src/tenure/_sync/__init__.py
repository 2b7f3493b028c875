"""The synchronous API. Its asyncio twin is `tenure.aio`; a parity test keeps them alike."""

from __future__ import annotations

from ._coordinator import Coordinator, connect
from ._lock import Lease, Lock, Loss

__all__ = ["Coordinator", "Lease", "Lock", "Loss", "connect"]
