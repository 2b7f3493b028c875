"""The engine of the proxy: one step after another, without blocking, for one thread.

Each direction of a connection is a lane with a queue. What arrives is queued with the
time at which it is due, and so are the ends: a side that closed or reset. A lane that is
shut keeps its queue, so a fault needs no special paths.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import time
from collections import deque

HOST = "127.0.0.1"

_CHUNK = 65536
_MOST_HELD = 16 * 1024 * 1024
_BACKLOG = 1024
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_FIN, _RST = "fin", "rst"


class Lane:
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


class Link:
    """One client's connection and the one to the server that was made for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.up = Lane(client, server, True)
        self.down = Lane(server, client, False)
        self.connecting = True
        self.over = False
        self.masks = {client: 0, server: 0}


class Relay:
    """Connections and faults. Sets and maps of directions use True for "to the server"."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.accepted = 0
        self.swallowed = 0
        self.carried = {True: 0, False: 0}
        self.links: set[Link] = set()
        self.shut: set[bool] = set()
        self.drop: set[bool] = set()
        self.delay = {True: 0.0, False: 0.0}
        self.garbage: bytes | None = None
        # Bound but never listening: it keeps the port while there is no listener.
        self._reserve = _bound(0)
        self.port: int = self._reserve.getsockname()[1]
        self._listener: socket.socket | None = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_out, _READ, None)
        self.listen()

    def wake(self) -> None:
        """End the present wait; the one method that any thread may call."""
        with contextlib.suppress(BlockingIOError):  # full: it is awake anyway
            self._wake_in.send(b"!")

    def receive(self) -> set[Link]:
        """Wait for something to happen and take it in; return the links to advance."""
        changed: set[Link] = set()
        for key, mask in self._selector.select(self._patience()):
            if key.data is None:
                self._wake_out.recv(_CHUNK)
            elif key.data is self:
                self._accept(changed)
            else:
                changed.add(key.data)
                self._receive(key.data, key.fileobj, mask)
        return changed

    def advance(self, changed: set[Link]) -> None:
        """Pass on what is due on these links, and on all others that have been waiting."""
        waiting = {link for link in self.links if link.up.queue or link.down.queue}
        for link in changed | waiting:
            self._advance(link)

    def heal(self) -> None:
        """End every fault."""
        self.shut.clear()
        self.drop.clear()
        self.delay = {True: 0.0, False: 0.0}
        self.garbage = None
        for link in list(self.links):
            for lane in (link.up, link.down):
                lane.queue = deque((0.0, item) for _, item in lane.queue)
            if link.up.torn or link.down.torn:
                self._abort(link)
        self.listen()

    def reset_all(self) -> None:
        """Reset both ends of every connection."""
        for link in list(self.links):
            self._abort(link)

    def listen(self) -> None:
        """Accept connections, if that is not so already."""
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.listen(_BACKLOG)
            self._listener.setblocking(False)
            self._selector.register(self._listener, _READ, self)

    def deafen(self) -> None:
        """Refuse connections from now on."""
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        """Reset every connection and close every file; do so twice without harm."""
        self.deafen()
        self.reset_all()
        self._close_files()

    def forget(self) -> None:
        """Close this process's copies after a fork, and touch nothing of the parent's.

        The selector's kernel object is the parent's as well, so nothing is unregistered.
        """
        for link in self.links:
            link.client.close()
            link.server.close()
        self.links = set()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._close_files()

    def _close_files(self) -> None:
        self._selector.close()
        for end in (self._reserve, self._wake_in, self._wake_out):
            end.close()

    def _patience(self) -> float | None:
        """Until when the selector may sleep: the first delayed bytes that can flow."""
        dues = [
            lane.queue[0][0]
            for link in self.links
            for lane in (link.up, link.down)
            if lane.queue and self._flows(link, lane) and not lane.full
        ]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _flows(self, link: Link, lane: Lane) -> bool:
        return lane.to_server not in self.shut and not (lane.to_server and link.connecting)

    def _accept(self, changed: set[Link]) -> None:
        if self._listener is None:
            return
        try:
            client, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        self.accepted += 1
        server = socket.socket()
        link = Link(client, server)
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.links.add(link)
        changed.add(link)
        with contextlib.suppress(BlockingIOError):
            try:
                server.connect(self.target)
            except ConnectionError:
                self._abort(link)

    def _receive(self, link: Link, end: object, mask: int) -> None:
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
        due = now + self.delay[lane.to_server]
        if not data:
            lane.ended = True
            lane.push(_FIN, due)
        elif self.garbage is not None and lane.to_server:
            self.swallowed += len(data)
            back.push(self.garbage, now + self.delay[False])
        elif lane.to_server in self.drop:
            self.swallowed += len(data)
            lane.torn = True
        elif lane.closed:
            self.swallowed += len(data)
        else:
            self.swallowed += len(data) if lane.to_server in self.shut else 0
            lane.push(data, due)

    def _lost(self, link: Link, lane: Lane, back: Lane) -> None:
        """The lane's source is gone: its sink is reset once the lane lets that through."""
        if not lane.ended:
            lane.ended = True
            lane.push(_RST, time.monotonic() + self.delay[lane.to_server])
        elif not lane.closed:
            lane.push(_RST, time.monotonic())
        else:
            self._abort(link)
        back.closed = True
        back.discard()
        self._watch(link, lane.source, 0)

    def _advance(self, link: Link) -> None:
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

    def _flush(self, link: Link, lane: Lane, back: Lane) -> None:
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
            # Counted before, corrected after: who has read a byte finds it counted.
            self.carried[lane.to_server] += len(item)
            sent = 0
            try:
                sent = lane.sink.send(item)
            except BlockingIOError:
                lane.full = True
                return
            except OSError:
                self._lost(link, back, lane)
                return
            finally:
                self.carried[lane.to_server] -= len(item) - sent
            lane.held -= sent
            lane.queue.popleft()
            if sent < len(item):
                lane.queue.appendleft((due, item[sent:]))

    def _watch(self, link: Link, end: socket.socket, mask: int) -> None:
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

    def _abort(self, link: Link, *, politely: bool = False) -> None:
        """Close both ends, with a reset unless both sides have said goodbye."""
        if link.over:
            return
        link.over = True
        self.links.discard(link)
        for end in (link.client, link.server):
            self._watch(link, end, 0)
            if not politely:
                linger = struct.pack("ii", 1, 0)
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.close()


def _bound(port: int) -> socket.socket:
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        end.bind((HOST, port))
    except OSError:
        end.close()
        raise
    return end
