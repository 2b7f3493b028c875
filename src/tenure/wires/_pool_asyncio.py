"""Pools and connections for the asyncio runtime: protocols on the loop's own transports."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol, TypeVar, cast

from ._sockets import left, void
from .pool import Pool, Pooled


class StreamLink(asyncio.Protocol):
    """One connection, for one task at a time."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._end: Exception | None = None
        self.gone: asyncio.Future[None] = self._loop.create_future()

    # -- what the loop calls ---------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is None:
            self._end = exc or ConnectionResetError("the server closed the connection")
        self._wake()
        if not self.gone.done():
            self.gone.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- what the pool calls ---------------------------------------------------

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


class _Leaving(Pooled, Protocol):
    gone: asyncio.Future[None]


S = TypeVar("S", bound=_Leaving)


class AsyncioPool(Pool[S]):
    """Connections that belong to the running loop."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._leaving: set[asyncio.Future[None]] = set()

    def discard(self, link: S) -> None:
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
