"""What in a cluster's state and configuration would break coordination over etcd."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

from .._model import Finding
from .._runtime.base import Runtime
from .._url import Host, Url
from ..errors import BackendError, Unavailable
from ..wires import _etcd_upkeep as upkeep
from ..wires._etcd_api import Member, Status, Wire
from ._etcd_options import PORT

_NEARLY = 0.8
_MIB = 1 << 20
_LEAST = (3, 4, 0)
_REVOKED_WRONGLY_BEFORE = {(3, 4): 31, (3, 5): 13}
"""By release, the first patch whose old leaders do not end the new one's leases."""

_FULL = (
    "A member's database has reached its space quota: nothing is written any more, so every claim "
    "is refused (StorageError), and nobody new can get a lock."
)
_MAKE_ROOM = (
    "Compact and defragment the members, or raise --quota-backend-bytes; "
    "then `etcdctl alarm disarm`."
)
_DAMAGED = "The members disagree about what is stored: two clients may see two holders."
_ALARMS = {
    "NOSPACE": (_FULL, _MAKE_ROOM),
    "CORRUPT": (_DAMAGED, "Stop using the cluster, and replace the member that differs."),
}


async def examine(wire: Wire, url: Url, runtime: Runtime, patience: float) -> list[Finding]:
    """The findings; what may not be asked is one, too. Raises only if nobody answers."""
    found: list[Finding] = []
    try:
        found += _members(await wire.members(), url)
    except BackendError as error:
        found.append(_unread("the members", error))
    try:
        alarms = await wire.alarms()
    except BackendError as error:
        alarms = ()
        found.append(_unread("the alarms", error))
    for alarm in alarms:
        text, advice = _ALARMS.get(alarm, ("The cluster says that something is wrong.", ""))
        found.append(Finding("error", f"alarm {alarm}", text, advice))
    try:
        status = await wire.status()
    except BackendError as error:
        return [*found, _unread("the status", error)]
    return [*found, *_version(status.version), *await _space(status, url, runtime, patience)]


def _unread(what: str, error: BackendError) -> Finding:
    if isinstance(error, Unavailable):
        raise error
    text = f"It may not be read with these credentials: {error}"
    return Finding("note", what, text, "Ask somebody who may, or look with `etcdctl`.")


def _members(members: Sequence[Member], url: Url) -> Iterator[Finding]:
    voters = [member for member in members if not member.learner]
    count = len(voters)
    subject = f"{count} voting member{'' if count == 1 else 's'}"
    if count == 1:
        text = "When it is down, nothing can be locked, renewed or released."
        yield Finding("warning", subject, text, "Run three members, or five.")
    elif count % 2 == 0:
        text = f"{count} members survive the loss of {(count - 1) // 2}, as {count - 1} would."
        yield Finding("warning", subject, text, "Run an odd number of members.")
    for member in members:
        if member.learner:
            text = "It does not vote, and refuses clients until it is promoted."
            advice = "Promote it (`etcdctl member promote`), and leave it out of the URL till then."
            yield Finding("note", f"learner {member.name}", text, advice)
    named = len(url.hosts) or 1
    if named < count:
        text = "When those are down, this client cannot reach the others."
        advice = f"Name all {count} in the URL, unless it names a load balancer."
        yield Finding("note", f"the URL names {named} of {count} members", text, advice)


def _version(version: str) -> Iterator[Finding]:
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        return
    major, minor, patch = map(int, match.groups())
    if (major, minor, patch) < _LEAST:
        text = "The driver was made for etcd 3.4 and later; older ones lack what it relies on."
        yield Finding("error", f"etcd {version}", text, "Upgrade etcd.")
    elif patch < _REVOKED_WRONGLY_BEFORE.get((major, minor), 0):
        text = (
            "A leader that is stuck (a slow disk, a busy machine) while another is elected may end "
            "sessions that were renewed since. Their holders find out at the next renewal, when "
            "others may hold already, with greater tokens."
        )
        advice = "Upgrade to 3.4.31, 3.5.13 or later."
        yield Finding("warning", f"etcd {version}", text, advice)


async def _space(status: Status, url: Url, runtime: Runtime, patience: float) -> Sequence[Finding]:
    quota = status.quota
    if not quota:
        host = (url.hosts or (Host("127.0.0.1"),))[0].or_port(PORT)
        tls = url.options if url.scheme.endswith("s") else None
        read = functools.partial(upkeep.quota, host.name, host.port, tls, patience)
        told: int | None = await runtime.blocking(read)
        quota = told or 0
    if not quota:
        text = (
            "Neither the status (before etcd 3.6) nor the metrics tell it. When the database "
            f"reaches it, nothing is written any more; now it has {status.size / _MIB:.0f} MiB."
        )
        advice = "Compare with the option --quota-backend-bytes, 2 GiB if it is not given."
        return (Finding("note", "the space quota", text, advice),)
    if status.size < quota * _NEARLY:
        return ()
    share = status.size / quota
    subject = f"database: {status.size / _MIB:.0f} MiB, {share:.0%} of its quota"
    text = "When it is reached, nothing is written any more, and nobody new can get a lock."
    advice = (
        f"Compact and defragment ({status.in_use / _MIB:.0f} MiB are in use), or raise "
        "--quota-backend-bytes."
    )
    return (Finding("warning", subject, text, advice),)
