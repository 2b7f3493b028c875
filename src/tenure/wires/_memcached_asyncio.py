"""memcached connections for the asyncio runtime: a protocol on the loop's own transports."""

from __future__ import annotations

import asyncio

from ..errors import ProtocolError, TenureError
from ._memcached import Greeted, Parser, Reply, unanswered, unreached, unsent
from ._pool_asyncio import AsyncioPool, StreamLink
from ._sockets import late, left
from .memcached import Wire


class AsyncioLink(StreamLink):
    """One connection, for one task at a time."""

    greeted: Greeted

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self._parser = Parser(label)
        self._replies: list[Reply] = []
        self._count = 0

    # -- what the loop calls ---------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data, self._replies)
        except TenureError as error:
            self._end = self._end or error
        if len(self._replies) >= self._count or self._end is not None:
            self._wake()

    # -- what the wire calls ---------------------------------------------------

    def usable(self) -> bool:
        return self._end is None and not self._replies and self._parser.idle()

    async def call(self, packed: bytes, count: int, patience: float) -> list[Reply]:
        if self._end is not None:
            raise unsent(self._end, self._label) from self._end
        assert self._transport is not None
        self._count = count
        waiter = self._waiter = self._loop.create_future()
        # The transport buffers what the kernel does not take, so this never waits.
        self._transport.write(packed)
        timer = self._loop.call_later(patience, self._wake)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None
        replies, self._replies = self._replies, []
        if len(replies) > count or (len(replies) == count and not self._parser.idle()):
            raise ProtocolError(f"{self._label}: more replies than requests")
        if len(replies) == count:
            return replies
        if isinstance(self._end, TenureError):
            raise self._end
        reason = self._end or late(patience)
        raise unanswered(reason, self._label) from reason


class AsyncioWire(AsyncioPool[AsyncioLink], Wire[AsyncioLink]):
    """Connections that belong to the running loop."""

    async def _dial(self, until: float) -> AsyncioLink:
        settings = self.settings
        loop = asyncio.get_running_loop()
        host = settings.host
        try:
            async with asyncio.timeout(left(until)):
                _, link = await loop.create_connection(
                    lambda: AsyncioLink(settings.label), host.name, host.port
                )
        except (OSError, UnicodeError) as error:
            raise unreached(error, settings.label) from error
        return link
