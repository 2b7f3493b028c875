"""What callers publish: any JSON value, checked before anything is asked of the backend.

What is kept is a copy, read back from the text, so that a value changed afterwards
changes nothing, and everybody sees what the others see.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import InvalidArgument

BYTES_MAX = 64 * 1024
"""How long a published value may be, as JSON in ASCII."""

DEPTH_MAX = 100


def encode(value: Any, what: str) -> str:
    """The value as compact JSON in ASCII; `InvalidArgument` naming the part that cannot be."""
    _check(value, what, 0)
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError as error:  # an integer with more digits than Python converts
        raise InvalidArgument(f"{what} cannot be written as JSON: {error}") from None
    if len(text) > BYTES_MAX:
        raise InvalidArgument(
            f"{what} may have {BYTES_MAX:,} bytes as JSON in ASCII, not {len(text):,}"
        )
    return text


def decode(text: str) -> dict[str, Any] | None:
    """An object that Tenure has written; None if the text is something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _check(value: Any, what: str, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise InvalidArgument(f"{what[:60]}… is nested more than {DEPTH_MAX} deep, or in itself")
    if isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str):
                raise InvalidArgument(f"{what}: the key {key!r} must be text, as in JSON")
            _check_text(key, f"{what}: the key {key!r}")
            _check(each, f"{what}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        for at, each in enumerate(value):
            _check(each, f"{what}[{at}]", depth + 1)
    elif isinstance(value, str):
        _check_text(value, what)
    elif isinstance(value, float):
        if value - value != 0:  # infinite, or not a number
            raise InvalidArgument(f"{what} is {value!r}, which JSON cannot say")
    elif value is not None and not isinstance(value, int):
        raise InvalidArgument(
            f"{what} is of type {type(value).__name__}; it must be None, a bool, a number,"
            f" text, a list or a dict"
        )


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"{what} has a character that UTF-8 cannot encode: {error.reason}"
        ) from None
