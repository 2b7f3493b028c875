"""How things are written on memcached: keys, values, and the requests that carry them.

A key is `tenure:<namespace>:<kind>:<name>`, with whatever memcached does not take in a
key written as in a URL. One that would be longer than 250 bytes has a hash for its name;
then the value says the name, and it is compared.

Every item has a generation in its client flags. It is drawn when the item is made, and
stays through all changes: so whether an item was lost and made again is answered without
its value.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from ..errors import ProtocolError, StorageError
from ..wires.memcached import Reply
from .document import encoded

KEY_BYTES_MAX = 250
COMPRESS_BYTES = 65536
"""Values from this size are compressed: a roster of thousands has to fit in one item."""
INFLATED_BYTES_MAX = 256 << 20
ITEM_OVERHEAD_BYTES = 512
"""More than what memcached adds to a key and a value."""
BATCH = 1000
"""Requests in one write. Small ones only: the replies to them fit in the sockets' buffers."""

T = TypeVar("T")


class Version(NamedTuple):
    """Of an item that is there: the server's life, the item's version and generation.

    `until` is when the embargo on it ends, on the server's clock; 0 if there is none.
    """

    instance: bytes
    cas: int
    generation: int
    until: int = 0


class Absent(NamedTuple):
    """Of a roster or record that is not there."""

    instance: bytes
    until: int = 0


class Key(NamedTuple):
    """A key, and the true name where the key has only its hash."""

    key: bytes
    told: bytes = b""


class Keys:
    """The keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        space = _quoted(namespace)
        self.prefix = b"tenure:%b:" % (space if len(space) <= 100 else _hashed(space))
        self._known: dict[tuple[str, str], Key] = {}

    def of(self, kind: str, name: str) -> Key:
        """The key of a session, a roster or a record."""
        found = self._known.get((kind, name))
        if found is None:
            quoted = _quoted(name)
            key = b"%b%b:%b" % (self.prefix, kind.encode(), quoted)
            found = Key(key)
            if len(key) > KEY_BYTES_MAX:
                found = Key(b"%b%b:%b" % (self.prefix, kind.encode(), _hashed(quoted)), quoted)
            if len(self._known) >= 4096:
                self._known.clear()
            self._known[kind, name] = found
        return found


def _quoted(name: str) -> bytes:
    return quote(name, safe="@/", errors="surrogatepass").encode()


def _hashed(quoted: bytes) -> bytes:
    # "#" is no character of a quoted name, so no name looks like this.
    return b"#" + hashlib.sha256(quoted).hexdigest().encode()


def pack(key: Key, document: Any, until: int = 0) -> bytes:
    """A value: a line with the embargo and the true name, then the document."""
    head = b"%d %b\n" % (until, key.told) if until or key.told else b"\n"
    value = head + encoded(document).encode()
    if len(value) >= COMPRESS_BYTES:
        value = b"z" + zlib.compress(value, 1)
    return value


def unpack(key: Key, value: bytes) -> tuple[Any, int]:
    """The document of a value, and its embargo."""
    try:
        if value[:1] == b"z":
            inflate = zlib.decompressobj()
            value = inflate.decompress(value[1:], INFLATED_BYTES_MAX)
            if not inflate.eof:
                raise ValueError("it does not end")
        head, newline, body = value.partition(b"\n")
        until, _, told = head.partition(b" ")
        if not newline or told != key.told:
            raise ValueError("it is another's" if newline else "it has no head")
        return json.loads(body), int(until or 0)
    except (ValueError, zlib.error) as error:
        raise ProtocolError(
            f"memcached: the item {key.key.decode()!r} was not written by Tenure: {error}"
        ) from error


def add(key: bytes, value: bytes, generation: int, lifetime: int = 0) -> bytes:
    """Store an item if there is none; answered with its version."""
    return b"ms %b %d ME c F%d T%d\r\n%b\r\n" % (key, len(value), generation, lifetime, value)


def swap(key: bytes, value: bytes, version: Version, lifetime: int = 0) -> bytes:
    """Store an item in place of that very version; answered with the new one."""
    return b"ms %b %d C%d c F%d T%d\r\n%b\r\n" % (
        key,
        len(value),
        version.cas,
        version.generation,
        lifetime,
        value,
    )


def check_size(key: bytes, value: bytes, most: int) -> None:
    """Refuse what the server would find too large: it would also drop what is there."""
    size = len(key) + len(value) + ITEM_OVERHEAD_BYTES
    if most and size > most:
        raise StorageError(
            f"memcached: {key.decode()!r} has grown to {size} bytes, and the server takes items "
            f"of at most {most}; start it with a greater -I, such as -I 8m"
        )


def fetched(instance: bytes, reply: Reply) -> Version:
    """The version of an item that was asked for with `v c f`, or `c f`."""
    return Version(instance, reply.flag(b"c"), reply.flag(b"f"))


def batches(items: Sequence[T]) -> list[Sequence[T]]:
    """The items in portions that fit into one write each."""
    return [items[at : at + BATCH] for at in range(0, len(items), BATCH)]
