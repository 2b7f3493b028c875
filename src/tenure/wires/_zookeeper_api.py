"""What the ZooKeeper driver asks of a session, whatever client library carries it out.

Requests are asked for without waiting: each returns a `Reply` at once. ZooKeeper carries
out the requests of a session in the order in which they were asked for, so several that
are under way cost one round trip, and to wait for the last is to wait for all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

Watcher: TypeAlias = Callable[[bool], None]
"""Called once, on a thread of the library's, when what is watched may have changed; with True
if it is known to be gone."""


class Stat(NamedTuple):
    """What ZooKeeper knows of a node.

    `born` is the number of the transaction that created it, `version` counts the writes of
    its data since, `modified` is the time of the last in milliseconds, by the server's clock.
    """

    born: int
    version: int
    children: int
    modified: int


class Refused(Exception):
    """The server answered, and did nothing, since the nodes are not as the request wants them."""


class NoNode(Refused):
    """There is no such node."""


class NodeExists(Refused):
    """There is such a node already."""


class BadVersion(Refused):
    """The node was written in between."""


class NotEmpty(Refused):
    """The node has children."""


class Reply:
    """An answer that may not be there yet; set once, by a thread of the library's.

    It has what kazoo wants of its own asynchronous results, but calls back on the thread
    that sets it, where kazoo's would pass through the queue of another.
    """

    __slots__ = ("_calls", "_done", "_lock", "exception", "value")

    def __init__(self) -> None:
        self._calls: list[Callable[[Reply], object]] = []
        self._done = False
        self._lock = threading.Lock()
        self.exception: Exception | None = None
        self.value: Any = None

    def set(self, value: Any = None) -> None:
        """The answer has come."""
        self._set(value, None)

    def set_exception(self, exception: Exception) -> None:
        """The request has failed."""
        self._set(None, exception)

    def _set(self, value: Any, exception: Exception | None) -> None:
        with self._lock:
            if self._done:
                return
            self.value, self.exception = value, exception
            self._done = True
            calls, self._calls = self._calls, []
        for call in calls:
            call(self)

    def rawlink(self, call: Callable[[Reply], object]) -> None:
        """Call when it is set, or now if it is."""
        with self._lock:
            if not self._done:
                self._calls.append(call)
                return
        call(self)

    def ready(self) -> bool:
        """Whether it is set."""
        return self._done

    def successful(self) -> bool:
        """Whether it is set, and to a value."""
        return self._done and self.exception is None

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The value, or the error is raised; only for what is set."""
        assert self._done, "an answer was taken before it came"
        if self.exception is not None:
            raise self.exception
        return self.value


class Place(NamedTuple):
    """A server: its name as the URL has it, and its address."""

    name: str
    address: str
    port: int


class Link(Protocol):
    """One session at ZooKeeper, with the connection that it has at the moment."""

    id: str
    """The session's number, in hexadecimal digits; empty until there is one."""
    timeout: float
    """For how many seconds the server keeps the session without hearing of it."""
    place: Place
    """Where the connection leads to, or has led to last."""

    def over(self) -> str | None:
        """Why the session is dead; None if it is not, as far as is known."""
        ...

    def connected(self) -> bool:
        """Whether there is a connection now."""
        ...

    def problem(self) -> str:
        """What the last attempt to connect ran into."""
        ...

    def open(self) -> Reply:
        """Begin to connect; set when the session has begun, or the first attempt failed."""
        ...

    def close(self) -> Reply:
        """End the session, and tell the server so; set when nothing of it is left here."""
        ...

    def discard(self) -> Reply:
        """Drop the connection without a word to the server, and use the session no more."""
        ...

    def drop(self) -> None:
        """Drop the connection; the session goes on with another one."""
        ...

    def end(self, reason: str) -> None:
        """The session is dead: tell so, and end it at the server as well. Never waits."""
        ...

    def abandon(self) -> None:
        """In a forked child: close the descriptors and do nothing else."""
        ...

    def adopt(self, until: float, lost: Callable[[str], None]) -> None:
        """Let the session live until then, however the library renews it, and tell its end."""
        ...

    def alive_until(self, until: float) -> None:
        """The same again, for later."""
        ...

    def on_connection(self, call: Callable[[], None]) -> None:
        """Call whenever the session has a new connection, or is dead: no watch is left then."""
        ...

    def create(self, path: str, data: bytes, *, own: bool = False, numbered: bool = False) -> Reply:
        """Create a node: `own`, one that ends with the session; `numbered`, with a number
        behind its name. The value is its path."""
        ...

    def folder(self, path: str) -> Reply:
        """Create a node for others to be created in, which the server removes when it has had
        some and is empty, if the server can."""
        ...

    def ground(self, path: str) -> Reply:
        """Create a node that stays for ever, in which every user may create something."""
        ...

    def children(self, path: str, watch: Watcher | None = None) -> Reply:
        """The names of its children, and its `Stat`; `watch` is called when one comes or goes."""
        ...

    def get(self, path: str, watch: Watcher | None = None) -> Reply:
        """A node's data and `Stat`; `watch` is called when it goes, or is written."""
        ...

    def exists(self, path: str, watch: Watcher | None = None) -> Reply:
        """A node's `Stat`, or None; `watch` is called when it comes, goes, or is written."""
        ...

    def set(self, path: str, data: bytes, version: int = -1) -> Reply:
        """Write a node's data, if it is still that version."""
        ...

    def delete(self, path: str) -> Reply:
        """Remove a node."""
        ...

    def sync(self, path: str) -> Reply:
        """Have what is read next be as new as what the leader knows now."""
        ...

    def all(self, *steps: tuple[Any, ...]) -> Reply:
        """Do all of these at once, or nothing: ("create", path, data), ("check", path, version),
        ("set", path, data, version), ("delete", path, version)."""
        ...


class Settings(NamedTuple):
    """How to reach the ensemble. The password shows in no `repr`."""

    hosts: str
    patience: float
    ttl: float
    now: Callable[[], float]
    """The clock that goes on while the machine is suspended."""
    credentials: tuple[str, str] | None = None
    sasl: bool = False
    tls: bool = False
    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    verify: bool = True

    def __repr__(self) -> str:
        return f"Settings({self.hosts})"
