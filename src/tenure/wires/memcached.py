"""memcached's meta protocol over plain sockets: a blocking wire and an asyncio wire.

A call is one write of one or more requests and the replies to all of them, on a
connection that nobody else uses meanwhile. A connection on which anything went wrong is
dropped, and so is every idle one, which most likely shares its fate.

A server counts its versions from 1 again when it is restarted. So every connection knows
which life of the server it speaks to, and what was read in one life is never compared in
another.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

from .._runtime.base import Flavour
from ..errors import AuthenticationFailed, OutcomeUnknown, Unavailable
from ._memcached import (
    INSTANCE_KEY,
    Greeted,
    Reply,
    Settings,
    greeting,
    left,
    read_greeting,
    statistics,
)

__all__ = ["INSTANCE_KEY", "Link", "Reply", "Settings", "Wire", "statistics", "wire"]


class Link(Protocol):
    """One connection. Whoever uses it has it alone."""

    greeted: Greeted

    def usable(self) -> bool:
        """Say whether the idle connection still looks alive."""
        ...

    async def call(self, packed: bytes, count: int, patience: float) -> list[Reply]:
        """Send requests and return so many replies. After an error the link must be dropped."""
        ...

    def hang_up(self) -> None:
        """End the connection from outside, so that whoever waits on it gets an error."""
        ...

    def drop(self) -> None:
        """Close the connection."""
        ...

    def abandon(self) -> None:
        """In a forked child: close the descriptor, and say nothing to the server."""
        ...


L = TypeVar("L", bound=Link)

_abandoned: list[object] = []
"""Links that a forked child inherited; kept, for their finalizers belong to the parent."""


class Wire(ABC, Generic[L]):
    """A few connections to one server; the one used last is used next."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.item_bytes_max = 0
        """How large an item may be, its key and header included."""
        self._instance = b""
        self._free: list[L] = []
        self._slots = [None] * settings.connections  # one for each that may yet be opened
        self._links: set[L] = set()
        self._waiting = 0
        self._closed = False

    async def open(self) -> None:
        """Make the first connection, so that whatever is wrong with the URL shows now."""
        self._put(await self._take(time.monotonic() + self.settings.patience))

    async def ask(
        self, packed: bytes, count: int = 1, instance: bytes | None = None
    ) -> tuple[bytes, list[Reply]]:
        """Carry out requests: the life of the server that answered, and its replies.

        With an `instance`, only in that life of the server; in another nothing is sent,
        and there are no replies.
        """
        patience = self.settings.patience
        try:
            link = self._free.pop()
        except IndexError:
            link = None
        if link is None or not link.usable():
            if link is not None:
                self._retire(link)
            until = time.monotonic() + patience
            link = await self._take(until)
            if left(until) < patience / 2:
                # On a slow network the time that is left may be too short for any reply. The
                # next try finds this connection ready, and has the whole patience for itself.
                self._put(link)
                label = self.settings.label
                raise Unavailable(f"{label}: connecting took too long; it is done now")
            patience = left(until)
        present = link.greeted.instance
        if instance is not None and instance != present:
            self._put(link)
            return present, []
        try:
            replies = await link.call(packed, count, patience)
        except BaseException as error:
            self._retire(link)
            if isinstance(error, ConnectionError):
                self._drop_idle()
            raise
        if self._waiting or self._closed or present is not self._instance:
            self._put(link)
        else:
            self._free.append(link)
        return present, replies

    @abstractmethod
    async def close(self) -> None:
        """Close every connection; calls in flight fail."""

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connections without a word."""
        self._closed = True
        links = list(self._links)
        _abandoned.extend(links)
        for link in links:
            link.abandon()
        self._links.clear()
        self._free.clear()

    # -- connections that come and go ----------------------------------------

    async def _take(self, until: float) -> L:
        """An idle connection, or a new one, or one that comes free in time."""
        label = self.settings.label
        while True:
            if self._closed:
                raise Unavailable(f"{label}: the connection was closed")
            link = self._take_free()
            if link is not None:
                return link
            try:
                self._slots.pop()
            except IndexError:
                if await self._wait(until):
                    continue
                limit = self.settings.connections
                raise Unavailable(f"{label}: all {limit} connections are busy") from None
            try:
                return await self._connect(until)
            except BaseException:
                self._slots.append(None)
                self._notify()
                raise

    def _take_free(self) -> L | None:
        while self._free:
            try:
                link = self._free.pop()
            except IndexError:  # another thread was faster
                return None
            if link.usable():
                return link
            self._retire(link)
        return None

    async def _connect(self, until: float) -> L:
        label = self.settings.label
        link = await self._dial(until)
        self._links.add(link)
        try:
            try:
                packed, count = greeting(self.settings)
                replies = await link.call(packed, count, left(until))
            except OutcomeUnknown as error:
                # Nothing that the caller asked for was sent yet.
                raise Unavailable(str(error)) from error
            except AuthenticationFailed as error:
                if self.settings.logs_in:
                    text = f"{label}: the user name or password is wrong"
                    raise AuthenticationFailed(text) from error
                raise
            link.greeted = read_greeting(replies, label)
            if self._closed:
                raise Unavailable(f"{label}: the connection was closed")
        except BaseException:
            self._discard(link)
            raise
        if link.greeted.instance != self._instance:
            self._drop_idle()  # of another life of the server
            self._instance = link.greeted.instance
        else:
            link.greeted = link.greeted._replace(instance=self._instance)
        self.item_bytes_max = link.greeted.item_bytes_max
        return link

    def _put(self, link: L) -> None:
        """Give a connection back."""
        if self._closed or link.greeted.instance != self._instance:
            self._retire(link)
        else:
            self._free.append(link)
            self._notify()

    def _retire(self, link: L) -> None:
        self._discard(link)
        self._slots.append(None)
        if self._waiting:
            self._notify()

    def _discard(self, link: L) -> None:
        self._links.discard(link)
        link.drop()

    def _drop_idle(self) -> None:
        while self._free:
            try:
                link = self._free.pop()
            except IndexError:
                return
            self._retire(link)

    @abstractmethod
    async def _dial(self, until: float) -> L:
        """A bare connection."""

    @abstractmethod
    async def _wait(self, until: float) -> bool:
        """Wait until a connection or a slot may be free; say whether it was in time."""

    @abstractmethod
    def _notify(self) -> None:
        """A connection or a slot is free: let one of those who wait look again."""


def wire(settings: Settings, flavour: Flavour) -> Wire[Any]:
    """The wire for a flavour of concurrency. Only asyncio's imports asyncio."""
    if flavour == "asyncio":
        from ._memcached_asyncio import AsyncioWire

        return AsyncioWire(settings)
    from ._memcached_blocking import BlockingWire

    return BlockingWire(settings)
