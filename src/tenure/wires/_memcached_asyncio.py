"""memcached connections for the asyncio runtime: a protocol on the loop's own transports."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from ..errors import ProtocolError, TenureError
from ._memcached import Greeted, Parser, Reply, Settings, late, left, unanswered, unreached, unsent
from ._memcached import void as _void
from .memcached import Wire


class AsyncioLink(asyncio.Protocol):
    """One connection, for one task at a time."""

    greeted: Greeted

    def __init__(self, label: str) -> None:
        self._label = label
        self._loop = asyncio.get_running_loop()
        self._parser = Parser(label)
        self._replies: list[Reply] = []
        self._count = 0
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._end: Exception | None = None
        self.gone = self._loop.create_future()

    # -- what the loop calls ---------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data, self._replies)
        except TenureError as error:
            self._end = self._end or error
        if len(self._replies) >= self._count or self._end is not None:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is None:
            self._end = exc or ConnectionResetError("the server closed the connection")
        self._wake()
        if not self.gone.done():
            self.gone.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

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

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def drop(self) -> None:
        if self._end is None:
            self._end = ConnectionAbortedError("the connection was dropped")
        self.hang_up()

    def abandon(self) -> None:
        # The transport must not be touched: the loop's poll set is shared with the parent.
        assert self._transport is not None
        raw = self._transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            _void(raw.fileno())


class AsyncioWire(Wire[AsyncioLink]):
    """Connections that belong to the running loop."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._leaving: set[asyncio.Future[None]] = set()

    def _discard(self, link: AsyncioLink) -> None:
        super()._discard(link)
        if not link.gone.done():
            self._leaving.add(link.gone)
            link.gone.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        self._closed = True
        self._drop_idle()
        for link in list(self._links):
            self._discard(link)
        while self._waiters:
            self._notify()
        if self._leaving:
            # A transport closes its socket one turn of the loop later.
            await asyncio.wait(self._leaving, timeout=self.settings.patience)

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

    async def _wait(self, until: float) -> bool:
        if self._free or self._slots or self._closed:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._waiting += 1
        try:
            async with asyncio.timeout(left(until)):
                await waiter
        except TimeoutError:
            self._pass_on(waiter)
            return False
        except BaseException:
            self._pass_on(waiter)
            raise
        finally:
            self._waiting -= 1
        return True

    def _pass_on(self, waiter: asyncio.Future[None]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif not waiter.cancelled():
            self._notify()  # it was told of a free connection and will not take it

    def _notify(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
