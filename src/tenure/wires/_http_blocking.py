"""HTTP connections that block: for the thread runtime."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time

from .._url import Host
from ._http import Reader, Reply, Settings, late, left, tune, unanswered, unreached, unsent, void
from .http import Wire

_TRUSTED_IDLE_SECONDS = 1.0


class BlockingLink:
    """One connection. Its coroutines never suspend: they block."""

    __slots__ = ("_label", "_socket", "_used", "host", "reader", "turn")

    def __init__(self, raw: socket.socket, host: Host, label: str) -> None:
        self.host = host
        self.turn = 0
        self.reader = Reader()
        self._socket = raw
        self._label = label
        self._used = time.monotonic()

    def usable(self) -> bool:
        used, self._used = self._used, time.monotonic()
        if self._used - used < _TRUSTED_IDLE_SECONDS:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)  # an idle connection has nothing to tell but its end

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

    def fileno(self) -> int:
        """The descriptor, to wait for several connections at once."""
        return self._socket.fileno()

    def pending(self) -> bool:
        """Whether bytes are at hand of which the descriptor shows nothing any more."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            # Not the TLS socket's own method, which pulls the TLS state from under a reader.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def drop(self) -> None:
        self._socket.close()

    def abandon(self) -> None:
        if self._socket.fileno() >= 0:
            void(self._socket.fileno())


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
