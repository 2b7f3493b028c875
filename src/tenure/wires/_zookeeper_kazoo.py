"""A session at ZooKeeper through kazoo, of which only what does not wait is used.

kazoo keeps one connection in a thread of its own, connects again when it is lost, and
answers on that thread. A session that has ended stays dead: kazoo, which would begin
another by itself, is stopped.
"""

from __future__ import annotations

import math
import ssl
import threading
from collections.abc import Callable
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.protocol.connection import ConnectionHandler
from kazoo.protocol.serialization import Create
from kazoo.protocol.states import EventType, KazooState, KeeperState
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL, OPEN_ACL_UNSAFE, make_acl
from kazoo.version import __version__ as VERSION  # noqa: N812 - it is a constant

from ..errors import AuthenticationFailed, InvalidArgument, Unavailable
from ._zookeeper_api import Place, Reply, Settings, Stat, Watcher
from ._zookeeper_handler import Handler, Log

CLIENT = ("kazoo", str(VERSION))
"""The library, and its version."""

_CONTAINER = 4
_MAY_CREATE = make_acl("world", "anyone", read=True, create=True)
_LOST = {
    KeeperState.AUTH_FAILED: "the server refused the credentials",
    KeeperState.EXPIRED_SESSION: "the server has ended the session: it did not hear of it in time",
}


class _Connection(ConnectionHandler):  # type: ignore[misc]
    """Tells what session the server gave, which kazoo keeps to itself."""

    link: KazooLink

    def _connect(self, host: str, hostip: str, port: int) -> tuple[float, float]:
        read_timeout, connect_timeout = super()._connect(host, hostip, port)
        self.link.place = Place(host, hostip, port)
        self.link.given(read_timeout * 1.5 / 1000)
        return read_timeout, connect_timeout


class _CreateContainer(Create):  # type: ignore[misc]
    """A request that kazoo has no name for."""

    type = 19


class KazooLink:
    """`Link` over one `KazooClient`."""

    def __init__(self, settings: Settings, context: ssl.SSLContext | None) -> None:
        self._settings = settings
        handler = self._handler = Handler(settings, context)
        # After a restart of the server there must be time left to renew.
        pause = min(0.5, settings.ttl / 12)
        retry = KazooRetry(max_tries=-1, delay=0.03, max_delay=pause, sleep_func=handler.sleep_func)
        auth, sasl = [], None
        self._acl = OPEN_ACL_UNSAFE
        if settings.credentials is not None:
            user, password = settings.credentials
            self._acl = CREATOR_ALL_ACL
            if settings.sasl:
                sasl = {"mechanism": "DIGEST-MD5", "username": user, "password": password}
            else:
                auth = [("digest", f"{user}:{password}")]
        client = self._client = KazooClient(
            settings.hosts,
            timeout=settings.ttl,
            handler=handler,
            default_acl=self._acl,
            auth_data=auth,
            connection_retry=retry,
            command_retry=retry.copy(),
            logger=Log(),
        )
        made = _Connection(client, retry.copy(), logger=client.logger, sasl_options=sasl)
        made.retry_sleeper.interrupt = lambda: handler.refuses
        made.link = self
        client._connection = made
        client.add_listener(self._state)
        handler.failed = self._failed
        handler.overdue = self._overdue
        self._opened = Reply()
        self._closed: Reply | None = None
        self._connected = False
        self._reason: str | None = None
        self._lock = threading.Lock()
        self._lost: Callable[[str], None] | None = None
        self._listeners: list[Callable[[], None]] = []
        self._containers = True
        self.id = ""
        self.timeout = 0.0
        self.place = Place("", "", 0)

    def __repr__(self) -> str:
        return f"<KazooLink {self.id or 'not connected'}>"

    # -- the session -------------------------------------------------------

    def over(self) -> str | None:
        return self._reason

    def connected(self) -> bool:
        return self._connected

    def problem(self) -> str:
        return self._handler.problem

    def open(self) -> Reply:
        self._client.start_async()
        return self._opened

    def given(self, seconds: float) -> None:
        """The server said how long it keeps the session. On the connection's thread."""
        self.timeout = seconds
        self._handler.problem, self._handler.begins = "", False
        self.id = f"{self._client.client_id[0]:x}" if self._client.client_id else self.id
        ttl = self._settings.ttl
        if seconds < ttl * 0.99:
            text = f"with this server a ttl is at most {seconds:g} s (maxSessionTimeout)"
            self._opened.set_exception(InvalidArgument(f"zookeeper: {text}, not {ttl:g}"))
            self.end(text)
        else:
            self._connected = True
            self._opened.set()
            self._tell()

    def _state(self, state: str) -> None:
        """kazoo's news of the connection. On the connection's thread.

        A new connection is told by `given`, when the user is known to the server.
        """
        if state == KazooState.CONNECTED:
            return
        self._connected = False
        if state == KazooState.LOST:
            known = self._client.client_state
            reason = _LOST.get(known, self._handler.problem or "the server talked rubbish")
            if known == KeeperState.AUTH_FAILED:
                self._opened.set_exception(AuthenticationFailed(f"zookeeper: {reason}"))
            self._opened.set_exception(Unavailable(f"zookeeper: {reason}"))
            self.end(reason)

    def _failed(self) -> None:
        """All hosts were tried once."""
        self._opened.set_exception(Unavailable(f"zookeeper: {self._handler.problem}"))

    def _overdue(self) -> None:
        """Nobody has renewed the session. On the connection's thread."""
        self.end("the session was not renewed in time")

    def end(self, reason: str) -> None:
        """The session is dead, or will be: tell so, and end it at the server, too."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
        self._connected = False
        self.close()
        self._opened.set_exception(Unavailable(f"zookeeper: {reason}"))
        if self._lost is not None:
            self._lost(f"zookeeper: {reason}")

    def adopt(self, until: float, lost: Callable[[str], None]) -> None:
        self._handler.until = until
        self._lost = lost
        if self._reason is not None:
            lost(f"zookeeper: {self._reason}")

    def alive_until(self, until: float) -> None:
        if self._handler.until < math.inf:
            self._handler.until = until

    def on_connection(self, call: Callable[[], None]) -> None:
        self._listeners.append(call)

    def _tell(self) -> None:
        for call in self._listeners:
            call()

    def close(self) -> Reply:
        return self._stop(self._handler.hurry)

    def discard(self) -> Reply:
        return self._stop(self._handler.refuse)

    def _stop(self, first: Callable[[], None]) -> Reply:
        with self._lock:
            self._reason = self._reason or "the session was ended"
            known, self._closed = self._closed, self._closed or Reply()
        first()
        self._connected = False
        done = self._closed
        if known is None:
            # kazoo waits for its thread, which may be the present one.
            self._handler.spawn(self._shut, done)
            self._tell()  # whoever watches anything here must go elsewhere
        return done

    def _shut(self, done: Reply) -> None:
        try:
            self._client.stop()
            self._client.close()
        finally:
            done.set()

    def drop(self) -> None:
        self._handler.drop()

    def abandon(self) -> None:
        self._reason = "the process was forked"
        self._connected = False
        self._handler.abandon()

    # -- requests ----------------------------------------------------------

    def create(self, path: str, data: bytes, *, own: bool = False, numbered: bool = False) -> Reply:
        reply: Reply = self._client.create_async(path, data, ephemeral=own, sequence=numbered)
        return reply

    def folder(self, path: str) -> Reply:
        if not self._containers:
            return self.create(path, b"")
        reply = Reply()

        def answered(made: Reply) -> None:
            if type(made.exception).__name__ == "UnimplementedError":  # older than 3.5.3
                self._containers = False
                self.create(path, b"").rawlink(lambda again: _pass_on(again, reply))
            else:
                _pass_on(made, reply)

        inner = Reply()
        inner.rawlink(answered)
        self._client._call(_CreateContainer(path, b"", self._acl, _CONTAINER), inner)
        return reply

    def ground(self, path: str) -> Reply:
        reply: Reply = self._client.create_async(path, b"", acl=[*self._acl, _MAY_CREATE])
        return reply

    def children(self, path: str, watch: Watcher | None = None) -> Reply:
        reply: Reply = self._client.get_children_async(path, watch=_heard(watch), include_data=True)
        return _with_stat(reply)

    def get(self, path: str, watch: Watcher | None = None) -> Reply:
        return _with_stat(self._client.get_async(path, watch=_heard(watch)))

    def exists(self, path: str, watch: Watcher | None = None) -> Reply:
        reply, known = Reply(), self._client.exists_async(path, watch=_heard(watch))
        known.rawlink(lambda made: _pass_on(made, reply, _stat_or_none))
        return reply

    def set(self, path: str, data: bytes, version: int = -1) -> Reply:
        reply: Reply = self._client.set_async(path, data, version)
        return reply

    def delete(self, path: str) -> Reply:
        reply: Reply = self._client.delete_async(path)
        return reply

    def sync(self, path: str) -> Reply:
        reply: Reply = self._client.sync_async(path)
        return reply

    def all(self, *steps: tuple[Any, ...]) -> Reply:
        whole = self._client.transaction()
        for verb, *details in steps:
            getattr(whole, "set_data" if verb == "set" else verb)(*details)
        reply, known = Reply(), whole.commit_async()
        known.rawlink(lambda made: _pass_on(made, reply, first_error))
        return reply


def first_error(results: list[Any]) -> list[Any]:
    """What a transaction brought; raises why it was not carried out."""
    errors = [each for each in results if isinstance(each, Exception)]
    for each in errors:
        if type(each).__name__ not in ("RolledBackError", "RuntimeInconsistency"):
            raise each
    if errors:
        raise errors[0]
    return results


def _pass_on(made: Reply, reply: Reply, change: Callable[[Any], Any] | None = None) -> None:
    if made.exception is not None:
        reply.set_exception(made.exception)
        return
    try:
        reply.set(made.value if change is None else change(made.value))
    except KazooException as error:
        reply.set_exception(error)


def _with_stat(known: Reply) -> Reply:
    reply = Reply()
    known.rawlink(lambda made: _pass_on(made, reply, lambda value: (value[0], stat(value[1]))))
    return reply


def _stat_or_none(value: Any) -> Stat | None:
    return None if value is None else stat(value)


def stat(value: Any) -> Stat:
    """What is of interest in kazoo's `ZnodeStat`."""
    return Stat(value.czxid, value.version, value.numChildren, value.mtime)


def _heard(watch: Watcher | None) -> Callable[[Any], None] | None:
    return None if watch is None else lambda event: watch(event.type == EventType.DELETED)
