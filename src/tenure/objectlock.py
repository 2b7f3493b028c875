"""Locks on objects by their ids: lock, do the work, unlock.

    from tenure import objectlock

    with objectlock.service("etcd://localhost") as locks:
        locks.lock("port-7")
        locks.unlock("port-7")

The backend is a URL, of a driver of Tenure's own or of any that is installed.
`tenure.aio.objectlock` is the same for asyncio.
"""

from __future__ import annotations

from ._sync.objectlock import LockService, service

__all__ = ["LockService", "service"]
