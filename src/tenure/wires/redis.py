"""Redis over plain sockets: a blocking wire and an asyncio wire with the same methods.

hiredis packs and parses; sockets carry. A call is one command and its one reply, on a
connection that nobody else uses meanwhile. A connection on which anything went wrong is
dropped, and with it every idle one, which most likely shares its fate. A call is
bounded as a whole and not by each read, so that a trickle of bytes cannot prolong it.
"""

from __future__ import annotations

import ssl
import time
from abc import abstractmethod
from typing import Any, TypeVar

import hiredis

from .._model import Server
from .._runtime.base import Flavour, Runtime
from .._url import Host
from ..errors import OutcomeUnknown, ProtocolError, TenureError, Unavailable
from ._redis import (
    MORE,
    STALE,
    Reply,
    Settings,
    Told,
    Word,
    bad_database,
    check_hello,
    hello,
    pack,
    translate,
)
from ._redis_calls import Link, Script, ScriptMissing, packed_command, word
from ._redis_cluster import MAP, read_map, redirection, slot_of
from ._sockets import Tls, left
from .pool import Pool

__all__ = [
    "MORE",
    "Link",
    "Reply",
    "Script",
    "ScriptMissing",
    "Settings",
    "Tls",
    "Wire",
    "packed_command",
    "slot_of",
    "wire",
    "word",
]


L = TypeVar("L", bound=Link)


class Wire(Pool[L]):
    """A few connections to one Redis server; the one used last is used next."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._tls: ssl.SSLContext | None = None
        self._home: Host | None = None
        """The node of the cluster that has the slot, as far as is known."""
        self._nodes: list[Host] = []
        """The nodes of the cluster, as the map has named them."""
        self._told: Told | None = None
        """What the greeting of the newest connection has said."""

    @property
    def _name(self) -> str:
        return self.settings.label

    # -- what a driver calls -------------------------------------------------

    async def open(self, runtime: Runtime) -> None:
        """Make the first connection, so that whatever is wrong with the URL shows now."""
        if self.settings.tls is not None:
            self._tls = await runtime.blocking(self.settings.tls.context)
        self._free.append(await self._take(time.monotonic() + self.settings.patience))

    def server(self) -> Server:
        """What the newest connection's greeting has said; `Unavailable` if there was none."""
        told, settings = self._told, self.settings
        if told is None:
            raise Unavailable(f"{settings.label}: not connected yet")
        topology = "sentinel" if settings.service else "standalone"
        if settings.slot is not None:
            topology = f"cluster of {len(self._nodes)}"
        return Server(*told, topology, "hiredis", hiredis.__version__)

    async def ask(self, packed: bytes) -> Reply:
        """Carry out one command, packed already; `ScriptMissing` if its script is unknown.

        Written out in one piece, because every acquire and every release passes here.
        """
        free = self._free
        try:
            link = free.pop()
        except IndexError:
            return await self._ask_anew(packed)
        if not link.usable():
            self._retire(link)
            return await self._ask_anew(packed)
        try:
            reply = await link.call(packed)
        except BaseException as error:
            self._failed(link, error)
            raise
        free.append(link)
        if self._waiting or self._closed:
            self._returned()
        if type(reply) is hiredis.ReplyError:
            return (await self._redirected(packed, 1, str(reply)))[0]
        return reply

    async def series(self, packed: bytes, count: int) -> list[Reply]:
        """Carry out several commands in one exchange; raises for the first that was refused."""
        replies = await self._series(packed, count)
        first = replies[0]
        if type(first) is hiredis.ReplyError:
            replies = await self._redirected(packed, count, str(first))
        for reply in replies:
            if type(reply) is hiredis.ReplyError:
                raise self._refused(str(reply))
        return replies

    async def _redirected(self, packed: bytes, count: int, text: str) -> list[Reply]:
        """Ask whom a node of a cluster has named instead; raise what else the refusal means."""
        home = self._home
        there = None if home is None else redirection(text, home)
        if there is None:
            raise self._refused(text)
        if there.moved:
            self._home = there.host
            self._drop_idle()
            replies = await self._series(packed, count)
        else:
            until = time.monotonic() + self.settings.patience
            link = await self._greeted(there.host, until, guide=False)
            try:
                replies = await link.series(pack((b"ASKING",)) + packed, 1 + count, left(until))
            finally:
                self.discard(link)
            del replies[0]
        for reply in replies:
            if type(reply) is hiredis.ReplyError:
                raise self._refused(str(reply))
        return replies

    async def command(self, *words: Word) -> Reply:
        """Carry out one command."""
        return await self.ask(pack(words))

    async def take(self, until: float) -> L:
        """A connection for one exchange; `give_back` or `failed` must follow."""
        return await self._take(until)

    def give_back(self, link: L) -> None:
        """The exchange is over, and the connection is as it was."""
        self._free.append(link)
        self._returned()

    def failed(self, link: L, error: BaseException) -> None:
        """The exchange went wrong, and its connection is of no more use."""
        self._failed(link, error)

    def refused(self, text: str) -> TenureError:
        """The exception for an error reply."""
        return self._refused(text)

    async def subscribe(self, channel: bytes) -> L:
        """A connection of its own on which the channel's messages arrive; confirmed."""
        until = time.monotonic() + self.settings.patience
        link = await self.connect(until)
        try:
            # Not as a call: messages may follow on the heels of the confirmation.
            await link.send(pack((b"SUBSCRIBE", channel)), left(until))
            reply = await link.receive(left(until))
            if reply is MORE:
                raise Unavailable(f"{self.settings.label}: subscribing was not answered in time")
            if type(reply) is hiredis.ReplyError:
                raise self._refused(str(reply))
            if not isinstance(reply, list) or reply[:1] != [b"subscribe"]:
                raise ProtocolError(f"{self.settings.label}: subscribing was answered wrongly")
        except BaseException:
            self.discard(link)
            raise
        return link

    async def post(self, link: L, *words: Word) -> None:
        """Send a command on a subscribed connection; the answer arrives like a message."""
        await link.send(pack(words), self.settings.patience)

    def refusal(self, reply: Reply) -> TenureError | None:
        """What a reply on a subscribed connection says, if it is an error."""
        if type(reply) is hiredis.ReplyError:
            return translate(str(reply), self.settings.label)
        return None

    # -- connections that come and go ----------------------------------------

    async def _ask_anew(self, packed: bytes) -> Reply:
        """The same as `ask`, when no connection is at hand."""
        return (await self.series(packed, 1))[0]

    async def _series(self, packed: bytes, count: int) -> list[Reply]:
        patience = self.settings.patience
        until = time.monotonic() + patience
        link = await self._take(until)
        if left(until) < patience / 2:
            # On a slow network the time that is left may be too short for any reply. The
            # next try finds this connection ready, and has the whole patience for itself.
            self._free.append(link)
            self._returned()
            raise Unavailable(f"{self.settings.label}: connecting took too long; it is done now")
        try:
            replies = await link.series(packed, count, left(until))
        except BaseException as error:
            self._failed(link, error)
            raise
        self._free.append(link)
        self._returned()
        return replies

    def _failed(self, link: L, error: BaseException) -> None:
        self._retire(link)
        if isinstance(error, ConnectionError):
            self._drop_idle()

    def _refused(self, text: str) -> TenureError:
        code = text.partition(" ")[0]
        if code in STALE:
            self._home = None
            self._drop_idle()
        if code == "NOSCRIPT":
            return ScriptMissing(f"{self.settings.label}: {text}")
        return translate(text, self.settings.label)

    # -- making a connection -------------------------------------------------

    async def connect(self, until: float) -> L:
        """A new connection, greeted, and with the right database selected."""
        settings = self.settings
        if settings.slot is not None:
            return await self._at_home(until)
        if settings.service:
            host: Host | None = await self._master(until)
        else:
            host = settings.hosts[0] if settings.hosts else None
        link = await self._greeted(host, until, guide=False)
        if settings.database:
            try:
                packed = pack((b"SELECT", settings.database))
                reply = await self._ask(link, packed, until)
                if type(reply) is hiredis.ReplyError:
                    raise bad_database(str(reply), settings)
            except BaseException:
                self.discard(link)
                raise
        return link

    async def _at_home(self, until: float) -> L:
        """A connection to the node of a cluster that has the slot."""
        if self._home is not None:
            try:
                half = time.monotonic() + left(until) / 2
                return await self._greeted(self._home, half, guide=False)
            except Unavailable:
                self._home = None
        home = await self._master(until)
        link = await self._greeted(home, until, guide=False)
        self._home = home
        return link

    async def _greeted(self, host: Host | None, until: float, *, guide: bool) -> L:
        settings = self.settings
        if guide and settings.service:
            login = (settings.sentinel_username, settings.sentinel_password)
        else:
            login = (settings.username, settings.password)
        link = await self._dial(host, until)
        self._links.add(link)
        try:
            reply = await self._ask(link, hello(*login), until)
            told = check_hello(reply, settings, guide=guide)
            if not guide:
                self._told = told
            if self._closed:
                raise self._shut()
        except BaseException:
            self.discard(link)
            raise
        return link

    async def _ask(self, link: L, packed: bytes, until: float) -> Reply:
        try:
            return await link.call_within(packed, left(until))
        except OutcomeUnknown as error:
            # Nothing that the caller asked for was sent yet.
            raise Unavailable(str(error)) from error

    async def _master(self, until: float) -> Host:
        """Ask the sentinels, or the nodes of the cluster, each in turn, where the master is."""
        settings = self.settings
        cluster = settings.slot is not None
        words = MAP if cluster else (b"SENTINEL", b"get-master-addr-by-name", settings.service)
        cause: Exception | None = None
        fault = f"no {'node' if cluster else 'sentinel'} answers"
        hosts = list(dict.fromkeys([*settings.hosts, *self._nodes]))
        for index, host in enumerate(hosts):
            # A silent one must not use up the time of those behind it.
            share = time.monotonic() + left(until) / (len(hosts) - index + 1)
            try:
                link = await self._greeted(host, share, guide=True)
                try:
                    reply = await self._ask(link, pack(words), share)
                finally:
                    self.discard(link)
            except (Unavailable, ProtocolError) as error:
                cause = error
                continue
            if type(reply) is hiredis.ReplyError:
                raise translate(str(reply), settings.label)
            master = self._named(reply, host)
            if master is not None:
                return master
            fault = "nobody has its slot" if cluster else "the sentinels do not know it"
        raise Unavailable(f"{settings.label}: {fault}") from cause

    def _named(self, reply: Reply, asked: Host) -> Host | None:
        """The master that a sentinel or a node has named."""
        if self.settings.slot is not None:
            master, nodes = read_map(reply, self.settings.slot, asked)
            self._nodes = nodes or self._nodes
            return master
        if isinstance(reply, list) and len(reply) == 2:
            name, port = reply
            if isinstance(name, bytes) and isinstance(port, bytes) and port.isdigit():
                return Host(name.decode(), int(port))
        return None

    @abstractmethod
    async def _dial(self, host: Host | None, until: float) -> L:
        """A bare connection to the host, or to the socket file if there is none."""


def wire(settings: Settings, flavour: Flavour) -> Wire[Any]:
    """The wire for a flavour of concurrency. Only asyncio's imports asyncio."""
    if flavour == "asyncio":
        from ._redis_asyncio import AsyncioWire

        return AsyncioWire(settings)
    from ._redis_blocking import BlockingWire

    return BlockingWire(settings)
