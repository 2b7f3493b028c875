"""How kazoo reaches the system: its sockets, threads and waits, all of them bounded.

kazoo lets a program bring a handler of its own. With this one a callback is called on the
thread of the connection, not through the queue of another thread; every socket is known
here, so that a connection can be dropped from outside; and a session that nobody has
renewed for too long is noticed while kazoo waits, which would keep it alive for ever.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ._zookeeper_api import Reply, Settings

logger = logging.getLogger("tenure")

_READABLE = select.POLLIN | select.POLLERR | select.POLLHUP | select.POLLNVAL
_WRITABLE = select.POLLOUT | select.POLLERR | select.POLLHUP | select.POLLNVAL


class Late(Exception):
    """What kazoo calls a time-out."""


class Log:
    """kazoo's log. What it tells in detail has passwords in it, so that is not even formatted."""

    def log(self, level: int, *args: object) -> None:
        """Details."""

    def debug(self, *args: object) -> None:
        """Details."""

    info = debug

    def warning(self, text: str, *args: object) -> None:
        """Something that the driver tells of by itself."""
        logger.debug("tenure: kazoo: " + text, *args)

    warn = error = exception = warning


class Bell:
    """What kazoo wakes its thread with: a byte is sent for each request, and received again.

    A pair of sockets takes some 280 of them, and then blocks whoever makes a request, which may
    be a loop. A counter of the system's takes any number.
    """

    def __init__(self) -> None:
        self._file = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)

    def fileno(self) -> int:
        return self._file

    def send(self, _: bytes) -> int:
        os.eventfd_write(self._file, 1)
        return 1

    def recv(self, _: int) -> bytes:
        os.eventfd_read(self._file)
        return b"\0"

    def close(self) -> None:
        """Both ends are the same, and kazoo closes both."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class Handler:
    """`kazoo.interfaces.IHandler`, for one client."""

    name = "tenure"
    timeout_exception = Late
    running = True

    def __init__(self, settings: Settings, context: ssl.SSLContext | None) -> None:
        # For one of several servers, so that there is time left for another.
        self._share = settings.patience / min(3, settings.hosts.count(",") + 1)
        self._now = settings.now
        self._context = context
        self._verify_name = settings.verify
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.sleep_func = self.nap
        self.socket: socket.socket | None = None
        self.bell: Bell | None = None
        self.problem = ""
        self.refuses = False
        self.begins = False
        """Whether the connection is new, and the server has not said that it serves it."""
        self.until = math.inf
        """When the session is to be ended, on the clock that counts a suspend."""
        self.overdue: Callable[[], None] = _nothing
        self.failed: Callable[[], None] = _nothing

    # -- what kazoo asks for -----------------------------------------------

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def event_object(self) -> threading.Event:
        return threading.Event()

    def lock_object(self) -> Any:
        return threading.Lock()

    def rlock_object(self) -> Any:
        return threading.RLock()

    def async_result(self) -> Reply:
        return Reply()

    def dispatch_callback(self, callback: Any) -> None:
        callback.func(*callback.args)

    def spawn(self, work: Callable[..., object], *args: Any) -> threading.Thread:
        def run() -> None:
            try:
                work(*args)
            except Exception:
                # What a server's rubbish does to kazoo: the session is over, which it has told.
                logger.debug("tenure: kazoo's thread ended", exc_info=True)

        thread = threading.Thread(target=run, name="tenure-zookeeper", daemon=True)
        thread.start()
        return thread

    def create_socket_pair(self) -> tuple[Bell, Bell]:
        self.bell = Bell()
        return self.bell, self.bell

    def create_connection(
        self, address: tuple[str, int], hostname: str = "", timeout: float = 10.0, **_: object
    ) -> socket.socket:
        if self.refuses:
            raise OSError("the session is over")
        try:
            made = self._connect(address, hostname, min(timeout, self._share))
        except OSError as error:
            self.problem = f"{address[0]}:{address[1]}: {error.strerror or error}"
            raise
        if not self._take(made):
            made.close()
            raise OSError("the session is over")
        self.problem = f"{address[0]}:{address[1]}: no answer"
        return made

    def _take(self, made: socket.socket) -> bool:
        """Make it known to `drop`, unless there is to be no other connection."""
        with self._lock:
            if self.refuses:
                return False
            self.socket = made
            self.begins = True
            return True

    def _connect(self, address: tuple[str, int], hostname: str, timeout: float) -> socket.socket:
        made = socket.create_connection(address, timeout)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                name = hostname if self._verify_name else None
                made = self._context.wrap_socket(made, server_hostname=name)
        except BaseException:
            made.close()
            raise
        return made

    def select(
        self,
        readers: Sequence[Any],
        writers: Sequence[Any],
        _: Sequence[Any],
        timeout: float | None = None,
    ) -> tuple[list[Any], list[Any], list[Any]]:
        for each in readers:
            # What TLS has decrypted already makes no descriptor readable.
            if isinstance(each, ssl.SSLSocket) and each.pending():
                return [each], [], []
        poll = select.poll()
        for each in readers:
            poll.register(each, select.POLLIN)
        for each in writers:
            poll.register(each, select.POLLOUT)
        if self.begins:
            # A server that is just starting accepts connections, and never answers on them.
            timeout = min(timeout or 0.0, self._share)
        end = math.inf if timeout is None else self._now() + timeout
        while True:
            now = self._now()
            wait = min(end, self.until) - now
            # Bounded, because this wait does not count the time of a suspend.
            found = dict(poll.poll(max(0.0, min(wait, 1.0)) * 1000))
            now = self._now()
            if now >= self.until:
                self.until = math.inf
                self.overdue()
            if found:
                readable = [each for each in readers if found.get(each.fileno(), 0) & _READABLE]
                writable = [each for each in writers if found.get(each.fileno(), 0) & _WRITABLE]
                return readable, writable, []
            if now >= end:
                return [], [], []

    def nap(self, seconds: float) -> None:
        """Between two rounds of attempts to connect."""
        self.failed()
        self._stopped.wait(seconds)
        if self._now() >= self.until:
            self.until = math.inf
            self.overdue()

    # -- what the driver's side asks for -----------------------------------

    def drop(self) -> None:
        """End the connection under kazoo, which then makes another."""
        made = self.socket
        if made is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(made, socket.SHUT_RDWR)  # not TLS's, which says farewell

    def refuse(self) -> None:
        """Drop the connection and make no other."""
        with self._lock:
            self.refuses = True
        self._stopped.set()
        self.drop()

    def hurry(self) -> None:
        """Make no other connection, and let the present one end by itself."""
        with self._lock:
            self.refuses = True
        self._stopped.set()

    def abandon(self) -> None:
        """In a forked child: close the descriptors. Nothing is sent."""
        for each in (self.socket, self.bell):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.close()


def _nothing() -> None:
    """For what nobody has asked to be told."""
