"""What both HTTP wires share: where to connect, how a reply is read, and what errors mean."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .._url import Host
from ..errors import (
    AuthenticationFailed,
    InvalidURL,
    OutcomeUnknown,
    ProtocolError,
    TenureError,
    Unavailable,
)
from ._sockets import Tls, reason

_HEAD_MAX = 1 << 16
_BODY_MAX = 1 << 28
_HEAD, _LENGTH, _SIZE, _CHUNK, _CHUNK_END, _TRAILER, _UNTIL_CLOSED, _DONE = range(8)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a wire must know to connect."""

    hosts: tuple[Host, ...]
    """The servers, with their ports. Any of them will do; the first is tried first."""
    name: str = "http"
    """What to call the backend in a message."""
    tls: Tls | None = None
    patience: float = 10.0
    connections: int = 64
    """At most so many pooled connections; further calls wait for a free one."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request. They may hold a secret, and are never shown."""

    def label(self, host: Host) -> str:
        """What to call one server in a message."""
        return f"{self.name} at {host}"


class Reply(NamedTuple):
    """A whole reply; the names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Reader:
    """Takes the bytes of one reply after the other apart. Wrong ones raise `ValueError`.

    `status` is 0 until the head is complete, `done` says whether the body is.
    """

    __slots__ = ("_left", "_parts", "_raw", "_size", "_step", "done", "headers", "lasts", "status")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Await a new reply."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.done = False
        self.lasts = True
        """Whether the connection may carry another request."""
        self._step = _HEAD
        self._left = 0
        self._size = 0
        self._raw = b""
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take in what has arrived."""
        raw = self._raw + data if self._raw else data
        while raw:
            step = self._step
            if step in (_LENGTH, _CHUNK):
                part = raw[: self._left]
                self._add(part)
                raw = raw[len(part) :]
                self._left -= len(part)
                if not self._left:
                    self._step = _DONE if step == _LENGTH else _CHUNK_END
                    self.done = step == _LENGTH
            elif step == _UNTIL_CLOSED:
                self._add(raw)
                raw = b""
            elif step == _DONE:
                raise ValueError("more bytes than one reply has")
            else:
                end = b"\r\n\r\n" if step == _HEAD else b"\r\n"
                at = raw.find(end)
                if at < 0:
                    if len(raw) > _HEAD_MAX:
                        raise ValueError("a head or a line without end")
                    break
                line, raw = raw[:at], raw[at + len(end) :]
                self._line(line)
        self._raw = raw

    def end(self) -> bool:
        """The connection was closed: say whether that was the proper end of the reply."""
        self.lasts = False
        if self._step == _UNTIL_CLOSED:
            self._step, self.done = _DONE, True
        return self.done

    def take(self) -> bytes:
        """The part of the body that has arrived since the last call."""
        parts, self._parts, self._size = self._parts, [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def whole(self) -> Reply:
        """The complete reply."""
        return Reply(self.status, self.headers, self.take())

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > _BODY_MAX:
            raise ValueError(f"a body of more than {_BODY_MAX} bytes")
        self._parts.append(part)

    def _line(self, line: bytes) -> None:
        step = self._step
        if step == _HEAD:
            self._begin(line.decode("latin-1"))
        elif step == _SIZE:
            self._left = _number(line.partition(b";")[0].strip(), 16)
            self._step = _CHUNK if self._left else _TRAILER
        elif step == _CHUNK_END:
            if line:
                raise ValueError("a chunk that is longer than it says")
            self._step = _SIZE
        elif not line:  # the end of the trailer
            self._step, self.done = _DONE, True

    def _begin(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        version, _, rest = first.partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
            raise ValueError("a first line that is not HTTP's")
        status = int(rest[:3])
        if 100 <= status < 200 and status != 101:
            return  # an interim reply; the real one follows
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self.status, self.headers = status, headers
        connection = headers.get("connection", "").lower()
        self.lasts = "keep-alive" in connection or (
            version == "HTTP/1.1" and "close" not in connection
        )
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if status in (204, 304):
            self._step, self.done = _DONE, True
        elif coding is not None:
            if coding.lower() != "chunked":
                raise ValueError(f"a transfer coding that was not asked for, {coding!r}")
            self._step = _SIZE
        elif length is not None:
            self._left = _number(length.encode("latin-1"), 10)
            self._step, self.done = (_LENGTH, False) if self._left else (_DONE, True)
        else:
            self._step = _UNTIL_CLOSED


def _number(text: bytes, base: int) -> int:
    if not text.isalnum():  # int() takes signs, blanks and underscores, too
        raise ValueError("a length that is no number")
    return int(text, base)


def header_lines(headers: Mapping[str, str]) -> str:
    """Headers as they go over the wire; `InvalidURL` if one cannot, without showing it."""
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            raise InvalidURL(f"the value for the header {name} must be printable ASCII text")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def unreached(error: Exception, label: str) -> TenureError:
    """The exception for a connection that could not be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return AuthenticationFailed(
            f"{label}: the server's certificate: {error.verify_message}; "
            "the option 'ca' names the authority to trust"
        )
    return Unavailable(f"{label}: cannot connect: {reason(error)}")


def unsent(error: Exception, label: str) -> TenureError:
    """The exception for a request of which the server cannot have got the end."""
    return Unavailable(f"{label}: sending failed: {reason(error)}")


def unanswered(error: Exception, label: str) -> TenureError:
    """The exception for a request that was sent and got no usable reply."""
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return ProtocolError(f"{label}: the answer is not HTTP: {error}")
    return OutcomeUnknown(f"{label}: no reply: {reason(error)}")


def tune(raw: socket.socket) -> None:
    """Send at once, and let the kernel notice a server that vanished while nothing is said."""
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 2)):
        option = getattr(socket, name, None)  # not every platform has all of them
        if option is not None:
            raw.setsockopt(socket.IPPROTO_TCP, option, value)
