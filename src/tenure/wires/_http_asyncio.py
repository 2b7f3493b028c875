"""HTTP connections for the asyncio runtime: a protocol on the loop's own transports."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from .._url import Host
from ._http import Reader, Reply, Settings, late, left, tune, unanswered, unreached, unsent, void
from .http import Wire


class AsyncioLink(asyncio.Protocol):
    """One connection, for one task at a time."""

    def __init__(self, host: Host, label: str) -> None:
        self.host = host
        self.turn = 0
        self.reader = Reader()
        self._label = label
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._end: Exception | None = None
        self._asked = False
        self._arrived = False
        self._whole = False
        self.gone = self._loop.create_future()

    # -- what the loop calls ---------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
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
            self._end = exc or ConnectionResetError("the server closed the connection")
        self._wake()
        if not self.gone.done():
            self.gone.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

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

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def drop(self) -> None:
        if self._end is None:
            self._end = ConnectionAbortedError("the connection was dropped")
        self._wake()
        self.hang_up()

    def abandon(self) -> None:
        # The transport must not be touched: the loop's poll set is shared with the parent.
        assert self._transport is not None
        raw = self._transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            void(raw.fileno())


class AsyncioWire(Wire[AsyncioLink]):
    """Connections that belong to the running loop."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._leaving: set[asyncio.Future[None]] = set()

    def discard(self, link: AsyncioLink) -> None:
        super().discard(link)
        if not link.gone.done():
            self._leaving.add(link.gone)
            link.gone.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        self._closed = True
        self._drop_idle()
        for link in list(self._links):
            self.discard(link)
        while self._waiters:
            self._notify()
        if self._leaving:
            # A transport closes its socket one turn of the loop later.
            await asyncio.wait(self._leaving, timeout=self.settings.patience)

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
