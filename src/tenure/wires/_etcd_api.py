"""What the etcd driver asks of a wire: requests and replies as plain data.

Any wire that carries these few verbs to etcd's v3 API serves the driver. How etcd's
refusals become `tenure.errors` is decided here too, by status code and text, since
the same text arrives over every wire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, overload

from ..errors import (
    AuthenticationFailed,
    BackendError,
    OutcomeUnknown,
    ProtocolError,
    SessionLost,
    StorageError,
    Unavailable,
)


class Get(NamedTuple):
    """Read one key, or the keys from `key` up to, not including, `end`."""

    key: bytes
    end: bytes = b""
    limit: int = 0
    order: Literal["", "oldest", "newest"] = ""
    up_to: int = 0
    """Leave out what was created after this revision; 0 leaves out nothing."""
    keys_only: bool = False


class Put(NamedTuple):
    """Write a key and tie it to a lease, if the lease is not 0."""

    key: bytes
    value: bytes
    lease: int


class Delete(NamedTuple):
    """Remove one key."""

    key: bytes


class Created(NamedTuple):
    """Holds if every key of the range was created at or before the revision; 0: none exists."""

    key: bytes
    end: bytes = b""
    up_to: int = 0


class Unchanged(NamedTuple):
    """Holds if the key was last modified at exactly this revision."""

    key: bytes
    modified: int


Operation = Get | Put | Delete
Guard = Created | Unchanged


class Entry(NamedTuple):
    """One key as etcd stores it; `value` is empty if only keys were asked for."""

    key: bytes
    value: bytes
    created: int
    modified: int
    lease: int


class Found(Sequence[Entry]):
    """The reply to a `Get`: its entries, each decoded when it is looked at.

    `size` is the number of keys in the whole range, whatever the limit.
    """

    __slots__ = ("_decode", "_rows", "size")

    def __init__(
        self, rows: Sequence[Any] = (), size: int = 0, decode: Callable[[Any], Entry] | None = None
    ) -> None:
        self._rows = rows
        self._decode = decode
        self.size = size

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...

    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        assert self._decode is not None
        if isinstance(index, slice):
            return [self._decode(row) for row in self._rows[index]]
        return self._decode(self._rows[index])


class Outcome(NamedTuple):
    """The reply to a transaction: what each `Get` found; other operations leave `Found()`."""

    succeeded: bool
    revision: int
    found: tuple[Found, ...]


class Watch(NamedTuple):
    """Ask to be told of changes from now on. `id` is the client's, and used once per stream."""

    id: int
    key: bytes
    end: bytes
    removals_only: bool
    before: bool = False
    """Whether to tell what a key held before the change."""


class Unwatch(NamedTuple):
    """End a watch."""

    id: int


class Change(NamedTuple):
    """One change of a key. `before` is what the key held, if that was asked for and is known."""

    key: bytes
    revision: int
    removed: bool = False
    value: bytes = b""
    before: Entry | None = None


class News(NamedTuple):
    """One message on a stream of watches."""

    id: int
    created: bool = False
    cancelled: bool = False
    compacted: int = 0
    """The oldest revision that can still be watched, if the one asked for is gone."""
    reason: str = ""
    changes: Sequence[Change] = ()
    revision: int = 0
    """With `created`, the last revision that the watch does not see."""


class Status(NamedTuple):
    """What one member says of itself."""

    version: str
    size: int
    """Bytes of the database's file."""
    in_use: int
    """Those of them that are not free for reuse."""
    quota: int
    """Bytes that the file may have; 0 if the member does not say (before 3.6)."""


class Member(NamedTuple):
    """One member of the cluster; `learner`: it does not vote yet."""

    name: str
    learner: bool


class Stream(Protocol):
    """Many watches over one connection."""

    def send(self, request: Watch | Unwatch) -> None:
        """Queue a request; it never waits, and does nothing once the stream has ended."""

    async def receive(self) -> News:
        """Wait for the next message; an ended stream raises a `BackendError`."""
        ...

    def close(self) -> None:
        """End the stream, and with it a `receive` that waits, from any thread or task."""


class Wire(Protocol):
    """The verbs. Each is one request and one reply, bounded in time by the wire."""

    client: tuple[str, str]
    """The library that carries them, and its version; empty if there is none."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def abandon(self) -> None: ...

    async def get(self, get: Get) -> Found: ...

    async def delete(self, key: bytes) -> None: ...

    async def txn(
        self,
        guards: Sequence[Guard],
        then: Sequence[Operation],
        otherwise: Sequence[Operation] = (),
    ) -> Outcome: ...

    async def lease_grant(self, lease: int, ttl: int) -> bool:
        """Grant a lease under a given number; False if there is one with that number."""
        ...

    async def lease_revoke(self, lease: int) -> bool:
        """End a lease and remove its keys; False if there was none."""
        ...

    async def lease_keepalive(self, lease: int) -> int:
        """Restart a lease's time; return the seconds it has, 0 if there is no such lease."""
        ...

    async def lease_age(self, lease: int) -> float | None:
        """Whole seconds since a lease was kept alive last; None if there is no such lease."""
        ...

    async def version(self) -> str:
        """The version of the member at the other end."""
        ...

    async def status(self) -> Status: ...

    async def alarms(self) -> Sequence[str]: ...

    async def members(self) -> Sequence[Member]: ...

    async def watch(self, *, fresh: bool) -> Stream:
        """Open a stream of watches; `fresh`: with a new token, since the old one was refused."""
        ...


# gRPC's status codes, which the HTTP gateway uses too.
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
UNAVAILABLE = 14
UNAUTHENTICATED = 16

# etcd words an expired token in several ways: a lost or old token, one of before a
# change of the users, and none at all where authentication was switched on later.
# A member may also refuse the permission because it no longer knows the token.
_STALE = (
    "invalid auth token",
    "revision of auth store is old",
    "auth revision",
    "user name is empty",
    "permission denied",
)
_CREDENTIALS = (
    *_STALE,
    "authentication failed",
    "authentication is not enabled",
    "user name not found",
)
_NOT_SENT = ("failed to connect", "connections to all backends failing", "DNS resolution failed")
_NOT_DONE = ("etcdserver: no leader", "etcdserver: too many requests")
_FULL = (
    "database space exceeded",
    "no space",
    "request is too large",
    "received message larger than max",
)


def is_stale(text: str) -> bool:
    """Whether a fresh authentication may turn this refusal into an answer."""
    return any(part in text for part in _STALE)


def refusal(code: int, text: str, where: str) -> BackendError | SessionLost:
    """The error that a status stands for; `where` names the endpoint."""
    shown = f"{where}: {text or 'no details'} (status {code})"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return AuthenticationFailed(f"{shown}; the option 'ca' names the authority to trust")
    if code == UNAVAILABLE and any(part in text for part in _NOT_SENT):
        return Unavailable(shown)
    if any(part in text for part in _NOT_DONE):
        return Unavailable(shown)
    if code in (PERMISSION_DENIED, UNAUTHENTICATED) or any(part in text for part in _CREDENTIALS):
        return AuthenticationFailed(shown)
    if any(part in text for part in _FULL):
        return StorageError(shown)
    if "requested lease not found" in text:
        return SessionLost(shown)
    if code in (CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, ABORTED, UNAVAILABLE):
        return OutcomeUnknown(shown)
    return ProtocolError(shown)
