"""Capabilities: whatever Tooz's members publish, as JSON that other clients of Tenure can read.

A value that JSON has is itself. One that it lacks (bytes, sets, times, keys that are no text)
becomes an object whose key `__tooz__` names its type, and comes back as what it was. A tuple
comes back as a list, unless it is in a set or a key, where no list can be.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import math
import uuid
from collections.abc import Callable
from typing import Any

KEY = "__tooz__"
DEPTH_MAX = 100

_READ: dict[str, Callable[[Any], Any]] = {
    "bytes": lambda text: base64.b64decode(text, validate=True),
    "set": lambda items: set(map(decode, items)),
    "frozenset": lambda items: frozenset(map(decode, items)),
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "uuid": uuid.UUID,
    "float": float,
    "tuple": lambda items: tuple(map(decode, items)),
    "dict": lambda pairs: {decode(key): decode(value) for key, value in pairs},
}


def encode(value: Any, depth: int = 0) -> Any:
    """The value in JSON's types. `TypeError` or `ValueError` for one that cannot be."""
    if depth > DEPTH_MAX:
        raise ValueError(f"nested more than {DEPTH_MAX} deep, or in itself")
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _tagged("float", repr(value))
    if isinstance(value, list | tuple):
        return [encode(each, depth + 1) for each in value]
    if isinstance(value, dict):
        if KEY not in value and all(isinstance(key, str) for key in value):
            return {key: encode(each, depth + 1) for key, each in value.items()}
        pairs = value.items()
        return _tagged("dict", [[_member(k, depth + 1), encode(v, depth + 1)] for k, v in pairs])
    if isinstance(value, set | frozenset):
        kind = "set" if isinstance(value, set) else "frozenset"
        return _tagged(kind, [_member(each, depth + 1) for each in value])
    if isinstance(value, bytes | bytearray):
        return _tagged("bytes", base64.b64encode(value).decode("ascii"))
    if isinstance(value, dt.date):  # a datetime is one, too
        kind = "datetime" if isinstance(value, dt.datetime) else "date"
        return _tagged(kind, value.isoformat())
    if isinstance(value, uuid.UUID):
        return _tagged("uuid", str(value))
    raise TypeError(f"no way to write down a {type(value).__name__}")


def decode(value: Any) -> Any:
    """What was encoded. What has the key, but was written by somebody else, stays as it is."""
    if isinstance(value, dict):
        if KEY in value and len(value) == 2 and "value" in value:
            read = _READ.get(value[KEY]) if isinstance(value[KEY], str) else None
            if read is not None:
                with contextlib.suppress(TypeError, ValueError):
                    return read(value["value"])
        return {key: decode(each) for key, each in value.items()}
    if isinstance(value, list):
        return [decode(each) for each in value]
    return value


def _member(value: Any, depth: int) -> Any:
    """What is in a set, or a key."""
    if isinstance(value, tuple):
        return _tagged("tuple", [_member(each, depth + 1) for each in value])
    return encode(value, depth)


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    return {KEY: kind, "value": value}
