"""Sessions at ZooKeeper: each of the core's is one of ZooKeeper's, and has a node.

A session's node is `/tenure/<namespace>/sessions/<session>`. Each renewal writes it, which
takes a majority of the servers: one that is cut off from the others answers who reads, and
knows nothing of a session that they have ended. Whoever removes the node ends the session.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from typing import Any

from .._runtime.base import Runtime
from .._url import Url
from ..errors import OutcomeUnknown, SessionLost, Unavailable
from ..wires._zookeeper_api import Link, NodeExists, NoNode, Reply, Stat
from ..wires.zookeeper import Wire
from ._zookeeper_ear import Ear
from ._zookeeper_names import Paths
from ._zookeeper_places import Places
from .base import Driver, Lost

RACES = 16
"""How often one starts over because somebody else was faster."""


class ZookeeperSessions(Driver):
    """The connection and the session verbs."""

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._paths = Paths(url.path, namespace)
        self._places = Places(runtime)
        self._sessions: dict[str, tuple[Link, str]] = {}
        """Of each session of ours: its connection, and its owner."""
        self._spare: Link | None = None
        """A session that nobody has begun: for what needs none."""
        self._opening = runtime.mutex()
        self._wire: Wire | None = None
        self._closed = False
        self._ear = Ear(runtime, self._paths, self._any, self._ask)

    @abstractmethod
    def _make_wire(self) -> Wire:
        """The connection, by what the URL says. May read files."""

    # -- the connection ----------------------------------------------------

    async def open(self) -> None:
        self._wire = await self.runtime.blocking(self._make_wire)
        link = await self._any()
        try:
            # What the user may not read shows here, and not at the first lock.
            await self._wait(link, link.get(self._paths.root))
        except NoNode:
            await self._make(link, self._paths.root)

    def given(self) -> float:
        """For how many seconds the server keeps a session, as it said last."""
        links = [self._spare, *(link for link, _ in self._sessions.values())]
        return max((link.timeout for link in links if link is not None), default=0.0)

    async def close(self) -> None:
        self._closed = True
        await self._ear.close(self.patience)
        wire, spare, self._spare = self._wire, self._spare, None
        if wire is None:
            return
        links = [link for link, _ in self._sessions.values()]
        self._sessions.clear()
        for link in links:
            await wire.close(link, farewell=False)
        if spare is not None:
            await wire.close(spare)

    def abandon(self) -> None:
        self._closed = True
        self._ear.abandon()
        for link, _ in self._sessions.values():
            link.abandon()
        if self._spare is not None:
            self._spare.abandon()

    async def _wait(self, link: Link, *replies: Reply) -> Any:
        assert self._wire is not None
        return await self._wire.wait(link, *replies)

    async def _ask(self, link: Link, *replies: Reply) -> Any:
        """The same, for what does not depend on the session that it is asked in."""
        try:
            return await self._wait(link, *replies)
        except SessionLost as error:
            raise OutcomeUnknown(f"{error}; another can be had") from error

    async def _any(self) -> Link:
        """A session to ask something that needs none of one's own."""
        for link, _ in reversed(list(self._sessions.values())):
            if link.over() is None and link.connected():
                return link
        async with self._opening:
            spare = self._spare
            if spare is None or spare.over() is not None:
                if self._closed or self._wire is None:
                    raise Unavailable(f"{self.url.scheme}: the driver is not open")
                spare = self._spare = await self._begun()
            if not spare.connected():
                raise Unavailable(f"zookeeper: {spare.problem() or 'not connected now'}")
            return spare

    async def _begun(self) -> Link:
        assert self._wire is not None
        link = await self._wire.open()
        if self._closed:
            link.discard()
            raise Unavailable(f"{self.url.scheme}: the driver is closed")
        return link

    def _of(self, session: str) -> Link:
        """The session's own connection, or the reason why it has none."""
        known = self._sessions.get(session)
        if known is None:
            raise SessionLost(f"zookeeper: the session {session} has ended")
        return connected(known[0])

    async def _make(self, link: Link, path: str) -> None:
        """Make a folder, and those that it is in."""
        for _ in range(RACES):
            ground = path in self._paths.above
            try:
                await self._wait(link, link.ground(path) if ground else link.folder(path))
            except NodeExists:
                return
            except NoNode:
                above = path.rpartition("/")[0]
                if not above:
                    raise Unavailable(f"zookeeper: {path} cannot be made") from None
                await self._make(link, above)
            else:
                return
        raise Unavailable("zookeeper: folders are removed as fast as they are made")

    # -- the session -------------------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        sent = self.runtime.now()
        async with self._opening:
            link, self._spare = self._spare, None
        if link is None or not link.connected():
            if link is not None:
                link.discard()
            sent = self.runtime.now()
            link = await self._begun()
        session = link.id
        path = self._paths.of_session(session)
        # From here on it ends by itself, whatever becomes of this attempt.
        link.adopt(sent + self.ttl, lost)
        try:
            for _ in range(RACES):
                try:
                    made = link.create(path, owner.encode(), own=True)
                    # Of the names in a node that has none, one hears nothing but its end.
                    names = link.children(path, lambda gone: self._ended(session, link))
                    await self._wait(link, made, names)
                    break
                except NoNode:
                    await self._make(link, self._paths.sessions)
            else:
                raise Unavailable("zookeeper: the session's node was removed again and again")
        except BaseException:
            link.close()
            raise
        self._sessions[session] = (link, owner)
        link.on_connection(lambda: self._look_after(session, link))
        return session

    def _look_after(self, session: str, link: Link) -> None:
        """Watch the session's node again. On the library's thread."""
        if link.connected():
            path = self._paths.of_session(session)
            reply = link.children(path, lambda gone: self._ended(session, link))
            reply.rawlink(lambda known: self._ended(session, link) if _is_gone(known) else None)

    def _ended(self, session: str, link: Link) -> None:
        """The session's node is gone, or the connection."""
        if not link.connected() or link.over() is not None:
            return

        def looked(known: Reply) -> None:
            if known.successful() and known.value is None:
                link.end("somebody has ended the session")
            elif known.successful():
                self._look_after(session, link)

        link.exists(self._paths.of_session(session)).rawlink(looked)

    async def renew(self, session: str) -> None:
        link = self._of(session)
        sent = self.runtime.now()
        owner = self._sessions[session][1]
        try:
            await self._wait(link, link.set(self._paths.of_session(session), owner.encode()))
        except NoNode:
            link.end("somebody has ended the session")
            raise SessionLost(f"zookeeper: {link.over()}") from None
        link.alive_until(sent + self.ttl)

    async def end(self, session: str) -> None:
        known = self._sessions.pop(session, None)
        self._places.end(session)
        if known is None:
            link = await self._any()
            with contextlib.suppress(NoNode):
                await self._ask(link, link.delete(self._paths.of_session(session)))
        elif self._wire is not None and not await self._wire.close(known[0]):
            raise OutcomeUnknown("zookeeper: the server did not hear that the session has ended")

    async def last_seen(self, session: str) -> float | None:
        link, path = await self._any(), self._paths.of_session(session)
        stat: Stat | None = await self._ask(link, link.sync(path), link.exists(path))
        return None if stat is None else max(0.0, self.runtime.wall() - stat.modified / 1000)


def _is_gone(reply: Reply) -> bool:
    return type(reply.exception).__name__ == "NoNodeError"


def connected(link: Link) -> Link:
    """The link, if it is of use now; nothing was sent if it is not."""
    reason = link.over()
    if reason is not None:
        raise SessionLost(f"zookeeper: {reason}")
    if not link.connected():
        raise Unavailable(f"zookeeper: not connected now ({link.problem() or 'connecting'})")
    return link
