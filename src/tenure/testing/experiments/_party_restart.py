"""Restarts of the server that an experiment may restart."""

from __future__ import annotations

import tenure

from ...policy.evidence import Fault
from ._party_cast import Cast


def restartable(cast: Cast) -> bool:
    """Whether there is a server, and it is the experiment's own."""
    return cast.server is not None


def pids(cast: Cast) -> list[int]:
    """The server's process, or those of several servers that are taken for one."""
    server = cast.server
    return [each.pid for each in getattr(server, "servers", [server])]


def restart(cast: Cast, *, graceful: bool) -> Fault:
    """Restart the server on the same port with what it has on disk; it serves on return."""
    before, began = pids(cast), tenure.now()
    cast.server.restart(graceful=graceful)
    after = pids(cast)
    return Fault(
        name="shutdown and restart" if graceful else "kill -9 and restart",
        confirmed=not set(before) & set(after),
        proof=f"the server was process {_listed(before)} and is {_listed(after)}",
        recovery_seconds=round(tenure.now() - began, 2),
    )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
