"""A few connections to one backend that calls share: what the wires over sockets have in common.

A connection belongs to one call at a time. One on which anything went wrong is dropped, and
every idle one with it, which most likely shares its fate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

from ..errors import Unavailable


class Pooled(Protocol):
    """One connection, as far as the pool knows it. Whoever uses it has it alone."""

    def usable(self) -> bool:
        """Say whether the idle connection still looks alive."""
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


L = TypeVar("L", bound=Pooled)

_abandoned: list[object] = []
"""Links that a forked child inherited; kept, for their finalizers belong to the parent."""


class Pool(ABC, Generic[L]):
    """A bounded number of connections; the one used last is used next."""

    settings: Any
    """With `connections`, how many there may be, and `patience`, how long a call may take."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self._free: list[L] = []
        self._slots = [None] * settings.connections  # one for each that may yet be opened
        self._links: set[L] = set()
        self._waiting = 0
        self._closed = False

    @property
    @abstractmethod
    def _name(self) -> str:
        """What to call the backend in a message."""

    def discard(self, link: L) -> None:
        """Close a connection for good."""
        self._links.discard(link)
        link.drop()

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

    async def _take(self, until: float) -> L:
        """An idle connection, or a new one, or one that comes free in time."""
        while True:
            if self._closed:
                raise self._shut()
            link = self._take_free()
            if link is not None:
                return link
            try:
                self._slots.pop()
            except IndexError:
                if await self._wait(until):
                    continue
                limit = self.settings.connections
                raise Unavailable(f"{self._name}: all {limit} connections are busy") from None
            try:
                return await self.connect(until)
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

    def _retire(self, link: L, *, told: bool = False) -> None:
        """Drop a connection that has a slot; `told` if somebody may wait who is not counted."""
        self.discard(link)
        self._slots.append(None)
        if self._waiting or told:
            self._notify()

    def _returned(self) -> None:
        if self._closed:
            self._drop_idle()
        self._notify()

    def _drop_idle(self) -> None:
        while self._free:
            try:
                link = self._free.pop()
            except IndexError:
                return
            self._retire(link)

    def _shut(self) -> Unavailable:
        return Unavailable(f"{self._name}: the connection was closed")

    @abstractmethod
    async def connect(self, until: float) -> L:
        """A new connection, ready for use, and one of `_links`."""

    @abstractmethod
    async def _wait(self, until: float) -> bool:
        """Wait until a connection or a slot may be free; say whether it was in time."""

    @abstractmethod
    def _notify(self) -> None:
        """A connection or a slot is free: let one of those who wait look again."""
