"""The messages of etcd's JSON gateway that Tenure uses.

Field names are those of etcd's rpc.proto; bytes travel as base64, 64-bit numbers as
text, and what has its zero value is left out. Replies that do not fit raise
`ProtocolError`.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import OutcomeUnknown, ProtocolError, TenureError
from ._etcd_api import (
    UNKNOWN,
    Change,
    Created,
    Delete,
    Entry,
    Found,
    Get,
    Guard,
    News,
    Operation,
    Outcome,
    Watch,
    refusal,
)

READ_BYTES = 512
"""What the gateway reads of a request, at the least, before it answers anything."""

_ORDERS = {"oldest": "ASCEND", "newest": "DESCEND"}
_NOTHING = Found()
_NO_ENTRY = Entry(b"", b"", 0, 0, 0)

Json = Mapping[str, Any]


# -- writing ---------------------------------------------------------------


def packed(message: Json) -> bytes:
    """A message as the body of a request."""
    return json.dumps(message, separators=(",", ":")).encode()


def txn_request(
    guards: Sequence[Guard], then: Sequence[Operation], otherwise: Sequence[Operation]
) -> Json:
    """A TxnRequest."""
    request: dict[str, Any] = {}
    if guards:
        request["compare"] = [_guard(guard) for guard in guards]
    if then:
        request["success"] = [_operation(operation) for operation in then]
    if otherwise:
        request["failure"] = [_operation(operation) for operation in otherwise]
    return request


def range_request(get: Get) -> Json:
    """A RangeRequest."""
    request: dict[str, Any] = {"key": _text(get.key)}
    if get.end:
        request["range_end"] = _text(get.end)
    if get.limit:
        request["limit"] = str(get.limit)
    if get.order:
        request["sort_order"] = _ORDERS[get.order]
        request["sort_target"] = "CREATE"
    if get.keys_only:
        request["keys_only"] = True
    if get.up_to:
        request["max_create_revision"] = str(get.up_to)
    return request


def delete_request(key: bytes) -> Json:
    """A DeleteRangeRequest for one key."""
    return {"key": _text(key)}


def lease_grant_request(lease: int, ttl: int) -> Json:
    """A LeaseGrantRequest."""
    return {"TTL": str(ttl), "ID": str(lease)}


def lease_request(lease: int) -> Json:
    """A LeaseRevokeRequest, a LeaseKeepAliveRequest or a LeaseTimeToLiveRequest."""
    return {"ID": str(lease)}


def watch_request(watch: Watch) -> Json:
    """A WatchRequest that begins a watch."""
    create: dict[str, Any] = {"key": _text(watch.key), "watch_id": str(watch.id)}
    if watch.end:
        create["range_end"] = _text(watch.end)
    if watch.removals_only:
        create["filters"] = ["NOPUT"]
    if watch.before:
        create["prev_kv"] = True
    return {"create_request": create}


def watch_bodies(watches: Iterable[Watch]) -> Iterator[tuple[set[int], bytes]]:
    """Requests that begin watches, so few in each that none is lost; with the watches' ids.

    The gateway answers the first watch of a request while it still reads the others. When it
    has begun to answer, Go's HTTP server throws away what was not read by then, and nobody is
    told. What came with the decoder's first read, of 512 bytes, is safe, and so is a lone watch.
    """
    ids: set[int] = set()
    body = b""
    for watch in watches:
        request = packed(watch_request(watch))
        if ids and len(body) + len(request) > READ_BYTES:
            yield ids, body
            ids, body = set(), b""
        ids.add(watch.id)
        body += request
    if ids:
        yield ids, body


def _operation(operation: Operation) -> Json:
    if isinstance(operation, Get):
        return {"request_range": range_request(operation)}
    if isinstance(operation, Delete):
        return {"request_delete_range": delete_request(operation.key)}
    put = {"key": _text(operation.key), "value": _text(operation.value)}
    if operation.lease:
        put["lease"] = str(operation.lease)
    return {"request_put": put}


def _guard(guard: Guard) -> Json:
    compare = {"key": _text(guard.key)}
    if isinstance(guard, Created):
        compare |= {"result": "LESS", "target": "CREATE"}
        compare["create_revision"] = str(guard.up_to + 1)
        if guard.end:
            compare["range_end"] = _text(guard.end)
        return compare
    compare |= {"result": "EQUAL", "target": "MOD", "mod_revision": str(guard.modified)}
    return compare


def _text(value: bytes) -> str:
    return b64encode(value).decode()


# -- reading ---------------------------------------------------------------


def parsed(body: bytes) -> Json:
    """The body of a reply, or a line of a stream."""
    try:
        message = json.loads(body)
    except ValueError as error:
        raise ProtocolError("etcd: a reply is not JSON") from error
    if not isinstance(message, dict):
        raise ProtocolError("etcd: a reply is no JSON object")
    return message


def txn_reply(message: Json) -> Outcome:
    """A TxnResponse."""
    found = tuple(
        range_reply(each["response_range"]) if "response_range" in each else _NOTHING
        for each in message.get("responses", ())
    )
    return Outcome(message.get("succeeded", False), _revision(message), found)


def range_reply(message: Json) -> Found:
    """A RangeResponse."""
    return Found(message.get("kvs", ()), number(message, "count"), _entry)


def watch_reply(message: Json) -> News:
    """A WatchResponse."""
    return News(
        number(message, "watch_id"),
        message.get("created", False),
        message.get("canceled", False),
        number(message, "compact_revision"),
        message.get("cancel_reason", ""),
        [_change(event) for event in message.get("events", ())],
        _revision(message),
    )


def number(message: Json, name: str) -> int:
    """A number, which may come as text, and is 0 if it is left out."""
    try:
        return int(message.get(name, 0))
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"etcd: {name!r} in a reply is no number") from error


def refused(status: int, body: bytes, where: str) -> tuple[TenureError, str]:
    """The error for a reply that is none of success, and etcd's own words for it."""
    try:
        message = parsed(body.partition(b"\n")[0])
    except ProtocolError:
        # A proxy's own page. What stands behind it may have got the request.
        if status >= 500:
            return OutcomeUnknown(f"{where}: HTTP status {status}"), ""
        return ProtocolError(f"{where}: HTTP status {status}, and no JSON"), ""
    # On a stream the error is an object of its own, elsewhere the text.
    inner = message.get("error")
    if isinstance(inner, dict):
        message = inner
    text = str(message.get("message") or message.get("error") or f"HTTP status {status}")
    code = message.get("code", message.get("grpc_code"))
    return refusal(code if isinstance(code, int) else UNKNOWN, text, where), text


def news(line: bytes, where: str) -> News:
    """One line of a stream of watches; one that tells of an error raises it."""
    message = parsed(line)
    result = message.get("result")
    if not isinstance(result, dict):
        raise refused(200, line, where)[0]
    return watch_reply(result)


def _revision(message: Json) -> int:
    return number(message.get("header", {}), "revision")


def _entry(kv: Json) -> Entry:
    return Entry(
        b64decode(kv.get("key", "")),
        b64decode(kv.get("value", "")),
        number(kv, "create_revision"),
        number(kv, "mod_revision"),
        number(kv, "lease"),
    )


def _change(event: Json) -> Change:
    after = _entry(event["kv"]) if "kv" in event else _NO_ENTRY
    before = _entry(event["prev_kv"]) if "prev_kv" in event else None
    return Change(after.key, after.modified, event.get("type") == "DELETE", after.value, before)
