"""Redis connections that block: for the thread runtime."""

from __future__ import annotations

import socket
import time
from typing import Any

import hiredis

from .._url import Host
from ..errors import ProtocolError
from ._pool_blocking import BlockingPool, TimedLink
from ._redis import MORE, Reply, unanswered, unreached, unsent
from ._sockets import late, left
from .redis import Wire


class BlockingLink(TimedLink):
    """One connection. Its coroutines never suspend: they block."""

    __slots__ = ("_buffer", "_kernel", "_patience", "_reader")

    def __init__(self, raw: socket.socket, patience: float, label: str) -> None:
        super().__init__(raw, label)
        self._reader = hiredis.Reader(notEnoughData=MORE)
        self._buffer: Any = bytearray(16384)  # hiredis takes it, its stub does not say so
        self._patience = patience
        self._kernel = self._bound_by_kernel(patience)

    async def call(self, packed: bytes) -> Reply:
        if not self._kernel:
            return await self.call_within(packed, self._patience)
        raw, reader = self._socket, self._reader
        self.since = time.monotonic()
        try:
            try:
                raw.sendall(packed)
            except OSError as error:
                raise unsent(error, self._label) from error
            try:
                size = raw.recv_into(self._buffer)
                reader.feed(self._buffer, 0, size)
                reply: Reply = reader.gets()
            except BlockingIOError as error:
                raise unanswered(late(self._patience), self._label) from error
            except (OSError, hiredis.ProtocolError) as error:
                raise unanswered(error, self._label) from error
            if reply is MORE or reader.has_data():
                return await self._rest(reply, size)
            return reply
        finally:
            self.since = 0.0

    async def _rest(self, reply: Reply, size: int) -> Reply:
        """The first read brought too little or too much."""
        if size == 0:
            error: OSError = ConnectionResetError("the server closed the connection")
            if time.monotonic() - self.since >= self._patience:
                error = late(self._patience)  # it was we who hung up
            raise unanswered(error, self._label) from error
        if reply is MORE:
            reply = await self._reply(self._used + self._patience, self._patience)
            self._socket.settimeout(None)
        if self._reader.has_data():
            raise ProtocolError(f"{self._label}: more than one reply to one command")
        return reply

    async def call_within(self, packed: bytes, patience: float) -> Reply:
        return (await self.series(packed, 1, patience))[0]

    async def series(self, packed: bytes, count: int, patience: float) -> list[Reply]:
        until = time.monotonic() + patience
        await self.send(packed, patience)
        replies = [await self._reply(until, patience) for _ in range(count)]
        if self._kernel:
            self._socket.settimeout(None)
        if self._reader.has_data():
            raise ProtocolError(f"{self._label}: more replies than commands")
        return replies

    def settle(self) -> None:
        """After `send` and `receive`: be ready for `call` again. Raises if more has come."""
        if self._kernel:
            self._socket.settimeout(None)
        if self._reader.has_data():
            raise ProtocolError(f"{self._label}: more replies than commands")

    async def _reply(self, until: float, patience: float) -> Reply:
        reply = await self.receive(until - time.monotonic())
        if reply is MORE:
            error = late(patience)
            raise unanswered(error, self._label) from error
        return reply

    async def send(self, packed: bytes, patience: float) -> None:
        try:
            self._socket.settimeout(patience)
            self._socket.sendall(packed)
        except OSError as error:
            raise unsent(error, self._label) from error

    async def receive(self, patience: float) -> Reply:
        try:
            return self._read(time.monotonic() + patience)
        except (OSError, hiredis.ProtocolError) as error:
            raise unanswered(error, self._label) from error

    def _read(self, until: float) -> Reply:
        raw, reader, buffer = self._socket, self._reader, self._buffer
        reply: Reply
        while (reply := reader.gets()) is MORE:
            seconds = until - time.monotonic()
            if seconds <= 0.0:
                break
            raw.settimeout(seconds)
            try:
                size = raw.recv_into(buffer)
            except TimeoutError:
                continue
            if not size:
                raise ConnectionResetError("the server closed the connection")
            reader.feed(buffer, 0, size)
        return reply


class BlockingWire(BlockingPool[BlockingLink], Wire[BlockingLink]):
    """Connections that any thread may use."""

    async def _dial(self, host: Host | None, until: float) -> BlockingLink:
        settings = self.settings
        try:
            if host is None:
                raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    raw.settimeout(left(until))
                    raw.connect(settings.path)
                except BaseException:
                    raw.close()
                    raise
            else:
                raw = socket.create_connection((host.name, host.port), left(until))
                raw = self._secured(raw, host.name, until)
        except (OSError, UnicodeError) as error:
            raise unreached(error, settings.label) from error
        return BlockingLink(raw, settings.patience, settings.label)

    def _secured(self, raw: socket.socket, name: str, until: float) -> socket.socket:
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                return raw
            raw.settimeout(left(until))
            return self._tls.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise
