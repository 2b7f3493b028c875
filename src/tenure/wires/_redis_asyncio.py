"""Redis connections for the asyncio runtime: a protocol on the loop's own transports."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

import hiredis

from .._url import Host
from ..errors import ProtocolError
from ._redis import MORE, Reply, Settings, left, unanswered, unreached, unsent, void
from .redis import Wire


class AsyncioLink(asyncio.Protocol):
    """One connection, for one task at a time."""

    def __init__(self, patience: float, label: str) -> None:
        self._patience = patience
        self._label = label
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=MORE)
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._end: Exception | None = None
        self.gone = self._loop.create_future()

    # -- what the loop calls ---------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not MORE:
                self._replies.append(reply)
        except hiredis.ProtocolError as error:
            self._end = error
        if self._replies or self._end is not None:  # part of a reply is no reply
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
            late = TimeoutError(f"none within {patience:.3g} s")
            raise unanswered(late, self._label) from late
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
