"""The asyncio API: the same names as `tenure`, awaited.

    async with tenure.aio.connect("redis://localhost") as coordinator:
        async with coordinator.lock("nightly", timeout=10) as lease, lease.cancel_on_loss():
            await write(fence=lease.token)

A coordinator belongs to the event loop that it was connected in.
"""

from __future__ import annotations

from ._coordinator import Coordinator, connect
from ._lock import Lease, Lock, Loss

__all__ = ["Coordinator", "Lease", "Lock", "Loss", "connect"]
