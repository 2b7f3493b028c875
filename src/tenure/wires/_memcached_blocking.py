"""memcached connections that block: for the thread runtime."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
import threading
import time

from ..errors import ProtocolError
from ._memcached import Greeted, Parser, Reply, Settings, late, left, unanswered, unreached, unsent
from ._memcached import void as _void
from .memcached import Wire

_KERNEL_TIMEOUTS = sys.platform == "linux" and sys.maxsize > 2**32
"""Whether SO_RCVTIMEO takes two C longs here."""

_TRUSTED_IDLE_SECONDS = 1.0
_READ_BYTES = 65536


class BlockingLink:
    """One connection. Its coroutines never suspend: they block."""

    __slots__ = ("_kernel", "_label", "_parser", "_socket", "_used", "greeted")

    greeted: Greeted

    def __init__(self, raw: socket.socket, patience: float, label: str) -> None:
        self._socket = raw
        self._label = label
        self._parser = Parser(label)
        self._used = time.monotonic()
        self._kernel = patience if _KERNEL_TIMEOUTS else 0.0
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

    async def call(self, packed: bytes, count: int, patience: float) -> list[Reply]:
        replies: list[Reply] = []
        if patience != self._kernel or len(packed) > _READ_BYTES:
            return self._slowly(packed, count, replies, time.monotonic() + patience, patience)
        raw = self._socket
        began = time.monotonic()
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
            gone = ConnectionResetError("the server closed the connection")
            raise unanswered(gone, self._label) from gone
        if len(replies) > count or not parser.idle():
            raise ProtocolError(f"{self._label}: more replies than requests")
        if self._kernel:
            raw.settimeout(None)
        return replies

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        self._socket.close()

    def abandon(self) -> None:
        if self._socket.fileno() >= 0:
            _void(self._socket.fileno())


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
