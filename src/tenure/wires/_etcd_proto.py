"""The part of etcd's protobuf messages that Tenure uses, written and read by hand.

Field numbers are those of etcd's rpc.proto and kv.proto, which etcd never reuses.
Zero values are left out on writing and assumed on reading, as proto3 has it; fields
that are not known are skipped. Bytes that do not parse raise `ProtocolError`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ProtocolError
from ._etcd_api import (
    Change,
    Created,
    Entry,
    Found,
    Get,
    Guard,
    News,
    Operation,
    Outcome,
    Put,
    Unwatch,
    Watch,
)

_ORDERS = {"": 0, "oldest": 1, "newest": 2}
_BY_CREATION = 2  # RangeRequest.SortTarget
_LESS, _EQUAL = 2, 0  # Compare.CompareResult
_CREATE, _MOD = 1, 2  # Compare.CompareTarget
_NO_PUTS = 0  # WatchCreateRequest.FilterType


# -- writing ---------------------------------------------------------------


def txn_request(
    guards: Sequence[Guard], then: Sequence[Operation], otherwise: Sequence[Operation]
) -> bytes:
    """A TxnRequest."""
    parts = [_text(1, _guard(guard)) for guard in guards]
    parts += [_text(2, _operation(operation)) for operation in then]
    parts += [_text(3, _operation(operation)) for operation in otherwise]
    return b"".join(parts)


def range_request(get: Get) -> bytes:
    """A RangeRequest."""
    request = _text(1, get.key) + _text(2, get.end) + _number(3, get.limit)
    if get.order:
        request += _number(5, _ORDERS[get.order]) + _number(6, _BY_CREATION)
    return request + _number(8, get.keys_only) + _number(13, get.up_to)


def delete_request(key: bytes) -> bytes:
    """A DeleteRangeRequest for one key."""
    return _text(1, key)


def lease_grant_request(lease: int, ttl: int) -> bytes:
    """A LeaseGrantRequest."""
    return _number(1, ttl) + _number(2, lease)


def lease_request(lease: int) -> bytes:
    """A LeaseRevokeRequest, a LeaseKeepAliveRequest or a LeaseTimeToLiveRequest."""
    return _number(1, lease)


def authenticate_request(name: str, password: str) -> bytes:
    """An AuthenticateRequest."""
    return _text(1, name.encode()) + _text(2, password.encode())


def watch_request(request: Watch | Unwatch) -> bytes:
    """A WatchRequest."""
    if isinstance(request, Unwatch):
        return _text(2, _number(1, request.id))
    create = _text(1, request.key) + _text(2, request.end)
    if request.removals_only:
        create += _text(5, bytes([_NO_PUTS]))  # a repeated enum travels packed
    create += _number(6, request.before)
    return _text(1, create + _number(7, request.id))


def _operation(operation: Operation) -> bytes:
    if isinstance(operation, Get):
        return _text(1, range_request(operation))
    if isinstance(operation, Put):
        put = _text(1, operation.key) + _text(2, operation.value) + _number(3, operation.lease)
        return _text(2, put)
    return _text(3, delete_request(operation.key))


def _guard(guard: Guard) -> bytes:
    if isinstance(guard, Created):
        test = _number(1, _LESS) + _number(2, _CREATE) + _text(3, guard.key)
        return test + _number(5, guard.up_to + 1) + _text(64, guard.end)
    return _number(1, _EQUAL) + _number(2, _MOD) + _text(3, guard.key) + _number(6, guard.modified)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _text(field: int, value: bytes) -> bytes:
    size = len(value)
    if 0 < size < 128 and field < 16:
        return _SMALL[field << 3 | 2] + _SMALL[size] + value
    return _varint(field << 3 | 2) + _varint(size) + value if value else b""


def _varint(value: int) -> bytes:
    if value < 128:
        return _SMALL[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL = [bytes([value]) for value in range(128)]
_NOTHING = Found()
_NO_ENTRY = Entry(b"", b"", 0, 0, 0)


# -- reading ---------------------------------------------------------------

Fields = list[tuple[int, int, bytes]]
"""Each field as its number, its value if it is a number, and its bytes if it has any."""


def txn_reply(data: bytes) -> Outcome:
    """A TxnResponse."""
    revision = succeeded = 0
    found: list[Found] = []
    for field, number, text in _fields(data):
        if field == 1:
            revision = _revision(text)
        elif field == 2:
            succeeded = number
        elif field == 3:
            found.append(_operation_reply(text))
    return Outcome(bool(succeeded), revision, tuple(found))


def range_reply(data: bytes) -> Found:
    """A RangeResponse."""
    rows: list[bytes] = []
    size = 0
    for field, number, text in _fields(data):
        if field == 2:
            rows.append(text)
        elif field == 4:
            size = number
    return Found(rows, size, _entry)


def lease_keepalive_reply(data: bytes) -> int:
    """The TTL in a LeaseKeepAliveResponse, as a signed number."""
    ttl = 0
    for field, number, _ in _fields(data):
        if field == 3:
            ttl = number if number < 1 << 63 else number - (1 << 64)
    return ttl


def lease_time_to_live_reply(data: bytes) -> tuple[int, int]:
    """What a LeaseTimeToLiveResponse says: the seconds left, negative if none, and the TTL."""
    left = granted = 0
    for field, number, _ in _fields(data):
        if field == 3:
            left = number if number < 1 << 63 else number - (1 << 64)
        elif field == 4:
            granted = number
    return left, granted


def authenticate_reply(data: bytes) -> str:
    """The token in an AuthenticateResponse."""
    for field, _, text in _fields(data):
        if field == 2:
            return text.decode("ascii", "replace")
    raise ProtocolError("etcd: an answer to the authentication has no token in it")


def watch_reply(data: bytes) -> News:
    """A WatchResponse."""
    id = created = cancelled = compacted = revision = 0
    reason = ""
    changes: list[Change] = []
    for field, number, text in _fields(data):
        if field == 1:
            revision = _revision(text)
        elif field == 2:
            id = number
        elif field == 3:
            created = number
        elif field == 4:
            cancelled = number
        elif field == 5:
            compacted = number
        elif field == 6:
            reason = text.decode("utf-8", "replace")
        elif field == 11:
            changes.append(_change(text))
    return News(id, bool(created), bool(cancelled), compacted, reason, changes, revision)


def _operation_reply(data: bytes) -> Found:
    for field, _, text in _fields(data):
        if field == 1:
            return range_reply(text)
    return _NOTHING


def _revision(header: bytes) -> int:
    for field, number, _ in _fields(header):
        if field == 3:
            return number
    return 0


def _entry(data: bytes) -> Entry:
    key = value = b""
    created = modified = lease = 0
    for field, number, text in _fields(data):
        if field == 1:
            key = text
        elif field == 2:
            created = number
        elif field == 3:
            modified = number
        elif field == 5:
            value = text
        elif field == 6:
            lease = number
    return Entry(key, value, created, modified, lease)


def _change(data: bytes) -> Change:
    removed = 0
    after, before = _NO_ENTRY, None
    for field, number, text in _fields(data):
        if field == 1:
            removed = number
        elif field == 2:
            after = _entry(text)
        elif field == 3:
            before = _entry(text)
    return Change(after.key, after.modified, bool(removed), after.value, before)


def _fields(data: bytes) -> Fields:
    fields: Fields = []
    at, end = 0, len(data)
    try:
        while at < end:
            tag, at = _read(data, at)
            kind = tag & 7
            if kind == 0:
                number, at = _read(data, at)
                fields.append((tag >> 3, number, b""))
                continue
            if kind == 2:
                size, at = _read(data, at)
            elif kind == 1 or kind == 5:
                size = 8 if kind == 1 else 4
            else:
                raise ProtocolError(f"etcd: a reply has a field of unknown kind {kind}")
            if at + size > end:
                raise ProtocolError("etcd: a reply ends in the middle of a field")
            fields.append((tag >> 3, 0, data[at : at + size]))
            at += size
    except IndexError as error:
        raise ProtocolError("etcd: a reply ends in the middle of a number") from error
    return fields


def _read(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 128:
        return byte, at + 1
    value, shift = byte & 127, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise ProtocolError("etcd: a reply has a number of more than ten bytes")
