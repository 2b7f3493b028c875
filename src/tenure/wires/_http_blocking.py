"""HTTP connections that block: for the thread runtime."""

from __future__ import annotations

import socket
import ssl
import time

from .._url import Host
from ._http import Reader, Reply, tune, unanswered, unreached, unsent
from ._pool_blocking import BlockingPool, SocketLink
from ._sockets import late, left
from .http import Wire


class BlockingLink(SocketLink):
    """One connection. Its coroutines never suspend: they block."""

    __slots__ = ("host", "reader", "turn")

    def __init__(self, raw: socket.socket, host: Host, label: str) -> None:
        super().__init__(raw, label)
        self.host = host
        self.turn = 0
        self.reader = Reader()

    async def call(self, packed: bytes, patience: float) -> Reply:
        raw, reader = self._socket, self.reader
        reader.reset()
        began = time.monotonic()
        try:
            raw.settimeout(patience)
            raw.sendall(packed)
        except OSError as error:
            raise unsent(error, self._label) from error
        try:
            # Nearly always the first read brings everything, with the patience set already.
            self._take_in(raw.recv(65536))
            while not reader.done:
                raw.settimeout(left(began + patience))
                self._take_in(raw.recv(65536))
                if time.monotonic() > began + patience:
                    raise late(patience)
        except (OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                error = late(patience)
            raise unanswered(error, self._label) from error
        return reader.whole()

    async def send(self, packed: bytes, patience: float) -> None:
        self.reader.reset()
        try:
            self._socket.settimeout(patience)
            self._socket.sendall(packed)
        except OSError as error:
            raise unsent(error, self._label) from error

    async def receive(self, patience: float) -> bool:
        try:
            self._socket.settimeout(patience)
            self._take_in(self._socket.recv(65536))
        except TimeoutError:
            return False
        except (OSError, ValueError) as error:
            raise unanswered(error, self._label) from error
        return True

    def _take_in(self, data: bytes) -> None:
        if data:
            self.reader.feed(data)
        elif not self.reader.end():
            raise ConnectionResetError("the server closed the connection")

    def pending(self) -> bool:
        """Whether bytes are at hand of which the descriptor shows nothing any more."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0


class BlockingWire(BlockingPool[BlockingLink], Wire[BlockingLink]):
    """Connections that any thread may use."""

    async def _dial(self, host: Host, until: float) -> BlockingLink:
        label = self.settings.label(host)
        try:
            raw = socket.create_connection((host.name, host.port), left(until))
            raw = self._secured(raw, host.name, until)
        except (OSError, UnicodeError) as error:
            raise unreached(error, label) from error
        return BlockingLink(raw, host, label)

    def _secured(self, raw: socket.socket, name: str, until: float) -> socket.socket:
        try:
            tune(raw)
            if self._tls is None:
                return raw
            raw.settimeout(left(until))
            return self._tls.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise
