"""The asyncio API: the same names as `tenure`, awaited.

    async with tenure.aio.connect("redis://localhost") as coordinator:
        async with coordinator.lock("nightly", timeout=10) as lease, lease.cancel_on_loss():
            await write(fence=lease.token)

A coordinator belongs to the event loop that it was connected in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._coordinator import Coordinator, connect
from ._lock import Lease, Lock, Loss

if TYPE_CHECKING:
    from ._election import Election, LeaderWatch, Term
    from ._group import Group, Member, Subscription, Watch

__all__ = [
    "Coordinator",
    "Election",
    "Group",
    "LeaderWatch",
    "Lease",
    "Lock",
    "Loss",
    "Member",
    "Subscription",
    "Term",
    "Watch",
    "connect",
]

# What only some programs need is imported when it is first asked for.
_LAZY = {
    "Election": "._election",
    "Group": "._group",
    "LeaderWatch": "._election",
    "Member": "._group",
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
