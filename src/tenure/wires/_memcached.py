"""What both memcached wires share: the replies' grammar, the greeting, what errors mean."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from .._url import Host
from ..errors import (
    AuthenticationFailed,
    BackendError,
    OutcomeUnknown,
    ProtocolError,
    StorageError,
    TenureError,
    Unavailable,
    Unsupported,
)
from ._sockets import reason


class Reply(NamedTuple):
    """One reply: its line, and the value if it has one (of `stats`: all its lines)."""

    line: bytes
    value: bytes | None = None

    @property
    def code(self) -> bytes:
        """What happened: HD, VA, EN (not there), NS, EX or NF (not stored), END (statistics)."""
        return self.line.partition(b" ")[0]

    def flag(self, letter: bytes) -> int:
        """The number that the line says after a letter."""
        alone = self.line[4:]
        if alone.isdigit() and self.line[3:4] == letter:  # "HD c12", as most are
            return int(alone)
        for word in self.line.split(b" ")[1:]:
            if word[:1] == letter and word[1:].lstrip(b"-").isdigit():
                return int(word[1:])
        raise ProtocolError(f"memcached: the reply {self.line[:80]!r} lacks {letter.decode()!r}")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a wire must know to connect."""

    host: Host
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    patience: float = 10.0
    connections: int = 64
    """At most so many connections at a time; further calls wait for a free one."""

    @property
    def logs_in(self) -> bool:
        """Whether there is a user name or a password to show."""
        return self.username is not None or self.password is not None

    @property
    def label(self) -> str:
        """What to call the backend in a message."""
        return f"memcached at {self.host}"


class Parser:
    """Takes replies out of a stream of bytes."""

    __slots__ = ("_chunks", "_label", "_missing", "_stats")

    def __init__(self, label: str) -> None:
        self._chunks: list[bytes] = []
        self._missing = 0
        """So many bytes at least are needed before another look is worth while."""
        self._label = label
        self._stats: list[bytes] = []

    def idle(self) -> bool:
        """Whether nothing is left that nobody asked for."""
        return not self._chunks and not self._stats

    def feed(self, data: bytes, replies: list[Reply]) -> None:
        """Append the replies that are complete now. Raises what an error reply means."""
        if self._chunks:
            self._chunks.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._chunks)
        elif data[-2:] == b"\r\n":
            lines = data[:-2].split(b"\r\n")
            if _PLAIN.issuperset([line[:3] for line in lines]):  # whole, and without values
                replies.extend(map(Reply, lines))
                return
        at, size = 0, len(data)
        self._missing = 0
        while at < size:
            end = data.find(b"\r\n", at)
            if end < 0:
                if size - at > _LINE_BYTES_MAX:
                    raise self._odd(data[at : at + 40])
                break
            line = data[at:end]
            head = line[:3]
            after = end + 2
            if head in _PLAIN:
                replies.append(Reply(line))
            elif head == b"VA ":
                number = line.split(b" ", 2)[1]
                if not number.isdigit():
                    raise self._odd(line)
                after += int(number) + 2
                if after > size:
                    self._missing = after - size
                    break
                if data[after - 2 : after] != b"\r\n":
                    raise self._odd(line)
                replies.append(Reply(line, data[end + 2 : after - 2]))
            elif line == b"END":
                replies.append(Reply(line, b"\n".join(self._stats)))
                self._stats = []
            elif line.startswith(b"STAT "):
                self._stats.append(line[5:])
            elif line == b"STORED":  # of the login
                replies.append(Reply(line))
            else:
                raise self._error(line)
            at = after
        self._chunks = [data[at:]] if at < size else []

    def _error(self, line: bytes) -> TenureError:
        text = line.decode(errors="replace")
        if _ERRORS.match(text):
            return translate(text, self._label)
        return self._odd(line)

    def _odd(self, line: bytes) -> ProtocolError:
        return ProtocolError(f"{self._label}: the answer is not in memcached's protocol: {line!r}")


_PLAIN = frozenset((b"HD ", b"HD", b"EN", b"NS ", b"NS", b"EX ", b"EX", b"NF ", b"NF"))
_LINE_BYTES_MAX = 8192
_ERRORS = re.compile(r"(ERROR|CLIENT_ERROR|SERVER_ERROR)\b")


def translate(text: str, label: str) -> TenureError:
    """The exception for an error reply.

    Nothing was stored. What was there is gone, too, if the server found the new item too large.
    """
    message = f"{label}: {text[:200]}"
    if "too large" in text or "out of memory" in text:
        return StorageError(message)
    if "authenticat" in text:
        return AuthenticationFailed(f"{label}: the server asks for a user name and password")
    if "oo many open connections" in text:
        return Unavailable(message)
    if text == "ERROR":
        return Unsupported(f"{label}: the server is older than memcached 1.6, or no memcached")
    return BackendError(message)


INSTANCE_KEY = b"tenure!instance"
"""Holds a name that somebody draws when a server has none: it tells its lives apart."""


def greeting(settings: Settings) -> tuple[bytes, int]:
    """The first requests on a connection, and how many replies they get.

    Who logs in does so first. Then: which life of the server is this, and how large may
    an item be?
    """
    packed = b""
    if settings.logs_in:
        login = f"{settings.username or ''} {settings.password or ''}".encode()
        packed = b"set tenure 0 0 %d\r\n%b\r\n" % (len(login), login)
    drawn = os.urandom(8).hex().encode()
    asked = b"ms %b 16 ME\r\n%b\r\nmg %b v\r\nstats settings\r\n"
    return packed + asked % (INSTANCE_KEY, drawn, INSTANCE_KEY), 4 if packed else 3


class Greeted(NamedTuple):
    """What the server said of itself."""

    instance: bytes
    item_bytes_max: int


def read_greeting(replies: list[Reply], label: str) -> Greeted:
    """Make sense of the replies to a greeting."""
    found, listed = replies[-2], statistics(replies[-1])
    if found.value is None:
        raise Unavailable(f"{label}: the server cannot keep a single item: it has no memory left")
    if not listed.get("item_size_max", "").isdigit():
        raise ProtocolError(f"{label}: the server does not say its item_size_max")
    if listed.get("cas_enabled") == "no":
        raise Unsupported(f"{label}: the server runs with -C, without compare-and-set")
    return Greeted(found.value, int(listed["item_size_max"]))


def statistics(reply: Reply) -> dict[str, str]:
    """What a `stats` command lists."""
    lines = (reply.value or b"").decode(errors="replace").split("\n")
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def unreached(error: Exception, label: str) -> TenureError:
    """The exception for a connection that could not be made."""
    return Unavailable(f"{label}: cannot connect: {reason(error)}")


def unsent(error: Exception, label: str) -> TenureError:
    """The exception for requests of which the server got nothing."""
    return Unavailable(f"{label}: sending failed: {reason(error)}")


def unanswered(error: Exception, label: str) -> TenureError:
    """The exception for requests that were sent, at least in part, and got no reply."""
    return OutcomeUnknown(f"{label}: no reply: {reason(error)}")
