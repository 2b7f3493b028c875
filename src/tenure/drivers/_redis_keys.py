"""The keys of one namespace on Redis, and the search for those that are there."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..wires.redis import Reply, Wire
from ._redis_replies import checked, listed, text_of, utf8
from ._redis_url import escape

Sift = Callable[[list[bytes]], Awaitable[list[bytes]]]


class Keys:
    """Names every key. All of them have the namespace as their hash tag: one slot of a cluster."""

    def __init__(self, namespace: str) -> None:
        self.tag = escape(namespace).encode()
        self.prefix = b"tenure:{%b}:" % self.tag
        self.counter = self.prefix + b"n"

    def of_session(self, session: str) -> bytes:
        """Where a session's owner is kept; it expires with the session."""
        return self.prefix + b"s:" + utf8(session)

    def of_roster(self, roster: str) -> bytes:
        """The claims of a roster, by their tokens."""
        return self.prefix + b"r:" + utf8(roster)

    def of_vote(self, lock: str) -> bytes:
        """What a master of redlock has voted for."""
        return self.prefix + b"m:" + utf8(lock)

    def of_bodies(self, roster: str) -> bytes:
        """The bodies of a roster's public claims."""
        return self.prefix + b"b:" + utf8(roster)

    def of_record(self, name: str) -> bytes:
        """A record with its version."""
        return self.prefix + b"d:" + utf8(name)

    def of_channel(self, name: str) -> bytes:
        """Where the watchers of a roster are told of changes."""
        return self.prefix + b"c:" + utf8(name)

    def of_mailbox(self, mailbox: str) -> bytes:
        """Where a client is told that its claims have moved up."""
        return self.prefix + b"w:" + mailbox.encode()

    async def names(
        self, wire: Wire[Any], start: bytes, prefix: str, sift: Sift | None = None
    ) -> Sequence[str]:
        """The names, sorted, of keys that begin so, and with the prefix; those sifted out.

        `start` is the key of an empty name.
        """
        pattern = _literal(start + utf8(prefix)) + b"*"
        found: set[bytes] = set()
        cursor: Reply = b"0"
        while True:
            words = (b"SCAN", checked(cursor, bytes), b"MATCH", pattern, b"COUNT", 1000)
            cursor, keys = listed(await wire.command(*words), 2)
            new = sorted(set(listed(keys)) - found)
            found.update(await sift(new) if sift is not None and new else new)
            if cursor == b"0":
                return sorted(text_of(key[len(start) :]) for key in found)


def _literal(text: bytes) -> bytes:
    """The text as a glob that matches nothing else."""
    return re.sub(rb"([*?\[\]\\^-])", rb"\\\1", text)
