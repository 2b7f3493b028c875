"""Watches over etcd's HTTP gateway for threads: one thread reads all their connections."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque

from ..errors import Unavailable
from . import _etcd_api as api
from . import _etcd_json as messages
from ._http_blocking import BlockingLink, BlockingWire

_LOOK_SECONDS = 30.0
_READ_SECONDS = 1.0


class _Flow:
    """One connection, and the watches that began with it."""

    __slots__ = ("ids", "link", "rest")

    def __init__(self, link: BlockingLink, ids: set[int]) -> None:
        self.link = link
        self.ids = ids
        self.rest = b""


class BlockingWatches:
    """A stream of watches that one thread reads and any may write to.

    Of watches that are asked for at the same time, a few share a connection.
    """

    def __init__(self, http: BlockingWire, path: str) -> None:
        self._http = http
        self._path = path
        self._lock = threading.Lock()
        self._wanted: deque[api.Watch | api.Unwatch] = deque()
        self._news: deque[api.News] = deque()
        self._flows: dict[int, _Flow] = {}
        self._flow_of: dict[int, _Flow] = {}
        self._poll = select.poll()
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        self._poll.register(self._ear, select.POLLIN)
        self._reading = False
        self._closed = False

    def send(self, request: api.Watch | api.Unwatch) -> None:
        with self._lock:
            if not self._closed:
                self._wanted.append(request)
                self._ring()

    async def receive(self) -> api.News:
        with self._lock:
            if self._closed:
                raise self._end("was closed")
            self._reading = True
        try:
            while not self._news:
                await self._heed()
                await self._listen()
                if self._closed:
                    raise self._end("was closed")
            return self._news.popleft()
        finally:
            with self._lock:
                self._reading = False

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._ring()
            if self._reading or self._bell.fileno() < 0:
                return  # the reader closes it when it has woken
            self._ear.close()
            self._bell.close()
        for flow in self._flows.values():
            self._http.discard(flow.link)
        self._flows.clear()

    async def ended(self) -> None:
        """Nothing is left that takes time to end."""

    def abandon(self) -> None:
        """In a forked child: the connections are the HTTP wire's, the bell is not."""
        self._closed = True
        self._ear.close()
        self._bell.close()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it rings already
            self._bell.send(b"!")

    async def _heed(self) -> None:
        """Do what was asked for meanwhile."""
        begun: list[api.Watch] = []
        while self._wanted:
            request = self._wanted.popleft()
            if isinstance(request, api.Watch):
                begun.append(request)
                continue
            begun = [watch for watch in begun if watch.id != request.id]
            flow = self._flow_of.pop(request.id, None)
            if flow is not None:
                flow.ids.discard(request.id)
                if not flow.ids:
                    self._drop(flow)
        for ids, body in messages.watch_bodies(begun):
            await self._begin(ids, body)

    async def _begin(self, ids: set[int], body: bytes) -> None:
        patience = self._http.settings.patience
        link = await self._http.connect(time.monotonic() + patience)
        flow = _Flow(link, ids)
        self._flows[link.fileno()] = flow
        self._flow_of.update((id, flow) for id in flow.ids)
        self._poll.register(link.fileno(), select.POLLIN)
        await link.send(self._http.pack(link.host, "POST", self._path, body), patience)

    async def _listen(self) -> None:
        for descriptor, _ in self._poll.poll(_LOOK_SECONDS * 1000):
            if descriptor == self._ear.fileno():
                with contextlib.suppress(BlockingIOError):
                    self._ear.recv(4096)
                continue
            flow = self._flows.get(descriptor)
            if flow is not None:
                try:
                    await self._read(flow)
                except Unavailable as error:
                    self._http.failed(flow.link, error)
                    raise

    async def _read(self, flow: _Flow) -> None:
        link = flow.link
        await link.receive(_READ_SECONDS)
        while link.pending():
            await link.receive(_READ_SECONDS)
        reader = link.reader
        where = self._http.settings.label(link.host)
        if reader.status not in (0, 200):
            if reader.done:
                raise messages.refused(reader.status, reader.take(), where)[0]
            return
        *lines, flow.rest = (flow.rest + reader.take()).split(b"\n")
        for line in lines:
            news = messages.news(line, where)
            if news.id in flow.ids or news.cancelled:  # a refusal names none of them
                self._news.append(news)
        if reader.done:
            raise Unavailable(f"{where}: the stream of watches ended")

    def _drop(self, flow: _Flow) -> None:
        descriptor = flow.link.fileno()
        self._poll.unregister(descriptor)
        del self._flows[descriptor]
        self._http.discard(flow.link)

    def _end(self, why: str) -> Unavailable:
        return Unavailable(f"{self._http.settings.name}: the stream of watches {why}")
