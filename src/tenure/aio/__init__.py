"""The asyncio API: the same names as `tenure`, awaited.

    async with tenure.aio.connect("redis://localhost") as coordinator:
        async with coordinator.lock("nightly", timeout=10) as lease, lease.cancel_on_loss():
            await write(fence=lease.token)

A coordinator belongs to the event loop that it was connected in.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._coordinator import Coordinator, connect
from ._lock import Lease, Lock, Loss

if TYPE_CHECKING:
    from .._hashring import HashRing
    from ..policy.characteristics import Characteristic
    from ..policy.level import Level
    from ._barrier import Barrier, Latch
    from ._claims import Claims
    from ._election import Election, LeaderWatch, Term
    from ._group import Group, Member, Orphan, Subscription, Watch
    from ._multilock import MultiLease, MultiLock, RWLock
    from ._ring import Ring
    from ._semaphore import Permit, Semaphore

__all__ = [
    "Barrier",
    "Characteristic",
    "Claims",
    "Coordinator",
    "Election",
    "Group",
    "HashRing",
    "Latch",
    "LeaderWatch",
    "Lease",
    "Level",
    "Lock",
    "Loss",
    "Member",
    "MultiLease",
    "MultiLock",
    "Orphan",
    "Permit",
    "RWLock",
    "Ring",
    "Semaphore",
    "Subscription",
    "Term",
    "Watch",
    "connect",
]

# What only some programs need is imported when it is first asked for.
_LAZY = {
    "Barrier": "._barrier",
    "Characteristic": "..policy.characteristics",
    "Claims": "._claims",
    "Election": "._election",
    "Group": "._group",
    "HashRing": ".._hashring",
    "Latch": "._barrier",
    "LeaderWatch": "._election",
    "Level": "..policy.level",
    "Member": "._group",
    "MultiLease": "._multilock",
    "MultiLock": "._multilock",
    "Orphan": "._group",
    "Permit": "._semaphore",
    "RWLock": "._multilock",
    "Ring": "._ring",
    "Semaphore": "._semaphore",
    "Subscription": "._group",
    "Term": "._election",
    "Watch": "._group",
}


if not TYPE_CHECKING:  # else a checker would find every name here

    def __getattr__(name: str) -> object:
        """What few programs need, imported when it is first asked for."""
        module = _LAZY.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(module, __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
