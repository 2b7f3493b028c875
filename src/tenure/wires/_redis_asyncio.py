"""Redis connections for the asyncio runtime: a protocol on the loop's own transports."""

from __future__ import annotations

import asyncio
from collections import deque

import hiredis

from .._url import Host
from ..errors import ProtocolError
from ._pool_asyncio import AsyncioPool, StreamLink
from ._redis import MORE, Reply, unanswered, unreached, unsent
from ._sockets import late, left
from .redis import Wire


class AsyncioLink(StreamLink):
    """One connection, for one task at a time."""

    def __init__(self, patience: float, label: str) -> None:
        self._patience = patience
        super().__init__(label)
        self._reader = hiredis.Reader(notEnoughData=MORE)
        self._replies: deque[Reply] = deque()

    # -- what the loop calls ---------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not MORE:
                self._replies.append(reply)
        except hiredis.ProtocolError as error:
            self._end = error
        if self._replies or self._end is not None:  # part of a reply is no reply
            self._wake()

    # -- what the wire calls ---------------------------------------------------

    def usable(self) -> bool:
        return self._end is None and not self._replies

    async def call(self, packed: bytes) -> Reply:
        return await self.call_within(packed, self._patience)

    async def call_within(self, packed: bytes, patience: float) -> Reply:
        await self.send(packed, patience)
        reply = await self._reply(patience)
        self._check_quiet()
        return reply

    async def series(self, packed: bytes, count: int, patience: float) -> list[Reply]:
        until = self._loop.time() + patience
        await self.send(packed, patience)
        replies = [await self._reply(until - self._loop.time()) for _ in range(count)]
        self._check_quiet()
        return replies

    async def _reply(self, patience: float) -> Reply:
        reply = await self.receive(patience)
        if reply is MORE:
            error = late(patience)
            raise unanswered(error, self._label) from error
        return reply

    def _check_quiet(self) -> None:
        if self._replies or self._reader.has_data():
            raise ProtocolError(f"{self._label}: more replies than commands")

    async def send(self, packed: bytes, patience: float) -> None:
        # The transport buffers what the kernel does not take, so this never waits.
        if self._end is not None:
            raise unsent(self._end, self._label) from self._end
        assert self._transport is not None
        self._transport.write(packed)

    async def receive(self, patience: float) -> Reply:
        if not self._replies and self._end is None:
            waiter = self._waiter = self._loop.create_future()
            timer = self._loop.call_later(patience, self._wake)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self._replies:
            return self._replies.popleft()
        if self._end is not None:
            raise unanswered(self._end, self._label) from self._end
        nothing: Reply = MORE
        return nothing


class AsyncioWire(AsyncioPool[AsyncioLink], Wire[AsyncioLink]):
    """Connections that belong to the running loop."""

    async def _dial(self, host: Host | None, until: float) -> AsyncioLink:
        settings = self.settings
        loop = asyncio.get_running_loop()

        def make() -> AsyncioLink:
            return AsyncioLink(settings.patience, settings.label)

        try:
            async with asyncio.timeout(left(until)):
                if host is None:
                    _, link = await loop.create_unix_connection(make, settings.path)
                else:
                    _, link = await loop.create_connection(
                        make, host.name, host.port, ssl=self._tls
                    )
        except (OSError, UnicodeError) as error:
            raise unreached(error, settings.label) from error
        return link
