"""Locks and leases between threads, processes and hosts, over the store you already run.

    import tenure

    with tenure.connect("redis://localhost") as coordinator:
        with coordinator.lock("nightly", timeout=10) as lease:
            write(fence=lease.token)
            lease.check()

`tenure.aio` has the same names for asyncio.
"""

from __future__ import annotations

from ._lease import State
from ._model import Event, Holder
from ._runtime._clock import now
from ._sync import Coordinator, Lease, Lock, Loss, connect
from .errors import (
    AcquireTimeout,
    AuthenticationFailed,
    BackendError,
    ClosedError,
    ForkedError,
    InvalidArgument,
    InvalidName,
    InvalidURL,
    LeaseLost,
    LimitMismatch,
    OutcomeUnknown,
    ProtocolError,
    SessionLost,
    StorageError,
    TenureError,
    Unavailable,
    UnknownDriver,
    Unsupported,
    WaitTimeout,
)

__version__ = "0.1.0"

__all__ = [
    "AcquireTimeout",
    "AuthenticationFailed",
    "BackendError",
    "ClosedError",
    "Coordinator",
    "Event",
    "ForkedError",
    "Holder",
    "InvalidArgument",
    "InvalidName",
    "InvalidURL",
    "Lease",
    "LeaseLost",
    "LimitMismatch",
    "Lock",
    "Loss",
    "OutcomeUnknown",
    "ProtocolError",
    "SessionLost",
    "State",
    "StorageError",
    "TenureError",
    "Unavailable",
    "UnknownDriver",
    "Unsupported",
    "WaitTimeout",
    "connect",
    "now",
]
