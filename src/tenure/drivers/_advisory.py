"""The native mutex of the PostgreSQL driver: advisory locks on a session's connections."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Protocol

from .._model import Holder, Taken
from .._runtime.base import Runtime
from ..wires.links import Row
from ..wires.postgresql import Link
from . import _serverlocks
from ._serverlocks import ServerLocks, Values

_ESCAPE = "\x10"


def key(kind: str, *parts: str) -> int:
    """What stands for something else than a lock: 64 bits of a hash, signed.

    As an advisory lock it is two integers, a space that no lock's key is in.
    """
    hash = blake2b(kind.encode(), digest_size=8)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hash.update(b"%d:%b" % (len(data), data))
    return int.from_bytes(hash.digest(), "big", signed=True)


def escaped(text: str) -> str:
    """The text without NUL, which the server cannot keep."""
    if "\0" in text or _ESCAPE in text:
        return text.replace(_ESCAPE, _ESCAPE + _ESCAPE).replace("\0", _ESCAPE + "0")
    return text


def plain(text: str) -> str:
    """The text that was escaped."""
    if _ESCAPE in text:
        parts = text.split(_ESCAPE + _ESCAPE)
        return _ESCAPE.join(part.replace(_ESCAPE + "0", "\0") for part in parts)
    return text


def halves(key: int) -> tuple[int, int]:
    """The key as the two integers that advisory locks take."""
    low = key & 0xFFFFFFFF
    return key >> 32, low - (1 << 32) if low >> 31 else low


class Connections(_serverlocks.Connections, Protocol):
    """What the locks need of the driver."""

    async def questions(self) -> Link: ...

    async def locks(self) -> list[Row]: ...


class AdvisoryLocks(ServerLocks):
    """The native mutex: `pg_advisory_lock` on 64 bits of a hash of the name."""

    SEIZE, SHARE, SHARE_AGAIN = b"seize", b"share", b"share_again"
    QUEUE, QUEUE_SHARED = b"queue", b"queue_shared"
    FREE, FREE_SHARED, FREED = b"free", b"free_shared", b"t"

    def __init__(self, driver: Connections, runtime: Runtime, namespace: str) -> None:
        super().__init__(driver, runtime)
        self._driver = driver
        # The length keeps the namespace "a" with "bc" apart from "ab" with "c".
        space = namespace.encode()
        self._hash = blake2b(b"%d:%b" % (len(space), space), digest_size=8)

    def _values(self, name: str) -> Values:
        hash = self._hash.copy()
        hash.update(name.encode())
        return (b"%d" % int.from_bytes(hash.digest(), "big", signed=True),)

    async def holder(self, name: str) -> Holder | None:
        link = await self._driver.questions()
        application = await link.call(b"holder", self._key(name), b"")
        return None if application is None else _holder(application)

    async def taken(self) -> Sequence[Taken]:
        """All locks of the namespace that are held. The server knows keys; a name is known
        once somebody has held it for a third of a TTL, or two."""
        found: list[Taken] = []
        for _, rows in groupby(await self._driver.locks(), lambda row: row[0]):
            every = list(rows)
            holders = tuple(_holder(row[3] or b"") for row in every if row[1] == b"t")
            if holders:
                shared = any(row[1] == b"t" and row[2] == b"t" for row in every)
                name = None if every[0][4] is None else plain(every[0][4].decode())
                found.append(Taken(name, holders, len(every) - len(holders), shared))
        return sorted(found, key=lambda each: (each.name is None, each.name or ""))


def _holder(application: bytes) -> Holder:
    return Holder(application.decode(errors="replace").removeprefix("tenure:"))
