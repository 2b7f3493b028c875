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

import contextlib
import os
import selectors
import socket
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Literal, Self

__all__ = ["Direction", "Proxy"]

Direction = Literal["both", "to_server", "to_client"]

_HOST = "127.0.0.1"
_CHUNK = 65536
_MOST_HELD = 16 * 1024 * 1024
_ANSWER_LIMIT = 10.0
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_FIN, _RST = "fin", "rst"


class _Lane:
    """One direction of one connection: what was read from `source` and is due at `sink`."""

    def __init__(self, source: socket.socket, sink: socket.socket, to_server: bool) -> None:
        self.source = source
        self.sink = sink
        self.to_server = to_server
        self.queue: deque[tuple[float, bytes | str]] = deque()
        self.held = 0
        self.ended = False  # nothing more will be read
        self.closed = False  # the end has been passed on, or nobody is left to take it
        self.torn = False  # bytes were dropped, so what follows them is of no use
        self.full = False  # the sink takes nothing more at the moment

    def push(self, item: bytes | str, due: float) -> None:
        if not self.closed:
            self.queue.append((due, item))
            self.held += len(item) if isinstance(item, bytes) else 0

    def discard(self) -> None:
        self.queue.clear()
        self.held = 0


class _Link:
    """One client's connection and the one to the server that was made for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.up = _Lane(client, server, True)
        self.down = _Lane(server, client, False)
        self.connecting = True
        self.over = False
        self.masks = {client: 0, server: 0}


class Proxy:
    """Forwards loopback connections to one server, in a thread of its own.

    As a context manager it starts and closes. `target` may be replaced at any time and
    counts for connections made afterwards.
    """

    host = _HOST

    def __init__(self, target_host: str, target_port: int) -> None:
        self.target = (target_host, target_port)
        self.accepted = 0
        """How many connections there have been."""
        self.bytes_to_server = 0
        self.bytes_to_client = 0
        self.swallowed = 0
        """Bytes that a fault kept back, dropped, or answered with garbage."""
        self._links: set[_Link] = set()
        self._shut: set[bool] = set()  # holds True when the lane to the server is shut
        self._drop: set[bool] = set()
        self._delay = {True: 0.0, False: 0.0}
        self._garbage: bytes | None = None
        self._commands: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._stopping = False
        self._thread: threading.Thread | None = None
        # Bound but never listening: it keeps the port while `cut` has no listener.
        self._reserve = _bound(0)
        self.port: int = self._reserve.getsockname()[1]
        self._listener: socket.socket | None = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_out, _READ, None)
        self._listen()
        _proxies.add(self)

    # Faults, from any thread.

    def cut(self) -> None:
        """Reset every connection and refuse new ones, until `heal`."""

        def cut() -> None:
            self._deafen()
            self._reset_all()

        self._order(cut)

    def reset(self) -> None:
        """Reset every connection that there is now; new ones are welcome."""
        self._order(self._reset_all)

    def black_hole(self, direction: Direction = "both", *, drop: bool = False) -> None:
        """Let nothing through until `heal`; the connections stay open.

        What was held flows on after `heal`. With `drop` it is thrown away, and a
        connection that lost something is reset by `heal`, since TCP never leaves out
        bytes from the middle. That one side closed or reset is held back as well.
        """

        lanes = _lanes(direction)

        def shut() -> None:
            self._shut |= lanes
            self._drop = self._drop | lanes if drop else self._drop - lanes

        self._order(shut)

    def delay(self, seconds: float, direction: Direction = "both") -> None:
        """Let everything that arrives from now on wait so long; it keeps its order."""

        lanes = _lanes(direction)

        def slow() -> None:
            for lane in lanes:
                self._delay[lane] = seconds

        self._order(slow)

    def garbage(self, data: bytes) -> None:
        """Answer whatever a client sends with these bytes; the server does not see it."""

        def spoil() -> None:
            self._garbage = data

        self._order(spoil)

    def heal(self) -> None:
        """End every fault: listen again, pass on at once what was held or delayed."""

        def heal() -> None:
            self._shut.clear()
            self._drop.clear()
            self._delay = {True: 0.0, False: 0.0}
            self._garbage = None
            for link in list(self._links):
                for lane in (link.up, link.down):
                    lane.queue = deque((0.0, item) for _, item in lane.queue)
                if link.up.torn or link.down.torn:
                    self._abort(link)
            self._listen()

        self._order(heal)

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._links)

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
            self._ring()
            self._thread.join()
            self._thread = None
        self._deafen()
        self._reset_all()
        self._close_files()
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

    # The thread. Only it touches sockets and faults, so nothing needs a lock.

    def _order(self, work: Callable[[], None]) -> None:
        thread = self._thread
        if thread is None or not thread.is_alive():
            raise RuntimeError("the proxy is not running")
        done: Future[None] = Future()
        self._commands.append((work, done))
        self._ring()
        done.result(_ANSWER_LIMIT)

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is awake anyway
            self._wake_in.send(b"!")

    def _work(self) -> None:
        while not self._stopping:
            changed: set[_Link] = set()
            for key, mask in self._selector.select(self._patience()):
                if key.data is None:
                    self._wake_out.recv(_CHUNK)
                elif key.data is self:
                    self._accept(changed)
                else:
                    changed.add(key.data)
                    self._receive(key.data, key.fileobj, mask)
            while self._commands:
                work, done = self._commands.popleft()
                try:
                    work()
                except OSError as error:
                    done.set_exception(error)
                else:
                    done.set_result(None)
                changed |= self._links
            if any(self._delay.values()) or self._waiting():
                changed |= self._links
            for link in changed:
                self._advance(link)

    def _waiting(self) -> bool:
        return any(link.up.queue or link.down.queue for link in self._links)

    def _patience(self) -> float | None:
        """Until when the selector may sleep: the first delayed bytes that can flow."""
        dues = [
            lane.queue[0][0]
            for link in self._links
            for lane in (link.up, link.down)
            if lane.queue and self._flows(link, lane) and not lane.full
        ]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _flows(self, link: _Link, lane: _Lane) -> bool:
        return lane.to_server not in self._shut and not (lane.to_server and link.connecting)

    def _accept(self, changed: set[_Link]) -> None:
        if self._listener is None:
            return
        try:
            client, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        self.accepted += 1
        server = socket.socket()
        link = _Link(client, server)
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._links.add(link)
        changed.add(link)
        with contextlib.suppress(BlockingIOError):
            try:
                server.connect(self.target)
            except ConnectionError:
                self._abort(link)

    def _receive(self, link: _Link, end: object, mask: int) -> None:
        if link.over:
            return
        lane, back = (link.up, link.down) if end is link.client else (link.down, link.up)
        if mask & _WRITE:
            back.full = False
            if link.connecting and end is link.server:
                link.connecting = False
                if link.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self._abort(link)
                    return
        if not mask & _READ or lane.ended:
            return
        try:
            data = lane.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._lost(link, lane, back)
            return
        now = time.monotonic()
        due = now + self._delay[lane.to_server]
        if not data:
            lane.ended = True
            lane.push(_FIN, due)
        elif self._garbage is not None and lane.to_server:
            self.swallowed += len(data)
            back.push(self._garbage, now + self._delay[False])
        elif lane.to_server in self._drop:
            self.swallowed += len(data)
            lane.torn = True
        elif lane.closed:
            self.swallowed += len(data)
        else:
            self.swallowed += len(data) if lane.to_server in self._shut else 0
            lane.push(data, due)

    def _lost(self, link: _Link, lane: _Lane, back: _Lane) -> None:
        """The lane's source is gone: its sink is reset once the lane lets that through."""
        if not lane.ended:
            lane.ended = True
            lane.push(_RST, time.monotonic() + self._delay[lane.to_server])
        elif not lane.closed:
            lane.push(_RST, time.monotonic())
        else:
            self._abort(link)
        back.closed = True
        back.discard()
        self._watch(link, lane.source, 0)

    def _advance(self, link: _Link) -> None:
        """Pass on what is due and adjust what the selector waits for."""
        for lane, back in ((link.up, link.down), (link.down, link.up)):
            if not link.over and self._flows(link, lane):
                self._flush(link, lane, back)
        if link.over:
            return
        if link.up.closed and link.down.closed:
            self._abort(link, politely=True)
            return
        for lane, back in ((link.up, link.down), (link.down, link.up)):
            reads = not lane.ended and lane.held < _MOST_HELD
            writes = back.full or (link.connecting and lane.source is link.server)
            gone = back.closed and lane.ended
            mask = 0 if gone else (_READ if reads else 0) | (_WRITE if writes else 0)
            self._watch(link, lane.source, mask)

    def _flush(self, link: _Link, lane: _Lane, back: _Lane) -> None:
        now = time.monotonic()
        while lane.queue and lane.queue[0][0] <= now and not lane.closed and not link.over:
            due, item = lane.queue[0]
            if isinstance(item, str):
                lane.queue.popleft()
                lane.closed = True
                if item is _RST:
                    self._abort(link)
                else:
                    with contextlib.suppress(OSError):
                        lane.sink.shutdown(socket.SHUT_WR)
                return
            try:
                sent = lane.sink.send(item)
            except BlockingIOError:
                lane.full = True
                return
            except OSError:
                self._lost(link, back, lane)
                return
            lane.held -= sent
            if lane.to_server:
                self.bytes_to_server += sent
            else:
                self.bytes_to_client += sent
            lane.queue.popleft()
            if sent < len(item):
                lane.queue.appendleft((due, item[sent:]))

    def _watch(self, link: _Link, end: socket.socket, mask: int) -> None:
        before = link.masks[end]
        if mask == before:
            return
        if not before:
            self._selector.register(end, mask, link)
        elif not mask:
            self._selector.unregister(end)
        else:
            self._selector.modify(end, mask, link)
        link.masks[end] = mask

    def _abort(self, link: _Link, *, politely: bool = False) -> None:
        """Close both ends, with a reset unless both sides have said goodbye."""
        if link.over:
            return
        link.over = True
        self._links.discard(link)
        for end in (link.client, link.server):
            self._watch(link, end, 0)
            if not politely:
                linger = struct.pack("ii", 1, 0)
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.close()

    def _reset_all(self) -> None:
        for link in list(self._links):
            self._abort(link)

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.listen(1024)
            self._listener.setblocking(False)
            self._selector.register(self._listener, _READ, self)

    def _deafen(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _close_files(self) -> None:
        self._selector.close()
        for end in (self._reserve, self._wake_in, self._wake_out):
            end.close()

    def _forked(self) -> None:
        # A copy in a child would keep connections open that the parent resets. Only the
        # descriptors are closed here: the selector's kernel object is the parent's too.
        self._thread = None
        for link in self._links:
            link.client.close()
            link.server.close()
        self._links = set()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._close_files()


def _bound(port: int) -> socket.socket:
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        end.bind((_HOST, port))
    except OSError:
        end.close()
        raise
    return end


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
