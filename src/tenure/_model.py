"""The data that drivers and recipes exchange: immutable, and free of behaviour.

Named tuples rather than frozen dataclasses: one is built on every acquire, where a
frozen dataclass costs four times as much, and importing dataclasses costs milliseconds.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple


class Claim(NamedTuple):
    """One ephemeral entry in a roster.

    `id` is chosen by the client and unique for ever, so that a claim whose reply
    was lost can be found again. `token` is given by the backend: claims of one
    roster are ordered by it, and it never falls, so it is the fencing token too.
    """

    roster: str
    id: str
    session: str
    token: int
    owner: str = ""
    body: str = ""
    shared: bool = False
    """Whether only the claims before it that are not shared stand in its way."""


class Roll(NamedTuple):
    """What a backend says about a roster, seen from one claim id.

    A roll may be partial. `claims` holds at least the first live claim, if there is
    any; `mine` is the claim asked about; `rank` is the number of live claims before
    it (at least: a backend may count dead ones that nobody has buried yet), and
    `before` is the id of the claim directly before it, which is the one to watch. For a
    shared claim, both leave the other shared ones out.
    """

    claims: tuple[Claim, ...] = ()
    mine: Claim | None = None
    rank: int = 0
    before: str | None = None


class Interest(NamedTuple):
    """What somebody wants to be woken for.

    A waiter: its claim `id` in `roster` moving up. `before` is the id of the claim that
    stands directly before it, and `width` the rank below which it is granted. A watcher,
    with a `watch`: any change of the roster's public claims, those with a body, and of
    the record of that name; then `id` is only a name for the interest, and `session`
    may be empty.
    """

    session: str
    roster: str
    id: str
    before: str | None
    width: int = 1
    watch: bool = False


class Record(NamedTuple):
    """A text that stays until somebody deletes it. `version` belongs to the driver."""

    text: str
    version: Any


class Grant(NamedTuple):
    """What a native mutex returns when it was seized. `handle` belongs to the driver."""

    name: str
    id: str
    token: int
    handle: Any


class Holder(NamedTuple):
    """Who holds a lock, for an operator to read. `since` is Unix time, or None if unknown."""

    owner: str
    token: int | None = None
    since: float | None = None


class Leader(NamedTuple):
    """Who leads an election. `since` is Unix time; `value` is what the leader has published."""

    owner: str
    token: int
    value: Any
    since: float


class Candidate(NamedTuple):
    """Who waits to lead. `id` is the campaign's own, unique; `since` is Unix time."""

    owner: str
    id: str
    since: float


class Taken(NamedTuple):
    """A native mutex that is held, for an operator to read.

    `name` is None, or shortened, where the backend does not know it all; `waiters` is
    None where it cannot count them.
    """

    name: str | None
    holders: tuple[Holder, ...]
    waiters: int | None = None
    shared: bool = False


class Server(NamedTuple):
    """What a driver is connected to, read off the live connection.

    product: what answers there, such as "redis", "valkey" or "mariadb"; where there is no
        server, what keeps the locks: "sqlite", the kernel ("linux"), or "python" itself.
    version: its version in its own words; it begins with numbers and dots.
    topology: what this connection can tell of the whole that it is a part of, such as
        "standalone" or "cluster of 3"; empty if it can tell nothing.
    client: the library that carries the connection, by the name of its distribution; empty
        for none.
    client_version: that library's version.
    """

    product: str
    version: str
    topology: str = ""
    client: str = ""
    client_version: str = ""


Severity = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """What a look at a backend's configuration found.

    severity: "error" if coordination breaks with it, "warning" if it may under load or
        after a fault, "note" for what is good to know.
    subject: the setting or fact, as the backend calls it, with its value.
    text: what follows from it.
    advice: what to do.
    """

    severity: Severity
    subject: str
    text: str
    advice: str


Scope = Literal["threads", "processes", "hosts"]


class Traits(NamedTuple):
    """What a driver says of itself. The conformance kit proves or refutes each line.

    scope: the farthest apart that two clients may be and still exclude each other.
    shared: shared (reader) locks can be had.
    fair: waiters of different clients are served in the order in which they came.
    frees_on_death: when the holder's process dies, the backend frees its locks at
        once, without waiting for a timeout.
    durable_tokens: tokens keep rising when the backend restarts.
    durable_claims: what is held stays held when the backend restarts.
    expires: a session that is not renewed ends after its TTL, or may; without this,
        a lease has no deadline, and only an explicit sign ends it.
    push: a waiter is woken by the backend, and does not depend on polling.
    poll: seconds between two looks where no push comes (an upper bound, with jitter).
    min_ttl: the shortest session, in seconds, that the backend can keep.
    linger: a session that is not renewed is gone after so many TTLs.
    server: the backend is a server process, which can be restarted or cut off.
    rosters: it keeps rosters and records. Without them there are locks and nothing else:
        no semaphores, barriers, groups, watches, elections or partitions.
    """

    scope: Scope
    shared: bool = False
    fair: bool = True
    frees_on_death: bool = False
    durable_tokens: bool = True
    durable_claims: bool = False
    expires: bool = True
    push: bool = True
    poll: float = 0.5
    min_ttl: float = 0.5
    linger: float = 1.0
    server: bool = True
    rosters: bool = True


EventKind = Literal["acquired", "waited", "renewed", "in doubt", "lost", "released"]


class Event(NamedTuple):
    """What an event hook is told.

    `name`, `token` and `owner` are the lease's; a renewal is the session's, so its
    `name` is empty. `seconds` is how long an acquire waited (waited, acquired), how
    long the renewal took (renewed) or how long the lease was held (lost, released).
    `reason` says why a lease was lost or is in doubt.
    """

    kind: EventKind
    name: str
    token: int
    owner: str
    seconds: float
    reason: str = ""
