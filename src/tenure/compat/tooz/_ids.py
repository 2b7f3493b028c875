"""Ids: Tooz's are bytes, or text for short; Tenure's are text.

Bytes that are UTF-8 are that text, so that other clients of Tenure find the group, the member
and the lock under the name that they read. What no text can be is written in hexadecimal
behind a mark, and so is the text that begins with the mark: no two ids share a name.
"""

from __future__ import annotations

from ._errors import InvalidOption

Id = bytes | str

MARK = "tooz-bytes:"


def name_of(id: Id) -> str:
    """What an id is called in Tenure. `InvalidOption` if it is no id."""
    if isinstance(id, bytes):
        try:
            name = id.decode()
        except UnicodeDecodeError:
            return MARK + id.hex()
    elif isinstance(id, str):
        name = id
    else:
        raise InvalidOption(f"an id is bytes or text, not {type(id).__name__}")
    return MARK + to_bytes(name).hex() if name.startswith(MARK) else name


def id_of(name: str) -> bytes:
    """The id that has this name."""
    if name.startswith(MARK):
        digits = name.removeprefix(MARK)
        try:
            id = bytes.fromhex(digits)
        except ValueError:
            pass
        else:
            if name_of(id) == name:
                return id
    return name.encode()


def to_bytes(id: Id) -> bytes:
    """An id as bytes. `InvalidOption` if it is no id."""
    if isinstance(id, bytes):
        return id
    if not isinstance(id, str):
        raise InvalidOption(f"an id is bytes or text, not {type(id).__name__}")
    try:
        return id.encode()
    except UnicodeEncodeError as error:
        raise InvalidOption(f"the id {id[:40]!r} cannot be encoded: {error.reason}") from None
