"""Consul's HTTP API: sessions, keys, transactions, long polls; the same for both flavours.

Errors are translated here. A refusal that tells of no leader was certainly not carried out;
any other failure of the servers may have been, since an agent passes a request on to them.
"""

from __future__ import annotations

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

from .._runtime.base import Flavour, Runtime
from ..errors import (
    AuthenticationFailed,
    BackendError,
    InvalidArgument,
    OutcomeUnknown,
    ProtocolError,
    SessionLost,
    StorageError,
    TenureError,
    Unavailable,
)
from . import http

_UNDONE = ("No cluster leader", "node is not the leader", "Raft leader not found", "rate limit")
_NOT_READ = ("Not ready to serve consistent reads", "leadership lost", "No known Consul servers")
_TEXT_MAX = 300


class Settings(NamedTuple):
    """How to reach the agents; `query` goes with every request."""

    http: http.Settings
    query: str


class Entry(NamedTuple):
    """A key: who has locked it (empty: nobody), and when it was made and written."""

    key: str
    value: str
    """In base 64, as it came."""
    flags: int
    session: str
    created: int
    modified: int


class Found(NamedTuple):
    """What a read has found, and Consul's index for it."""

    entries: Sequence[Entry]
    version: int


class Answer(NamedTuple):
    """What is known of an answer: its index, and whether it was that there is nothing."""

    index: int  # type: ignore[assignment]  # a tuple's own `index` is of no use here
    absent: bool


class Refused(NamedTuple):
    """Why a transaction was not carried out: of each operation that failed, what was wrong."""

    reasons: dict[int, str]


Operation = dict[str, object]


def not_there(key: str) -> Operation:
    """Refuse unless there is no such key."""
    return {"KV": {"Verb": "check-not-exists", "Key": key}}


def unchanged(key: str, index: int) -> Operation:
    """Refuse unless the key was last written then."""
    return {"KV": {"Verb": "check-index", "Key": key, "Index": index}}


def put(key: str, value: bytes = b"") -> Operation:
    """Write a key."""
    return {"KV": {"Verb": "set", "Key": key, "Value": encoded(value)}}


def put_if(key: str, index: int, value: bytes = b"", flags: int = 0) -> Operation:
    """Write a key that was last written then; 0: that does not exist. It stays locked."""
    text = encoded(value)
    return {"KV": {"Verb": "cas", "Key": key, "Value": text, "Index": index, "Flags": flags}}


def lock(key: str, session: str, value: bytes = b"", flags: int = 0) -> Operation:
    """Write a key and lock it for a session; refuse if another's has it."""
    text = encoded(value)
    kv = {"Verb": "lock", "Key": key, "Value": text, "Flags": flags, "Session": session}
    return {"KV": kv}


def tree(prefix: str) -> Operation:
    """Read every key that begins so."""
    return {"KV": {"Verb": "get-tree", "Key": prefix}}


def delete(key: str) -> Operation:
    """Delete a key if it is there."""
    return {"KV": {"Verb": "delete", "Key": key}}


def delete_if(key: str, index: int) -> Operation:
    """Delete a key that was last written then."""
    return {"KV": {"Verb": "delete-cas", "Key": key, "Index": index}}


class ConsulWire:
    """The verbs. A coordinator has one; what waits for long has a `Poll` of its own."""

    def __init__(self, settings: Settings, flavour: Flavour) -> None:
        self._http = http.wire(settings.http, flavour)
        self._settings = settings.http
        self.name = settings.http.name
        query = settings.query
        self._only = f"?{query}" if query else ""
        self._more = f"&{query}" if query else ""
        self._path = f"/v1/txn{self._only}"

    def __repr__(self) -> str:
        return f"<ConsulWire {self._http!r}>"

    async def open(self, runtime: Runtime) -> None:
        """Make the first connection."""
        await self._http.open(runtime)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    def abandon(self) -> None:
        """In a forked child: forget the connections."""
        self._http.abandon()

    def poll(self) -> Poll:
        """A connection of its own for long polls."""
        return Poll(self._http, self._more)

    # -- sessions ----------------------------------------------------------

    async def create_session(self, name: str, ttl: str, behavior: str, delay: str) -> str:
        """Begin a session that depends on nothing but its TTL; return its id."""
        body = {"Name": name, "TTL": ttl, "Behavior": behavior, "LockDelay": delay}
        # Without a word, Consul would tie it to the health of the agent that is asked here.
        body |= {"Checks": [], "NodeChecks": []}  # type: ignore[dict-item]
        data = json.dumps(body).encode()
        reply = await self._call("PUT", f"/v1/session/create{self._only}", data)
        try:
            return str(_json(reply)["ID"])
        except (KeyError, TypeError) as error:
            raise _strange(error) from error

    async def renew_session(self, session: str) -> bool:
        """Give a session another TTL; False if there is none."""
        path = f"/v1/session/renew/{session}{self._only}"
        return (await self._call("PUT", path, b"", 404)).status == 200

    async def end_session(self, session: str) -> None:
        """End a session, if there is one."""
        await self._call("PUT", f"/v1/session/destroy/{session}{self._only}", b"")

    async def session_exists(self, session: str) -> bool:
        """Whether there is such a session."""
        path = f"/v1/session/info/{session}?consistent{self._more}"
        return bool(_json(await self._call("GET", path)))

    # -- keys --------------------------------------------------------------

    async def get(self, key: str) -> Entry | None:
        """Read one key, as a majority of the servers has it."""
        path = f"/v1/kv/{key}?consistent{self._more}"
        for entry in _entries(await self._call("GET", path, None, 404)):
            return entry
        return None

    async def tree(self, prefix: str) -> Found:
        """Read every key that begins so, in the order in which they were made."""
        path = f"/v1/kv/{prefix}?recurse&consistent{self._more}"
        reply = await self._call("GET", path, None, 404)
        return Found(in_order(_entries(reply)), index(reply))

    async def keys(self, prefix: str, separator: str = "") -> list[str]:
        """The keys that begin so, or what they begin with up to the separator."""
        path = f"/v1/kv/{prefix}?keys&separator={separator}&consistent{self._more}"
        reply = await self._call("GET", path, None, 404)
        return [] if reply.status == 404 else sorted(names(reply))

    async def answer(self, question: str) -> Answer:
        """The answer to a `Poll`'s question now."""
        path = f"/v1/kv/{question}&consistent{self._more}"
        return answer(await self._call("GET", path, None, 404))

    async def delete(self, key: str) -> None:
        """Delete a key if it is there."""
        await self._call("DELETE", f"/v1/kv/{key}{self._only}")

    async def trees(self, *prefixes: str) -> list[Entry]:
        """Read every key that begins with one of these, all at one moment."""
        found = await self._txn(
            f"/v1/txn?consistent{self._more}", [tree(each) for each in prefixes]
        )
        if isinstance(found, Refused):
            raise ProtocolError(f"consul: a read was refused: {found.reasons}")
        return found

    async def txn(self, operations: Sequence[Operation]) -> list[Entry] | Refused:
        """Carry out all operations or none; the entries that were written and read.

        `SessionLost` if one would lock a key for a session that is over.
        """
        return await self._txn(self._path, operations)

    async def _txn(self, path: str, operations: Sequence[Operation]) -> list[Entry] | Refused:
        data = json.dumps(operations, separators=(",", ":")).encode()
        reply = await self._call("PUT", path, data, 409)
        try:
            if reply.status == 200:
                return [_entry(each["KV"]) for each in json.loads(reply.body)["Results"] or ()]
            found = json.loads(reply.body)["Errors"]
            reasons = {int(each["OpIndex"]): str(each["What"]) for each in found}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _strange(error) from error
        for reason in reasons.values():
            if "invalid session" in reason.lower():
                raise SessionLost("consul: the session has expired or was destroyed")
            refusal = _refusal(403 if "ermission denied" in reason else 0, reason, self.name)
            if isinstance(refusal, (AuthenticationFailed, StorageError)):
                raise refusal
        return Refused(reasons)

    # -- the cluster -------------------------------------------------------

    async def ask(self, path: str) -> Any:
        """The answer to a question about the agent or the cluster."""
        return _json(await self._call("GET", f"/v1/{path}{self._only}"))

    async def _call(
        self, verb: str, path: str, body: bytes | None = None, expected: int = 200
    ) -> http.Reply:
        reply = await self._http.request(verb, path, body)
        if reply.status == 200 or reply.status == expected:
            return reply
        return await self._call_another(verb, path, body, expected, refusal(reply, self.name))

    async def _call_another(
        self, verb: str, path: str, body: bytes | None, expected: int, error: TenureError
    ) -> http.Reply:
        """What was certainly not carried out, another agent may do that knows a leader."""
        until = time.monotonic() + self._settings.patience
        for _ in self._settings.hosts[1:]:
            left = until - time.monotonic()
            if type(error) is not Unavailable or left <= 0:
                break
            self._http.move_on()
            reply = await self._http.request(verb, path, body, left)
            if reply.status == 200 or reply.status == expected:
                return reply
            error = refusal(reply, self.name)
        if isinstance(error, Unavailable):
            self._http.move_on()
        raise error


class Poll:
    """Waits for changes, one question at a time. `close` ends a wait, from any thread or task."""

    def __init__(self, wire: http.Wire[Any], more: str) -> None:
        self._channel = wire.channel()
        self._name = wire.settings.name
        self._more = more
        self.closed = False

    def close(self) -> None:
        """End it for good, and a wait on it."""
        self.closed = True
        self._channel.close()

    async def read(self, question: str, index: int, wait: float, patience: float) -> http.Reply:
        """The answer when there is one that is newer than the index, or after `wait` seconds.

        With an index of 0, the answer as it is now. Not there (404) is an answer, too.
        """
        blocking = f"&index={index}&wait={wait * 1000:.0f}ms" if index else ""
        # Consul adds up to a sixteenth of the time, so that not all come at once.
        limit = patience + (wait * 17 / 16 if index else 0.0)
        path = f"/v1/kv/{question}{blocking}{self._more}"
        reply = await self._channel.request("GET", path, patience=limit)
        if reply.status not in (200, 404):
            raise refusal(reply, self._name)
        return reply


def encoded(value: bytes) -> str:
    """A value as it is in an entry."""
    return b64encode(value).decode()


def decoded(entry: Entry) -> bytes:
    """The value of a key."""
    try:
        return b64decode(entry.value)
    except ValueError as error:
        raise _strange(error) from error


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """The entries in the order in which they were made."""
    return sorted(entries, key=lambda entry: (entry.created, entry.key))


def index(reply: http.Reply) -> int:
    """Consul's index of what was read, to wait for a newer one with; at least 1."""
    text = reply.headers.get("x-consul-index", "")
    return max(1, int(text)) if text.isdecimal() else 1


def answer(reply: http.Reply) -> Answer:
    """What is to be known of an answer."""
    return Answer(index(reply), reply.status == 404)


def locked(reply: http.Reply) -> bool:
    """Whether the one key that was read is there, and locked by a session."""
    return any(entry.session for entry in _entries(reply))


def names(reply: http.Reply) -> frozenset[str]:
    """The keys that were listed."""
    if reply.status == 404:
        return frozenset()
    try:
        return frozenset(map(str, _json(reply)))
    except TypeError as error:
        raise _strange(error) from error


def refusal(reply: http.Reply, name: str) -> TenureError:
    """What a reply other than the expected means."""
    text = reply.body[: 4 * _TEXT_MAX].decode(errors="replace").strip()[:_TEXT_MAX]
    return _refusal(reply.status, text, name)


def _refusal(status: int, text: str, name: str) -> TenureError:
    said = f"{name}: {text or f'status {status}'}"
    if status in (401, 403) or "ACL not found" in text:
        return AuthenticationFailed(said)
    if status == 413 or "exceeds max" in text or "too large" in text:
        return StorageError(said)
    if "Invalid Session TTL" in text:
        return InvalidArgument(
            f"{said} (in nanoseconds): the servers allow no session this short or long; choose "
            "another ttl, or set session_ttl_min on every server"
        )
    if status == 429 or any(each in text for each in _UNDONE):
        return Unavailable(said)
    if status >= 500 or any(each in text for each in _NOT_READ):
        return OutcomeUnknown(said)
    return BackendError(said)


def _json(reply: http.Reply) -> Any:
    try:
        return json.loads(reply.body)
    except ValueError as error:
        raise _strange(error) from error


def _entries(reply: http.Reply) -> list[Entry]:
    if reply.status == 404:
        return []
    try:
        return [_entry(each) for each in json.loads(reply.body)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _strange(error) from error


def _entry(kv: dict[str, Any]) -> Entry:
    return Entry(
        kv["Key"],
        kv["Value"] or "",
        kv["Flags"],
        kv.get("Session", ""),
        kv["CreateIndex"],
        kv["ModifyIndex"],
    )


def _strange(error: Exception) -> ProtocolError:
    return ProtocolError(f"consul: the answer is not understood: {type(error).__name__}")
