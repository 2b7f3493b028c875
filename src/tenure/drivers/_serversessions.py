"""A driver whose session is its connections, because the server's locks belong to those.

What `postgresql` and `mysql` have in common beside the locks themselves (`_serverlocks`). The
main connection is made when the driver is opened, and given to the first session. One that is
started later, or a question when there is no session, has another one made.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from .._runtime.base import Runtime
from .._url import Url
from ..errors import SessionLost, TenureError, Unavailable
from ..wires.links import Link
from ._serverlocks import Session
from .base import Driver, Lost

logger = logging.getLogger("tenure")

L = TypeVar("L", bound=Link)
S = TypeVar("S", bound=Session[Any])


class Wire(Protocol):
    """What makes the connections."""

    async def close(self) -> None: ...

    def abandon(self) -> None: ...


class SessionDriver(Driver, Generic[S, L]):
    """The session verbs. A driver says how a connection is made, and a session set up on it."""

    service: ClassVar[str]
    """What errors begin with."""
    _wire: Wire

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self.session: S | None = None
        """The session that was started last."""
        self._first: L | None = None  # opened, and not yet given to a session
        self._opening = runtime.mutex()  # held while a main connection is made or given away
        self._over = ""

    @abstractmethod
    async def _main(self) -> L:
        """Make a main connection."""

    @abstractmethod
    async def _begin(self, id: str, owner: str, link: L, lost: Lost) -> S:
        """Take the lock on the connection that tells that a session lives, and make the session."""

    @abstractmethod
    async def _take_leave(self, session: S) -> None:
        """Free what it holds, and tell who watches it; the connections will end in any case."""

    async def open(self) -> None:
        try:
            self._first = await self._main()
        except BaseException:
            await self._wire.close()
            raise

    async def close(self) -> None:
        self._over = "closed"
        self._forget("closed")
        await self._wire.close()

    def abandon(self) -> None:
        self._over = "the process was forked"
        self._wire.abandon()
        if self.session is not None:
            self.session.ended = self._over

    async def start(self, owner: str, lost: Lost) -> str:
        self._forget("a new session was started")
        id = self.runtime.unique()
        async with self._opening:
            link, self._first = self._first, None
            if link is None or link.reason is not None:
                link = await self._main()
            try:
                session = await self._begin(id, owner, link, lost)
            except BaseException:
                link.end("it could not be set up")
                raise
            self.session = session
        if link.reason is not None:
            session.lose(link.reason)
            raise SessionLost(f"{link.service}: {link.reason}")
        return id

    async def renew(self, session: str) -> None:
        current = self.current(session)
        try:
            await self._renew(current)
        except TenureError as error:
            current.check(error)
            raise

    async def _renew(self, session: S) -> None:
        """See that every connection that holds something is there still."""
        for link in (session.main, *tuple(session.holding)):
            # A connection that was given back meanwhile may be waiting for a lock by now.
            if link.parked or not link.asking:
                await link.ping()

    async def end(self, session: str) -> None:
        current = self.session
        if current is None or current.id != session:
            return
        try:
            if current.ended is None:
                await self._take_leave(current)
        except TenureError as error:
            logger.debug("tenure: a session ended without a farewell: %s", error)
        finally:
            if self.session is current:
                self._forget("the session was ended")

    def current(self, session: str) -> S:
        """The session, if it is the one that lives; `SessionLost` if not."""
        current = self.session
        if current is None or current.id != session:
            raise SessionLost(f"{self.service}: the session is over")
        if current.ended is not None:
            raise SessionLost(f"{self.service}: {current.ended}")
        return current

    async def questions(self) -> L:
        """A connection for questions that belong to no session."""
        link = self._main_now()
        if link is None:
            async with self._opening:
                link = self._main_now()
                if link is None:
                    link = self._first = await self._main()
        return link

    def _main_now(self) -> L | None:
        if self._over:
            raise Unavailable(f"{self.service}: not connected: {self._over}")
        session, first = self.session, self._first
        if session is not None and session.ended is None and session.main.reason is None:
            main: L = session.main
            return main
        return first if first is not None and first.reason is None else None

    def _forget(self, reason: str) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.finish(reason)

    def _ended(self, link: L, reason: str) -> None:
        """A connection ended, for whatever reason."""
        session = self.session
        if session is not None:
            session.link_ended(link, reason)
