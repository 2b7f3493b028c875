"""HTTP connections for the asyncio runtime: a protocol on the loop's own transports."""

from __future__ import annotations

import asyncio

from .._url import Host
from ._http import Reader, Reply, tune, unanswered, unreached, unsent
from ._pool_asyncio import AsyncioPool, StreamLink
from ._sockets import late, left
from .http import Wire


class AsyncioLink(StreamLink):
    """One connection, for one task at a time."""

    def __init__(self, host: Host, label: str) -> None:
        self.host = host
        self.turn = 0
        self.reader = Reader()
        super().__init__(label)
        self._asked = False
        self._arrived = False
        self._whole = False

    # -- what the loop calls ---------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        if not self._asked:
            self._end = ValueError("bytes that nobody asked for")
        if self._end is not None:
            return
        try:
            self.reader.feed(data)
        except ValueError as error:
            self._end = error
        self._arrived = True
        if self.reader.done or not self._whole or self._end is not None:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is None:
            properly = self._asked and exc is None and self.reader.end()
            self._arrived |= properly
        super().connection_lost(exc)

    # -- what the wire calls ---------------------------------------------------

    def usable(self) -> bool:
        return self._end is None

    async def call(self, packed: bytes, patience: float) -> Reply:
        await self.send(packed, patience)
        self._whole = True
        await self._wait(patience)
        if not self.reader.done or isinstance(self._end, ValueError):
            error = self._end or late(patience)
            raise unanswered(error, self._label) from error
        self._asked = False
        return self.reader.whole()

    async def send(self, packed: bytes, patience: float) -> None:
        # The transport buffers what the kernel does not take, so this never waits.
        if self._end is not None:
            raise unsent(self._end, self._label) from self._end
        assert self._transport is not None
        self.reader.reset()
        self._asked = True
        self._arrived = self._whole = False
        self._transport.write(packed)

    async def receive(self, patience: float) -> bool:
        if not self._arrived:
            await self._wait(patience)
        if self._arrived:
            self._arrived = False
            return True
        if self._end is not None:
            raise unanswered(self._end, self._label) from self._end
        return False

    async def _wait(self, patience: float) -> None:
        if self._end is not None:
            return
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_later(patience, self._wake)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def drop(self) -> None:
        super().drop()
        self._wake()


class AsyncioWire(AsyncioPool[AsyncioLink], Wire[AsyncioLink]):
    """Connections that belong to the running loop."""

    async def _dial(self, host: Host, until: float) -> AsyncioLink:
        label = self.settings.label(host)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(left(until)):
                _, link = await loop.create_connection(
                    lambda: AsyncioLink(host, label), host.name, host.port, ssl=self._tls
                )
        except (OSError, UnicodeError) as error:
            raise unreached(error, label) from error
        return link
