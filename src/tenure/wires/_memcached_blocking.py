"""memcached connections that block: for the thread runtime."""

from __future__ import annotations

import socket
import time

from ..errors import ProtocolError
from ._memcached import Greeted, Parser, Reply, unanswered, unreached, unsent
from ._pool_blocking import BlockingPool, TimedLink
from ._sockets import late, left
from .memcached import Wire

_READ_BYTES = 65536


class BlockingLink(TimedLink):
    """One connection. Its coroutines never suspend: they block."""

    __slots__ = ("_kernel", "_parser", "greeted")

    greeted: Greeted

    def __init__(self, raw: socket.socket, patience: float, label: str) -> None:
        super().__init__(raw, label)
        self._parser = Parser(label)
        self._kernel = patience if self._bound_by_kernel(patience) else 0.0

    async def call(self, packed: bytes, count: int, patience: float) -> list[Reply]:
        if patience != self._kernel or len(packed) > _READ_BYTES:
            return self._slowly(packed, count, [], time.monotonic() + patience, patience)
        self.since = began = time.monotonic()
        try:
            return self._quickly(packed, count, began, patience)
        finally:
            self.since = 0.0

    def _quickly(self, packed: bytes, count: int, began: float, patience: float) -> list[Reply]:
        """A call that the kernel bounds."""
        replies: list[Reply] = []
        raw = self._socket
        try:
            sent = raw.send(packed)
        except OSError as error:
            raise unsent(error, self._label) from error
        if sent != len(packed):
            return self._slowly(packed[sent:], count, replies, began + patience, patience, sent)
        try:
            data = raw.recv(_READ_BYTES)
        except BlockingIOError as error:
            raise unanswered(late(patience), self._label) from error
        except OSError as error:
            raise unanswered(error, self._label) from error
        parser = self._parser
        if data:
            parser.feed(data, replies)
            if len(replies) == count and parser.idle():
                return replies
        return self._rest(count, replies, began + patience, patience, ended=not data)

    def _slowly(
        self,
        packed: bytes,
        count: int,
        replies: list[Reply],
        until: float,
        patience: float,
        sent: int = 0,
    ) -> list[Reply]:
        """A call whose time is watched at each step."""
        view = memoryview(packed)
        raw = self._socket
        try:
            while view:
                raw.settimeout(left(until))
                done = raw.send(view)
                sent += done
                view = view[done:]
        except OSError as error:
            # Of several requests the server may have got the first.
            raise (unanswered if sent else unsent)(error, self._label) from error
        return self._rest(count, replies, until, patience)

    def _rest(
        self,
        count: int,
        replies: list[Reply],
        until: float,
        patience: float,
        *,
        ended: bool = False,
    ) -> list[Reply]:
        raw, parser = self._socket, self._parser
        while len(replies) < count and not ended:
            try:
                if time.monotonic() >= until:
                    raise late(patience)
                raw.settimeout(left(until))
                data = raw.recv(_READ_BYTES)
            except TimeoutError as error:
                raise unanswered(late(patience), self._label) from error
            except OSError as error:
                raise unanswered(error, self._label) from error
            ended = not data
            parser.feed(data, replies)
        if ended:
            gone: OSError = ConnectionResetError("the server closed the connection")
            if time.monotonic() >= until:
                gone = late(patience)  # it was we who hung up
            raise unanswered(gone, self._label) from gone
        if len(replies) > count or not parser.idle():
            raise ProtocolError(f"{self._label}: more replies than requests")
        if self._kernel:
            raw.settimeout(None)
        return replies


class BlockingWire(BlockingPool[BlockingLink], Wire[BlockingLink]):
    """Connections that any thread may use."""

    async def _dial(self, until: float) -> BlockingLink:
        settings = self.settings
        host = settings.host
        try:
            raw = socket.create_connection((host.name, host.port), left(until))
        except (OSError, UnicodeError) as error:
            raise unreached(error, settings.label) from error
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return BlockingLink(raw, settings.patience, settings.label)
        except BaseException:
            raw.close()
            raise
