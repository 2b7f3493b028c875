"""A TCP proxy on loopback whose faults are switched while clients are connected.

    with Proxy(server.host, server.port) as proxy:
        coordinator = tenure.connect(server.url_at(proxy.port))
        proxy.black_hole("to_client")    # requests arrive, replies do not
        ...
        proxy.heal()

When a call returns, its fault is in force: a reset has been sent, nothing more flows.
The counters prove that a fault bit: a test should wait for them (`wait_swallowed`).

What a proxy cannot do: the kernel still acknowledges what a client sends into a black
hole, and completes new connections to it; they are silent. And a client of a server
that is down is accepted and then reset, instead of refused; use `cut` for the latter.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Literal, Self

from ._relay import HOST, Relay

__all__ = ["Direction", "Proxy"]

Direction = Literal["both", "to_server", "to_client"]

_ANSWER_LIMIT = 10.0


class Proxy:
    """Forwards loopback connections to one server, in a thread of its own.

    As a context manager it starts and closes. The counters begin at zero and only grow.
    """

    host = HOST

    def __init__(self, target_host: str, target_port: int) -> None:
        self._relay = Relay((target_host, target_port))
        self._orders: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._stopping = False
        self._thread: threading.Thread | None = None
        _proxies.add(self)

    # Faults, from any thread.

    def cut(self) -> None:
        """Reset every connection and refuse new ones, until `heal`."""

        def cut() -> None:
            self._relay.deafen()
            self._relay.reset_all()

        self._order(cut)

    def reset(self) -> None:
        """Reset every connection that there is now; new ones are welcome."""
        self._order(self._relay.reset_all)

    def black_hole(self, direction: Direction = "both", *, drop: bool = False) -> None:
        """Let nothing through until `heal`; the connections stay open.

        What was held flows on after `heal`. With `drop` it is thrown away, and a
        connection that lost something is reset by `heal`, since TCP never leaves out
        bytes from the middle. That one side closed or reset is held back as well.
        """
        lanes = _lanes(direction)

        def shut() -> None:
            self._relay.shut |= lanes
            self._relay.drop = self._relay.drop | lanes if drop else self._relay.drop - lanes

        self._order(shut)

    def delay(self, seconds: float, direction: Direction = "both") -> None:
        """Let everything that arrives from now on wait so long; it keeps its order."""
        lanes = _lanes(direction)

        def slow() -> None:
            for lane in lanes:
                self._relay.delay[lane] = seconds

        self._order(slow)

    def garbage(self, data: bytes) -> None:
        """Answer whatever a client sends with these bytes; the server does not see it."""

        def spoil() -> None:
            self._relay.garbage = data

        self._order(spoil)

    def heal(self) -> None:
        """End every fault: listen again, pass on at once what was held or delayed."""
        self._order(self._relay.heal)

    @property
    def port(self) -> int:
        """The port to connect to; it stays the same until the proxy is closed."""
        return self._relay.port

    @property
    def target(self) -> tuple[str, int]:
        """Where new connections lead; assign another address at any time."""
        return self._relay.target

    @target.setter
    def target(self, address: tuple[str, int]) -> None:
        self._relay.target = address

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._relay.links)

    @property
    def accepted(self) -> int:
        """How many connections there have been."""
        return self._relay.accepted

    @property
    def bytes_to_server(self) -> int:
        """How many bytes were passed on to the server."""
        return self._relay.carried[True]

    @property
    def bytes_to_client(self) -> int:
        """How many bytes were passed on to clients, garbage included."""
        return self._relay.carried[False]

    @property
    def swallowed(self) -> int:
        """How many bytes a fault kept back, dropped, or answered with garbage."""
        return self._relay.swallowed

    def wait_swallowed(self, more_than: int = 0, *, timeout: float = 10.0) -> None:
        """Return once more bytes than that have been swallowed; `TimeoutError` if not."""
        deadline = time.monotonic() + timeout
        while self.swallowed <= more_than:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the proxy swallowed {self.swallowed} bytes in {timeout:g} s")
            time.sleep(0.002)

    def start(self) -> Self:
        """Begin to accept connections."""
        self._thread = threading.Thread(target=self._work, name="tenure-proxy", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Reset every connection and give the port back."""
        if self._thread is not None:
            self._stopping = True
            self._relay.wake()
            self._thread.join()
            self._thread = None
        self._relay.close()
        _proxies.discard(self)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        host, port = self.target
        return f"<Proxy {self.host}:{self.port} to {host}:{port}, {self.connections} connections>"

    # The thread. Only it touches connections and faults, so nothing needs a lock.

    def _order(self, work: Callable[[], None]) -> None:
        """Have the thread do something and wait until it is done."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            raise RuntimeError("the proxy is not running")
        done: Future[None] = Future()
        self._orders.append((work, done))
        self._relay.wake()
        done.result(_ANSWER_LIMIT)

    def _work(self) -> None:
        while not self._stopping:
            changed = self._relay.receive()
            while self._orders:
                work, done = self._orders.popleft()
                try:
                    work()
                except OSError as error:
                    done.set_exception(error)
                else:
                    done.set_result(None)
                changed |= self._relay.links
            self._relay.advance(changed)

    def _forked(self) -> None:
        # A copy in a child would keep connections open that the parent resets.
        self._thread = None
        self._relay.forget()


def _lanes(direction: Direction) -> set[bool]:
    lanes = {"both": {True, False}, "to_server": {True}, "to_client": {False}}
    if direction not in lanes:
        raise ValueError(f"direction must be one of {', '.join(lanes)}, not {direction!r}")
    return lanes[direction]


_proxies: weakref.WeakSet[Proxy] = weakref.WeakSet()


def _forget_in_child() -> None:
    for proxy in list(_proxies):
        proxy._forked()
    _proxies.clear()


os.register_at_fork(after_in_child=_forget_in_child)
