"""A thread that sees connections end, and ends those whose server has stopped answering.

Blocking calls of a client library can often be bounded only from outside: by shutting
the socket down under them. The same thread waits for the other side to hang up, and
asks for nothing else (`EPOLLRDHUP` without `EPOLLIN`), so that it never takes part in
the conversation: bytes that arrive are left to whoever is waiting for them.

Where the platform has no epoll, only the late calls are ended; a connection that was
closed by the server is then found by the next renewal.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from typing import Protocol


class Watched(Protocol):
    """What the watch needs to know of a connection."""

    def overdue(self, now: float) -> bool:
        """Whether a call on it has gone unanswered for too long."""
        ...

    def hung_up(self) -> bool:
        """Whether the other side has closed it."""
        ...

    def end(self, reason: str) -> None:
        """End it from any thread."""
        ...


class Hangup:
    """Watches any number of connections from one background job."""

    def __init__(self, tick: float, overdue: str) -> None:
        self._tick = tick
        self._overdue = overdue
        self._watched: dict[int, Watched] = {}
        self._lock = threading.Lock()
        self._stopped = False
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._bell_out, self._bell_in = os.pipe()
        if self._epoll is not None:
            self._epoll.register(self._bell_out, select.EPOLLIN)

    def add(self, descriptor: int, connection: Watched) -> None:
        with self._lock:
            self._watched[descriptor] = connection
            if self._epoll is not None:
                # Once only: a connection that hung up stays so until it is removed.
                self._epoll.register(descriptor, select.EPOLLRDHUP | select.EPOLLONESHOT)

    def remove(self, descriptor: int) -> None:
        """Forget a connection; before its descriptor is closed, and may be used again."""
        with self._lock:
            if self._watched.pop(descriptor, None) and self._epoll and not self._epoll.closed:
                with contextlib.suppress(OSError):
                    self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Watch until `stop`; the background job's main."""
        try:
            while not self._stopped:
                for descriptor in self._wait():
                    connection = self._watched.get(descriptor)
                    # Asked again, because the number may belong to a new connection by now.
                    if connection is not None and connection.hung_up():
                        connection.end("the server closed the connection")
                now = time.monotonic()
                for connection in list(self._watched.values()):
                    if connection.overdue(now):
                        connection.end(self._overdue)
        finally:
            self._close()

    def _wait(self) -> list[int]:
        if self._epoll is not None:
            return [descriptor for descriptor, _ in self._epoll.poll(self._tick)]
        select.select([self._bell_out], [], [], self._tick)
        return []

    def stop(self) -> None:
        """Make `run` return soon."""
        with self._lock:
            if not self._stopped:
                self._stopped = True
                os.write(self._bell_in, b"!")

    def _close(self) -> None:
        with self._lock:
            self._stopped = True
            if self._epoll is not None:
                self._epoll.close()
            os.close(self._bell_out)
            os.close(self._bell_in)

    def abandon(self) -> None:
        """In a forked child: close the descriptors, which the parent goes on using."""
        # No lock: a thread that does not exist here may have held it. Nothing is
        # unregistered either, since parent and child share one epoll instance.
        if not self._stopped:
            self._stopped = True
            if self._epoll is not None:
                self._epoll.close()
            os.close(self._bell_out)
            os.close(self._bell_in)
