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
from abc import abstractmethod
from typing import Any, Protocol, TypeVar

from .._runtime.base import Flavour
from ..errors import AuthenticationFailed, OutcomeUnknown, Unavailable
from ._memcached import (
    INSTANCE_KEY,
    Greeted,
    Reply,
    Settings,
    greeting,
    read_greeting,
    statistics,
)
from ._sockets import left
from .pool import Pool, Pooled

__all__ = ["INSTANCE_KEY", "Link", "Reply", "Settings", "Wire", "statistics", "wire"]


class Link(Pooled, Protocol):
    """One connection. Whoever uses it has it alone."""

    greeted: Greeted

    async def call(self, packed: bytes, count: int, patience: float) -> list[Reply]:
        """Send requests and return so many replies. After an error the link must be dropped."""
        ...


L = TypeVar("L", bound=Link)


class Wire(Pool[L]):
    """A few connections to one server; the one used last is used next."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.item_bytes_max = 0
        """How large an item may be, its key and header included."""
        self._instance = b""

    @property
    def _name(self) -> str:
        return self.settings.label

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

    # -- connections that come and go ----------------------------------------

    async def connect(self, until: float) -> L:
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
                raise self._shut()
        except BaseException:
            self.discard(link)
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

    @abstractmethod
    async def _dial(self, until: float) -> L:
        """A bare connection."""


def wire(settings: Settings, flavour: Flavour) -> Wire[Any]:
    """The wire for a flavour of concurrency. Only asyncio's imports asyncio."""
    if flavour == "asyncio":
        from ._memcached_asyncio import AsyncioWire

        return AsyncioWire(settings)
    from ._memcached_blocking import BlockingWire

    return BlockingWire(settings)
