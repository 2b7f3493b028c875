"""Watches over etcd's HTTP gateway for asyncio: a task for each of their connections."""

from __future__ import annotations

import asyncio
import time

from ..errors import TenureError, Unavailable
from . import _etcd_api as api
from . import _etcd_json as messages
from ._http_asyncio import AsyncioLink, AsyncioWire

_LOOK_SECONDS = 30.0


class AsyncioWatches:
    """A stream of watches on an event loop.

    Of watches that are asked for at the same time, a few share a connection.
    """

    def __init__(self, http: AsyncioWire, path: str) -> None:
        self._http = http
        self._path = path
        self._wanted: dict[int, api.Watch] = {}
        self._news: asyncio.Queue[api.News | TenureError] = asyncio.Queue()
        self._flows: dict[asyncio.Task[None], set[int]] = {}
        self._flow_of: dict[int, asyncio.Task[None]] = {}
        self._closed = False

    def send(self, request: api.Watch | api.Unwatch) -> None:
        if self._closed:
            return
        if isinstance(request, api.Watch):
            if not self._wanted:
                asyncio.get_running_loop().call_soon(self._begin)
            self._wanted[request.id] = request
        elif self._wanted.pop(request.id, None) is None:
            flow = self._flow_of.pop(request.id, None)
            if flow is not None:
                ids = self._flows.get(flow, set())
                ids.discard(request.id)
                if not ids:
                    flow.cancel()

    async def receive(self) -> api.News:
        news = await self._news.get()
        if isinstance(news, TenureError):
            self.close()
            raise news
        return news

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for flow in self._flows:
            flow.cancel()
        self._news.put_nowait(self._end("was closed"))

    async def ended(self) -> None:
        """Wait for the tasks, which were cancelled."""
        if self._flows:
            await asyncio.wait(list(self._flows), timeout=self._http.settings.patience)

    def abandon(self) -> None:
        """In a forked child: the tasks and their connections are the parent's."""
        self._closed = True

    def _begin(self) -> None:
        wanted, self._wanted = self._wanted, {}
        if self._closed or not wanted:
            return
        for ids, body in messages.watch_bodies(wanted.values()):
            flow = asyncio.get_running_loop().create_task(self._carry(ids, body))
            self._flows[flow] = ids
            self._flow_of.update((id, flow) for id in ids)
            flow.add_done_callback(self._flows.pop)

    async def _carry(self, ids: set[int], body: bytes) -> None:
        """Begin the watches on a connection of their own, and pass on what comes."""
        patience = self._http.settings.patience
        link: AsyncioLink | None = None
        try:
            link = await self._http.connect(time.monotonic() + patience)
            await link.send(self._http.pack(link.host, "POST", self._path, body), patience)
            await self._read(link, ids)
        except TenureError as error:
            if link is not None and not self._closed:
                self._http.failed(link, error)
            self._news.put_nowait(error)
        finally:
            if link is not None:
                self._http.discard(link)

    async def _read(self, link: AsyncioLink, ids: set[int]) -> None:
        reader, rest = link.reader, b""
        where = self._http.settings.label(link.host)
        while True:
            await link.receive(_LOOK_SECONDS)
            if reader.status not in (0, 200):
                if reader.done:
                    raise messages.refused(reader.status, reader.take(), where)[0]
                continue
            *lines, rest = (rest + reader.take()).split(b"\n")
            for line in lines:
                news = messages.news(line, where)
                if news.id in ids or news.cancelled:  # a refusal names none of them
                    self._news.put_nowait(news)
            if reader.done:
                raise Unavailable(f"{where}: the stream of watches ended")

    def _end(self, why: str) -> Unavailable:
        return Unavailable(f"{self._http.settings.name}: the stream of watches {why}")
