"""Pools and connections that block: for the thread runtime."""

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

from ._overdue import watch
from ._sockets import left, void
from .pool import L, Pool

_KERNEL_TIMEOUTS = sys.platform == "linux" and sys.maxsize > 2**32
"""Whether SO_RCVTIMEO takes two C longs here."""

_TRUSTED_IDLE_SECONDS = 1.0


class SocketLink:
    """One connection. Its coroutines never suspend: they block."""

    __slots__ = ("_label", "_socket", "_used")

    def __init__(self, raw: socket.socket, label: str) -> None:
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

    def fileno(self) -> int:
        """The descriptor, to wait for several connections at once."""
        return self._socket.fileno()

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            # Not the TLS socket's own method, which pulls the TLS state from under a reader.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def drop(self) -> None:
        self._socket.close()

    def abandon(self) -> None:
        if self._socket.fileno() >= 0:
            void(self._socket.fileno())


class TimedLink(SocketLink):
    """One whose calls the kernel bounds, where it can."""

    __slots__ = ("__weakref__", "limit", "since")

    def __init__(self, raw: socket.socket, label: str) -> None:
        super().__init__(raw, label)
        self.since = 0.0
        """When the call that the kernel bounds began; 0 if there is none."""
        self.limit = 0.0

    def _bound_by_kernel(self, patience: float) -> bool:
        """Let the kernel bound each send and receive; say whether it can.

        That saves the poll that Python does before each of them on a socket with a timeout: a
        tenth of a call.
        """
        if not bound_by_kernel(self._socket, patience):
            return False
        self.limit = patience * 1.1 + 0.05
        watch(self)  # signals can prolong what the kernel bounds
        return True


def bound_by_kernel(raw: socket.socket, patience: float) -> bool:
    """Set the kernel's limit for each send and each receive; say whether that can be."""
    if not _KERNEL_TIMEOUTS or isinstance(raw, ssl.SSLSocket):
        return False
    limit = struct.pack("ll", int(patience), int(patience % 1 * 1_000_000))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    raw.settimeout(None)
    return True


class BlockingPool(Pool[L]):
    """Connections that any thread may use."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._change = threading.Condition()

    async def close(self) -> None:
        self._closed = True
        self._drop_idle()
        for link in list(self._links):
            link.hang_up()
        with self._change:
            self._change.notify_all()

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
