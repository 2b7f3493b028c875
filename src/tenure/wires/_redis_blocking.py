"""Redis connections that block: for the thread runtime."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import sys
import threading
import time
from typing import Any

import hiredis

from .._url import Host
from ..errors import ProtocolError
from ._redis import MORE, Reply, Settings, left, unanswered, unreached, unsent, void
from .redis import Wire

_KERNEL_TIMEOUTS = sys.platform == "linux" and sys.maxsize > 2**32
"""Whether SO_RCVTIMEO takes two C longs here."""

_TRUSTED_IDLE_SECONDS = 1.0


class BlockingLink:
    """One connection. Its coroutines never suspend: they block."""

    __slots__ = ("_buffer", "_kernel", "_label", "_patience", "_reader", "_socket", "_used")

    def __init__(self, raw: socket.socket, patience: float, label: str) -> None:
        self._socket = raw
        self._label = label
        self._reader = hiredis.Reader(notEnoughData=MORE)
        self._buffer: Any = bytearray(16384)  # hiredis takes it, its stub does not say so
        self._used = time.monotonic()
        self._patience = patience
        self._kernel = _KERNEL_TIMEOUTS and not isinstance(raw, ssl.SSLSocket)
        if self._kernel:
            # The kernel's own timeouts save the poll that Python does before each send
            # and each receive on a socket with a timeout: a tenth of a call.
            limit = struct.pack("ll", int(patience), int(patience % 1 * 1_000_000))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            raw.settimeout(None)

    def usable(self) -> bool:
        used, self._used = self._used, time.monotonic()
        if self._used - used < _TRUSTED_IDLE_SECONDS:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)  # an idle connection has nothing to tell but its end

    async def call(self, packed: bytes) -> Reply:
        if not self._kernel:
            return await self.call_within(packed, self._patience)
        raw, reader = self._socket, self._reader
        try:
            raw.sendall(packed)
        except OSError as error:
            raise unsent(error, self._label) from error
        try:
            size = raw.recv_into(self._buffer)
            reader.feed(self._buffer, 0, size)
            reply: Reply = reader.gets()
        except BlockingIOError as error:
            raise unanswered(_late(self._patience), self._label) from error
        except (OSError, hiredis.ProtocolError) as error:
            raise unanswered(error, self._label) from error
        if reply is MORE or reader.has_data():
            return await self._rest(reply, size)
        return reply

    async def _rest(self, reply: Reply, size: int) -> Reply:
        """The first read brought too little or too much."""
        if size == 0:
            error = ConnectionResetError("the server closed the connection")
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

    def fileno(self) -> int:
        """What to poll for a reply."""
        return self._socket.fileno()

    def settle(self) -> None:
        """After `send` and `receive`: be ready for `call` again. Raises if more has come."""
        if self._kernel:
            self._socket.settimeout(None)
        if self._reader.has_data():
            raise ProtocolError(f"{self._label}: more replies than commands")

    async def _reply(self, until: float, patience: float) -> Reply:
        reply = await self.receive(until - time.monotonic())
        if reply is MORE:
            late = _late(patience)
            raise unanswered(late, self._label) from late
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

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            # Not the TLS socket's own method, which pulls the TLS state from under a reader.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def drop(self) -> None:
        self._socket.close()

    def abandon(self) -> None:
        if self._socket.fileno() >= 0:
            void(self._socket.fileno())


def _late(patience: float) -> TimeoutError:
    return TimeoutError(f"none within {patience:.3g} s")


class BlockingWire(Wire[BlockingLink]):
    """Connections that any thread may use."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._change = threading.Condition()

    async def close(self) -> None:
        self._closed = True
        self._drop_idle()
        for link in list(self._links):
            link.hang_up()
        with self._change:
            self._change.notify_all()

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

    async def _wait(self, until: float) -> bool:
        with self._change:
            self._waiting += 1
            try:
                if self._free or self._slots or self._closed:
                    return True
                return self._change.wait(left(until))
            finally:
                self._waiting -= 1

    def _notify(self) -> None:
        with self._change:
            self._change.notify()
