"""HTTP/1.1 over plain sockets: a blocking wire and an asyncio wire with the same methods.

For backends that speak JSON over HTTP. A request is one write and one reply, on a
connection that nobody else uses meanwhile; connections are kept and used again. A
server that cannot be reached gives way to the next one. A request that was certainly
not carried out fails as `Unavailable` and is tried again where there is time; one whose
reply stayed out fails as `OutcomeUnknown`, never to be sent twice. Proxies from the
environment, redirects and compression are left alone: none belongs between a client and
the keeper of its locks.
"""

from __future__ import annotations

import ssl
import threading
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from .._runtime.base import Flavour, Runtime
from .._url import Host
from ..errors import OutcomeUnknown, TenureError, Unavailable
from ._http import Reader, Reply, Settings, header_lines, unanswered
from ._sockets import Tls, late, left
from .pool import Pool, Pooled

__all__ = ["Channel", "Link", "Reply", "Settings", "Tls", "Wire", "wire"]


class Link(Pooled, Protocol):
    """One connection. Whoever uses it has it alone."""

    reader: Reader
    host: Host
    turn: int
    """Which attempt at an endpoint it came of."""

    async def call(self, packed: bytes, patience: float) -> Reply:
        """Send a request and return its whole reply. After an error the link must be dropped."""
        ...

    async def send(self, packed: bytes, patience: float) -> None:
        """Send a request whose reply `receive` brings in."""
        ...

    async def receive(self, patience: float) -> bool:
        """Let the reader have more of a reply; False if nothing came in so many seconds."""
        ...


L = TypeVar("L", bound=Link)


class Wire(Pool[L]):
    """A few connections to one of several servers; the one used last is used next."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._lines = header_lines(settings.headers)
        self._turn = 0
        self._tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings!r}>"

    @property
    def _name(self) -> str:
        return self.settings.name

    # -- what a driver calls -------------------------------------------------

    async def open(self, runtime: Runtime) -> None:
        """Make the first connection, so that whatever is wrong with the URL shows now."""
        if self.settings.tls is not None:
            self._tls = await runtime.blocking(self.settings.tls.context)
        self._free.append(await self._take(time.monotonic() + self.settings.patience))

    def authorize(self, headers: Mapping[str, str]) -> None:
        """Send these headers from now on, instead of those in the settings."""
        self._lines = header_lines(headers)

    def pack(self, host: Host, method: str, path: str, body: bytes | None) -> bytes:
        """A request as it goes over the wire; `path` is encoded already."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{self._lines}"
        if body is None:
            return f"{head}\r\n".encode()
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def request(
        self, method: str, path: str, body: bytes | None = None, patience: float | None = None
    ) -> Reply:
        """Carry out one request within `patience` seconds, by default the settings'.

        Whatever its status, a reply is returned.
        """
        if patience is None:
            patience = self.settings.patience
        free = self._free
        try:
            link = free.pop()
        except IndexError:
            return await self._request_anew(method, path, body, patience)
        if not link.usable():
            self._retire(link)
            return await self._request_anew(method, path, body, patience)
        began = time.monotonic()
        try:
            return await self._call(link, self.pack(link.host, method, path, body), patience)
        except OutcomeUnknown:
            raise
        except Unavailable:  # not even sent: the connection had ended while it was idle
            return await self._request_anew(
                method, path, body, max(0.001, patience + began - time.monotonic())
            )

    def channel(self) -> Channel[L]:
        """A connection outside the pool, for long polls and streams."""
        return Channel(self)

    def move_on(self) -> None:
        """Turn to the next server: the one that just answered cannot do its work now."""
        self._turn += 1
        self._drop_idle()

    # -- connections that come and go ----------------------------------------

    async def _call(self, link: L, packed: bytes, patience: float) -> Reply:
        try:
            reply = await link.call(packed, patience)
        except BaseException as error:
            self.failed(link, error)
            self._retire(link, told=True)
            raise
        if link.reader.lasts:
            self._free.append(link)
            if self._waiting or self._closed:
                self._returned()
        else:
            self._retire(link)
        return reply

    async def _request_anew(
        self, method: str, path: str, body: bytes | None, patience: float
    ) -> Reply:
        """The same as `request`, when no connection is at hand."""
        until = time.monotonic() + patience
        link = await self._take(until)
        if left(until) < patience / 4:
            # On a slow network the time that is left may be too short for any reply. The
            # next try finds this connection ready, and has the whole patience for itself.
            self._free.append(link)
            self._returned()
            label = self.settings.label(link.host)
            raise Unavailable(f"{label}: connecting took too long; it is done now")
        return await self._call(link, self.pack(link.host, method, path, body), left(until))

    def failed(self, link: L, error: BaseException) -> None:
        """Take note of what went wrong on a connection: the server may be gone."""
        self._links.discard(link)
        if isinstance(error, ConnectionError):
            if link.turn == self._turn:
                self._turn += 1
            self._drop_idle()

    async def connect(self, until: float) -> L:
        """A new connection to the first server that takes one, beginning with the last good."""
        hosts = self.settings.hosts
        begun = self._turn
        cause: TenureError | None = None
        for index in range(len(hosts)):
            turn = begun + index
            # A silent server must not use up the time of those behind it.
            share = left(until) / min(3, len(hosts) - index)
            try:
                link = await self._dial(hosts[turn % len(hosts)], time.monotonic() + share)
            except Unavailable as error:
                cause = error
                continue
            link.turn = turn
            self._turn = max(self._turn, turn)
            self._links.add(link)
            if self._closed:
                self.discard(link)
                break
            return link
        if cause is None or self._closed:
            raise self._shut()
        if len(hosts) > 1:
            raise Unavailable(f"{cause}; nor can any of the {len(hosts) - 1} others") from cause
        raise cause

    @abstractmethod
    async def _dial(self, host: Host, until: float) -> L:
        """A bare connection to the host."""


class Channel(Generic[L]):
    """A connection of its own for one user, who may wait on it for long.

    `close` may be called from any thread or task, and ends a wait at once. The connection
    is made when it is needed, and made again after it has failed.
    """

    def __init__(self, wire: Wire[L]) -> None:
        self._wire = wire
        self._link: L | None = None
        self._busy = False
        self._closed = False
        self._lock = threading.Lock()
        self._rest = b""

    async def request(
        self, method: str, path: str, body: bytes | None = None, patience: float | None = None
    ) -> Reply:
        """One request and its whole reply, of which the headers may take up to `patience`."""
        patience = self._wire.settings.patience if patience is None else patience
        link = await self._enter(min(patience, self._wire.settings.patience))
        try:
            reply = await link.call(self._wire.pack(link.host, method, path, body), patience)
        except BaseException as error:
            self._leave(error)
            raise
        self._leave()
        return reply

    async def begin(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """Send a request and return the head of its reply; `line` brings the body.

        A reply other than 200 is read to its end and returned whole.
        """
        patience = self._wire.settings.patience
        until = time.monotonic() + patience
        link = await self._enter(patience)
        reader = link.reader
        self._rest = b""
        try:
            await link.send(self._wire.pack(link.host, method, path, body), left(until))
            while not reader.status or (reader.status != 200 and not reader.done):
                await self._more(link, until, patience)
        except BaseException as error:
            self._leave(error)
            raise
        if reader.status == 200:
            self._leave(streaming=True)
            return Reply(reader.status, reader.headers, b"")
        reply = reader.whole()
        self._leave()
        return reply

    async def line(self, patience: float) -> bytes | None:
        """The next line of the body, without its end; None if none came in so many seconds.

        The end of the body raises `Unavailable`.
        """
        until = time.monotonic() + patience
        while True:
            line, end, rest = self._rest.partition(b"\n")
            if end:
                self._rest = rest
                return line
            link = self._enter_stream()
            try:
                more = link.reader.take()
                if not more and link.reader.done:
                    label = self._wire.settings.label(link.host)
                    raise Unavailable(f"{label}: the stream ended")
                if not more and not await link.receive(left(until)):
                    self._leave(streaming=True)
                    return None
            except BaseException as error:
                self._leave(error)
                raise
            self._leave(streaming=True)
            self._rest += more

    def close(self) -> None:
        """End it, and a wait on it."""
        with self._lock:
            self._closed = True
            link = self._link
            if link is None:
                return
            if self._busy:
                link.hang_up()  # whoever is waiting on it drops it
                return
            self._link = None
        self._wire.discard(link)

    def drop(self) -> None:
        """Give up the connection and whatever streams on it; the next use makes a new one."""
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            self._wire.discard(link)

    async def _more(self, link: L, until: float, patience: float) -> None:
        if not await link.receive(left(until)):
            error = late(patience)
            raise unanswered(error, self._wire.settings.label(link.host)) from error

    async def _enter(self, patience: float) -> L:
        link = self._link
        if link is not None and not link.usable():
            self.drop()
            link = None
        if link is None:
            link = await self._wire.connect(time.monotonic() + patience)
        with self._lock:
            if not self._closed:
                self._link, self._busy = link, True
                return link
        self._wire.discard(link)
        raise self._wire._shut()

    def _enter_stream(self) -> L:
        with self._lock:
            if self._link is None or self._closed:
                raise self._wire._shut()
            self._busy = True
            return self._link

    def _leave(self, error: BaseException | None = None, *, streaming: bool = False) -> None:
        with self._lock:
            self._busy = False
            link = self._link
            lasts = streaming or (link is not None and link.reader.lasts)
            if link is None or (error is None and lasts and not self._closed):
                return
            self._link = None
        if error is not None and not self._closed:
            self._wire.failed(link, error)
        self._wire.discard(link)


def wire(settings: Settings, flavour: Flavour) -> Wire[Any]:
    """The wire for a flavour of concurrency. Only asyncio's imports asyncio."""
    if flavour == "asyncio":
        from ._http_asyncio import AsyncioWire

        return AsyncioWire(settings)
    from ._http_blocking import BlockingWire

    return BlockingWire(settings)
