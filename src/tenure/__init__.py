"""Locks and leases between threads, processes and hosts, over the store you already run.

    import tenure

    with tenure.connect("redis://localhost") as coordinator:
        with coordinator.lock("nightly", timeout=10) as lease:
            write(fence=lease.token)
            lease.check()

`tenure.aio` has the same names for asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._lease import State
from ._model import Candidate, Event, Holder, Leader
from ._runtime._clock import now
from ._sync import Coordinator, Lease, Lock, Loss, connect
from .errors import (
    AcquireTimeout,
    AlreadyJoined,
    AuthenticationFailed,
    BackendError,
    CandidateNotFound,
    CharacteristicUnmet,
    ClosedError,
    DriverDeprecated,
    ForkedError,
    GroupExists,
    GroupNotEmpty,
    GroupNotFound,
    InvalidArgument,
    InvalidName,
    InvalidURL,
    LeaseLost,
    LevelTooLow,
    LimitMismatch,
    MemberExists,
    MemberNotFound,
    NotHeld,
    OutcomeUnknown,
    PolicyError,
    ProtocolError,
    SessionLost,
    StorageError,
    TenureError,
    Unavailable,
    UnknownDriver,
    Unsupported,
    WaitTimeout,
)

if TYPE_CHECKING:
    from ._hashring import HashRing
    from ._recipes.members import Change, MemberInfo, Members
    from ._recipes.ring import Move, RingChange
    from ._recipes.status import Status
    from ._sync._barrier import Barrier, Latch
    from ._sync._claims import Claims
    from ._sync._election import Election, LeaderWatch, Term
    from ._sync._group import Group, Member, Orphan, Subscription, Watch
    from ._sync._multilock import MultiLease, MultiLock, RWLock
    from ._sync._ring import Ring
    from ._sync._semaphore import Permit, Semaphore
    from .policy.characteristics import Characteristic
    from .policy.level import Level
    from .policy.notices import (
        BackendVersionWarning,
        DeprecatedDriverWarning,
        DriverLevelWarning,
        PolicyWarning,
    )

__version__ = "0.1.0"

__all__ = [
    "AcquireTimeout",
    "AlreadyJoined",
    "AuthenticationFailed",
    "BackendError",
    "BackendVersionWarning",
    "Barrier",
    "Candidate",
    "CandidateNotFound",
    "Change",
    "Characteristic",
    "CharacteristicUnmet",
    "Claims",
    "ClosedError",
    "Coordinator",
    "DeprecatedDriverWarning",
    "DriverDeprecated",
    "DriverLevelWarning",
    "Election",
    "Event",
    "ForkedError",
    "Group",
    "GroupExists",
    "GroupNotEmpty",
    "GroupNotFound",
    "HashRing",
    "Holder",
    "InvalidArgument",
    "InvalidName",
    "InvalidURL",
    "Latch",
    "Leader",
    "LeaderWatch",
    "Lease",
    "LeaseLost",
    "Level",
    "LevelTooLow",
    "LimitMismatch",
    "Lock",
    "Loss",
    "Member",
    "MemberExists",
    "MemberInfo",
    "MemberNotFound",
    "Members",
    "Move",
    "MultiLease",
    "MultiLock",
    "NotHeld",
    "Orphan",
    "OutcomeUnknown",
    "Permit",
    "PolicyError",
    "PolicyWarning",
    "ProtocolError",
    "RWLock",
    "Ring",
    "RingChange",
    "Semaphore",
    "SessionLost",
    "State",
    "Status",
    "StorageError",
    "Subscription",
    "TenureError",
    "Term",
    "Unavailable",
    "UnknownDriver",
    "Unsupported",
    "WaitTimeout",
    "Watch",
    "connect",
    "now",
]

# What only some programs need is imported when it is first asked for.
_LAZY = {
    "Barrier": "._sync._barrier",
    "BackendVersionWarning": ".policy.notices",
    "Change": "._recipes.members",
    "Characteristic": ".policy.characteristics",
    "Claims": "._sync._claims",
    "DeprecatedDriverWarning": ".policy.notices",
    "DriverLevelWarning": ".policy.notices",
    "Election": "._sync._election",
    "Group": "._sync._group",
    "HashRing": "._hashring",
    "Latch": "._sync._barrier",
    "LeaderWatch": "._sync._election",
    "Level": ".policy.level",
    "Member": "._sync._group",
    "MemberInfo": "._recipes.members",
    "Members": "._recipes.members",
    "Move": "._recipes.ring",
    "MultiLease": "._sync._multilock",
    "MultiLock": "._sync._multilock",
    "Orphan": "._sync._group",
    "Permit": "._sync._semaphore",
    "PolicyWarning": ".policy.notices",
    "RWLock": "._sync._multilock",
    "Ring": "._sync._ring",
    "RingChange": "._recipes.ring",
    "Semaphore": "._sync._semaphore",
    "Status": "._recipes.status",
    "Subscription": "._sync._group",
    "Term": "._sync._election",
    "Watch": "._sync._group",
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
