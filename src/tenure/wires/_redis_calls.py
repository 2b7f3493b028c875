"""What goes over a Redis connection: scripts, commands, and the connection's own verbs."""

from __future__ import annotations

import hashlib
from typing import Protocol

from ..errors import Unavailable
from ._redis import Reply, Word, pack


class Script:
    """A Lua script, and how a call of it begins on the wire."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        # SHA-1 is Redis' name for a script, and protects nothing here.
        self.digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def begin(self, *words: Word, more: int) -> bytes:
        """A packed call with these words, of which so `more` are still to follow."""
        packed = pack((b"EVALSHA", self.digest, *words))
        return b"*%d\r\n%b" % (2 + len(words) + more, packed.partition(b"\r\n")[2])


def packed_command(*words: Word) -> bytes:
    """A command as it goes over the wire."""
    return pack(words)


def word(data: bytes) -> bytes:
    """One packed word, to follow what `Script.begin` has begun."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


class ScriptMissing(Unavailable):
    """The server does not know the script; nothing was carried out."""


class Link(Protocol):
    """One connection. Whoever uses it has it alone."""

    def usable(self) -> bool:
        """Say whether the idle connection still looks alive."""
        ...

    async def call(self, packed: bytes) -> Reply:
        """Send a command and return its reply. After an error the link must be dropped."""
        ...

    async def call_within(self, packed: bytes, patience: float) -> Reply:
        """The same, with another patience than the wire's own."""
        ...

    async def series(self, packed: bytes, count: int, patience: float) -> list[Reply]:
        """The same with several commands; returns as many replies."""
        ...

    async def send(self, packed: bytes, patience: float) -> None:
        """Send a command whose reply `receive` will return."""
        ...

    async def receive(self, patience: float) -> Reply:
        """The next reply, or `MORE` if none came in so many seconds."""
        ...

    def hang_up(self) -> None:
        """End the connection from outside, so that whoever waits on it gets an error."""
        ...

    def drop(self) -> None:
        """Close the connection."""
        ...

    def abandon(self) -> None:
        """In a forked child: close the descriptor, and say nothing to the server."""
        ...
