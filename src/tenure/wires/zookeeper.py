"""ZooKeeper's sessions for threads that block and for asyncio, and its errors in Tenure's terms.

The library answers on a thread of its own. A thread waits for that with a deadline; a loop
is told by `call_soon_threadsafe`. What gets no answer in time is `OutcomeUnknown`, and its
connection is dropped: the session goes on with another, or ends, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeAlias

from .._runtime.base import Flavour
from ..errors import (
    AuthenticationFailed,
    BackendError,
    InvalidURL,
    OutcomeUnknown,
    SessionLost,
    TenureError,
    Unavailable,
)
from ._zookeeper_api import (
    BadVersion,
    Link,
    NodeExists,
    NoNode,
    NotEmpty,
    Place,
    Refused,
    Reply,
    Settings,
)
from ._zookeeper_kazoo import CLIENT, KazooLink

__all__ = ["CLIENT", "Settings", "Wire", "connection"]

_REFUSALS: dict[str, type[Refused]] = {
    "NoNodeError": NoNode,
    "NodeExistsError": NodeExists,
    "BadVersionError": BadVersion,
    "NotEmptyError": NotEmpty,
}
_ANSWER_MAX = 1 << 16

NewLink: TypeAlias = Callable[[Settings, ssl.SSLContext | None], Link]


class Wire:
    """Makes sessions, and waits for their answers. One for each driver."""

    def __init__(self, settings: Settings, new: NewLink) -> None:
        self.settings = settings
        self._new = new
        self._context = _context(settings) if settings.tls else None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings!r}>"

    def new(self) -> Link:
        """A session that is not begun yet."""
        return self._new(self.settings, self._context)

    async def open(self) -> Link:
        """Begin a session."""
        link = self.new()
        try:
            reply = link.open()
            if not await self._ready(reply, self.settings.patience):
                problem = link.problem() or "no answer"
                raise Unavailable(f"zookeeper: {self.settings.hosts}: {problem}")
            if reply.exception is not None:
                raise reply.exception
        except BaseException:
            link.discard()
            raise
        return link

    async def close(self, link: Link, *, farewell: bool = True) -> bool:
        """End a session, or with no `farewell` leave it; say whether the server knows."""
        known = farewell and (link.connected() or link.over() is not None)
        reply = link.close() if farewell else link.discard()
        if not await self._ready(reply, self.settings.patience):
            known = False
            await self._ready(link.discard(), self.settings.patience)
        return known

    async def wait(self, link: Link, *replies: Reply) -> Any:
        """The answer to the last of the requests, which were asked for in this order.

        Its error is raised if it failed: `Refused` if the server answered so.
        """
        last = replies[-1]
        if not last.ready() and not await self._ready(last, self.settings.patience):
            link.drop()
            raise OutcomeUnknown("zookeeper: no answer in time; the connection was dropped")
        return self.value(link, last)

    def value(self, link: Link, reply: Reply) -> Any:
        """What was answered, if it was; its error is raised."""
        error = reply.exception
        if error is not None:
            raise translated(error, link) from error
        return reply.value

    async def _ready(self, reply: Reply, seconds: float) -> bool:
        raise NotImplementedError

    def ask(self, word: str) -> dict[str, str]:
        """What each host answers to one of the four-letter words. Blocks."""
        found = {}
        hosts = self.settings.hosts.split(",")
        seconds = self.settings.patience / len(hosts)
        for each in hosts:
            host, _, port = each.rpartition(":")
            name = host.strip("[]")
            try:
                found[each] = self._ask(Place(name, name, int(port)), word, seconds)
            except OSError as error:
                found[each] = f"unreachable: {error.strerror or error}"
        return found

    def ask_there(self, link: Link, word: str) -> str:
        """What the server answers that the session is connected to. Blocks."""
        place = link.place
        try:
            return self._ask(place, word, self.settings.patience)
        except OSError as error:
            where = f"{place.name}:{place.port}"
            text = error.strerror or error
            raise Unavailable(f"zookeeper: {where} does not answer to {word!r}: {text}") from error

    def _ask(self, place: Place, word: str, seconds: float) -> str:
        answer = b""
        until = monotonic() + seconds
        with contextlib.ExitStack() as stack:
            to = (place.address, place.port)
            link = stack.enter_context(socket.create_connection(to, seconds))
            if self._context is not None:
                name = place.name if self.settings.verify else None
                link.settimeout(max(0.001, until - monotonic()))
                link = stack.enter_context(self._context.wrap_socket(link, server_hostname=name))
            link.sendall(word.encode("ascii"))
            while len(answer) < _ANSWER_MAX:
                link.settimeout(max(0.001, until - monotonic()))
                chunk = link.recv(4096)
                if not chunk:
                    break
                answer += chunk
        return answer.decode(errors="replace")


class _BlockingWire(Wire):
    async def _ready(self, reply: Reply, seconds: float) -> bool:
        gate = threading.Lock()
        gate.acquire()
        reply.rawlink(lambda _: gate.release())
        return gate.acquire(timeout=seconds)


class _AsyncioWire(Wire):
    async def wait(self, link: Link, *replies: Reply) -> Any:
        if replies[-1].ready():
            # Where all is answered at once, as by zake, a task that asks on and on would keep
            # the loop from renewing what it holds.
            await asyncio.sleep(0)
        return await super().wait(link, *replies)

    async def _ready(self, reply: Reply, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()

        def finish(done: bool) -> None:
            if not future.done():
                future.set_result(done)

        def ready(_: Reply) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there
                loop.call_soon_threadsafe(finish, True)

        timer = loop.call_later(seconds, finish, False)
        reply.rawlink(ready)
        try:
            return await future
        finally:
            timer.cancel()


def connection(settings: Settings, flavour: Flavour, new: NewLink = KazooLink) -> Wire:
    """A wire of the flavour; reads the files that TLS needs. `new` makes its sessions."""
    return _AsyncioWire(settings, new) if flavour == "asyncio" else _BlockingWire(settings, new)


def _context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.authority)
        if not settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if settings.certificate is not None:
            context.load_cert_chain(settings.certificate, settings.key)
    except OSError as error:
        text = error.strerror or str(error)
        raise InvalidURL(f"zookeeper: a file of the TLS options cannot be used: {text}") from error
    return context


def translated(error: Exception, link: Link) -> Exception:
    """The error in Tenure's terms, or in those of `_zookeeper_api`."""
    if isinstance(error, (TenureError, Refused)):
        return error
    name = type(error).__name__
    known = _REFUSALS.get(name)
    if known is not None:
        return known(str(error))
    return _failures(name, str(error), link)


def _failures(name: str, text: str, link: Link) -> TenureError:
    says = f"zookeeper: {name}{': ' if text else ''}{text}"
    if name in ("ConnectionLoss", "SessionMovedError", "OperationTimeoutError"):
        return OutcomeUnknown("zookeeper: the connection was lost before the answer came")
    if name in ("SessionExpiredError", "ConnectionClosedError"):
        return SessionLost(f"zookeeper: {link.over() or 'the session is over'}")
    if name in ("NoAuthError", "AuthFailedError", "SASLException", "InvalidACLError"):
        return AuthenticationFailed(f"{says}: the user may not do this")
    if name in ("NotReadOnlyCallError", "ThrottledOpError"):
        return Unavailable(says)
    return BackendError(says)
