"""What both Redis wires share: where to connect, the greeting, and what errors mean."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

import hiredis

from .._url import Host
from ..errors import (
    AuthenticationFailed,
    BackendError,
    InvalidURL,
    OutcomeUnknown,
    ProtocolError,
    StorageError,
    TenureError,
    Unavailable,
    Unsupported,
)
from ._sockets import Tls, reason

Reply = bytes | int | None | Sequence["Reply"] | hiredis.ReplyError
Word = bytes | str | int

pack: Callable[[tuple[Word, ...]], bytes] = cast("Any", hiredis.pack_command)
"""A command as it goes over the wire."""

MORE: Final[Any] = object()
"""What the parser answers while a reply is incomplete."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a wire must know to connect."""

    hosts: tuple[Host, ...]
    """The server, or the sentinels where `service` is given; none for a socket file."""
    path: str = ""
    service: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: Tls | None = None
    patience: float = 10.0
    slot: int | None = None
    """The only slot that is asked for, if the hosts are nodes of a cluster."""
    connections: int = 64
    """At most so many connections at a time; further calls wait for a free one."""

    @property
    def label(self) -> str:
        """What to call the backend in a message."""
        if self.service:
            return f"redis master {self.service!r}"
        if self.slot is not None:
            return f"redis cluster at {','.join(map(str, self.hosts))}"
        return f"redis at {self.path or ','.join(map(str, self.hosts))}"


def hello(username: str | None, password: str | None) -> bytes:
    """The first command on a connection: it authenticates, and asks what answers there."""
    words: list[Word] = [b"HELLO", 2]
    if username is not None or password is not None:
        words += [b"AUTH", username or "default", password or ""]
    return pack((*words, b"SETNAME", b"tenure"))


class Told(NamedTuple):
    """What a server says of itself in its greeting."""

    product: str
    version: str


def check_hello(reply: Reply, settings: Settings, *, guide: bool) -> Told:
    """See that a usable server answered. An error is not quoted: it may echo a secret.

    guide: it is only asked for the way: a sentinel, or any node of a cluster.
    """
    label, sentinel = settings.label, guide and bool(settings.service)
    if isinstance(reply, hiredis.ReplyError):
        text = str(reply)
        if text.startswith("ERR unknown command"):
            raise Unsupported(f"{label}: the server is older than Redis 6.0")
        raise type(translate(text, label))(f"{label}: {_refusal(text)}")
    if not isinstance(reply, list):
        raise ProtocolError(f"{label}: the greeting was not answered in Redis' protocol")
    facts = dict(zip(reply[::2], reply[1::2], strict=False))
    mode = facts.get(b"mode")
    if sentinel != (mode == b"sentinel"):
        raise InvalidURL(
            f"{label}: this is not a sentinel; for a server itself write redis://"
            if sentinel
            else f"{label}: this is a sentinel; write redis+sentinel://host:port/service"
        )
    named = settings.service or settings.slot is not None
    if not sentinel and (mode == b"cluster") != (settings.slot is not None):
        raise InvalidURL(
            f"{label}: this is a cluster; write redis+cluster://host:port,host:port"
            if settings.slot is None
            else f"{label}: this is no cluster; for a server alone write redis://"
        )
    if named and not guide and facts.get(b"role") != b"master":
        raise Unavailable(f"{label}: the server that was named is no master (yet)")
    return Told(_text(facts, b"server") or "redis", _text(facts, b"version"))


def _text(facts: Mapping[Any, Any], name: bytes) -> str:
    value = facts.get(name)
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def translate(text: str, label: str) -> TenureError:
    """The exception for an error reply. No command that got one was carried out."""
    code = text.partition(" ")[0]
    if code == "ERR" and (inside := _INSIDE_SCRIPT.search(text)):
        code = inside[1]  # how Redis 6 reports a command that failed within a script
    message = f"{label}: {text}"
    if code in _NOT_NOW or text.startswith("ERR max number of clients"):
        return Unavailable(message)
    if code in {"NOAUTH", "WRONGPASS", "NOPERM"} or _BAD_LOGIN.match(text) or _NO_RIGHT in text:
        return AuthenticationFailed(message)
    if code in {"OOM", "MISCONF"}:
        return StorageError(message)
    if _BEING_MOVED in text:
        return OutcomeUnknown(f"{label}: the slot is being moved to another node: {text}")
    return BackendError(message)


_INSIDE_SCRIPT = re.compile(r"Error running script.*?-([A-Z]+) ", re.DOTALL)
_BAD_LOGIN = re.compile(r"ERR (invalid password|AUTH |Client sent AUTH)")
_NO_RIGHT = "The user executing the script can't "
_NOT_NOW = frozenset(
    {
        *("LOADING", "READONLY", "MASTERDOWN", "BUSY", "NOREPLICAS"),
        *("TRYAGAIN", "CLUSTERDOWN", "MOVED", "ASK"),
    }
)
_BEING_MOVED = "non local key in a cluster node"
STALE = frozenset({"READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN"})
"""Error codes after which every connection should be made anew: the master has moved."""


def _refusal(text: str) -> str:
    code = text.partition(" ")[0]
    if code == "NOAUTH":
        return "the server asks for a password"
    if code == "WRONGPASS" or _BAD_LOGIN.match(text):
        return "the user name or password is wrong"
    return f"the greeting was refused ({code})"


def bad_database(text: str, settings: Settings) -> TenureError:
    """The exception for a refused SELECT."""
    if text.startswith("ERR"):
        return InvalidURL(f"{settings.label}: there is no database {settings.database}: {text}")
    return translate(text, settings.label)


def unreached(error: Exception, label: str) -> TenureError:
    """The exception for a connection that could not be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return AuthenticationFailed(f"{label}: the server's certificate: {error.verify_message}")
    return Unavailable(f"{label}: cannot connect: {reason(error)}")


def unsent(error: Exception, label: str) -> TenureError:
    """The exception for a command of which the server cannot have got the end."""
    return Unavailable(f"{label}: sending failed: {reason(error)}")


def unanswered(error: Exception, label: str) -> TenureError:
    """The exception for a command that was sent and got no usable reply."""
    if isinstance(error, hiredis.ProtocolError):
        return ProtocolError(f"{label}: the answer is not in Redis' protocol ({error})")
    return OutcomeUnknown(f"{label}: no reply: {reason(error)}")
