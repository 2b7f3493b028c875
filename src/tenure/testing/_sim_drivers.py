"""The drivers of the simulated backends: each verb is one call over the network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, TypeVar

from .._model import Claim, Grant, Interest, Record, Roll, Traits
from .._url import Url
from ..drivers.base import Driver, Lost, Mutex, Wake
from ..drivers.document import Document, DocumentDriver
from ..errors import SessionLost, Unavailable
from ._sim_net import Network
from ._sim_stores import DocumentStore, RosterStore
from ._sim_world import Node

T = TypeVar("T")


class _Link:
    """What all simulated drivers share: a node's end of the network, and the judge's notes."""

    node: Node
    network: Network
    renewed: Callable[[str], None]
    """Told of each renewal before it is sent."""
    withdrawing: Callable[[str, bool], None]
    """Told of each withdrawal when it begins (True) and when it has ended."""
    patience: float

    async def _call(self, call: Callable[[], T]) -> T:
        return await self.network.call(self.node, self.patience, call)

    def _noted(self, id: str) -> None:
        current = self.node.world.current
        if current is not None and current.acquire is not None:
            current.acquire.ids.add(id)


class SimDocumentDriver(_Link, DocumentDriver):
    """The document rung over a store that is far away."""

    traits: ClassVar[Traits] = Traits(
        scope="hosts", shared=True, push=False, durable_claims=True, poll=1.0
    )

    def __init__(self, node: Node, network: Network, store: DocumentStore, ttl: float) -> None:
        super().__init__(Url("sim"), node.runtime, "", ttl)
        self.node, self.network, self.store = node, network, store

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to disconnect."""

    async def load(self, kind: str, name: str) -> tuple[Document | None, Any]:
        return await self._call(lambda: self.store.load(kind, name))

    async def save(self, kind: str, name: str, document: Document | None, version: Any) -> Any:
        return await self._call(lambda: self.store.save(kind, name, document, version))

    async def names(self, kind: str) -> Sequence[str]:
        return await self._call(lambda: self.store.names(kind))

    async def living(self, sessions: Collection[str]) -> set[str]:
        # It may be a set of texts, whose order is another one in every process.
        return await super().living(sorted(sessions))

    async def renew(self, session: str) -> None:
        self.renewed(session)
        await super().renew(session)

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        self._noted(id)
        return await super().claim(session, roster, id, body, width, shared)

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        self.withdrawing(id, True)
        try:
            await super().withdraw(session, roster, id, width)
        finally:
            self.withdrawing(id, False)


class SimPushingDocumentDriver(SimDocumentDriver):
    """The same with hints, which may be lost."""

    traits: ClassVar[Traits] = Traits(scope="hosts", shared=True, durable_claims=True, poll=2.0)

    async def moved_up(self, claim: Claim) -> None:
        self.network.tell(self.node, lambda: self.store.mailboxes.notify(claim.id))

    async def changed(self, name: str) -> None:
        self.network.tell(self.node, lambda: self.store.mailboxes.changed(name))

    async def listen(self, interest: Interest, wake: Wake) -> None:
        await self._call(lambda: self.store.mailboxes.listen(interest, self.node, wake))

    def unlisten(self, interest: Interest) -> None:
        self.network.tell(self.node, lambda: self.store.mailboxes.unlisten(interest))


class SimRosterDriver(_Link, Driver):
    """Rosters kept by the server, sessions that expire on its clock."""

    traits: ClassVar[Traits] = Traits(scope="hosts", shared=True, durable_claims=True, poll=1.5)

    def __init__(self, node: Node, network: Network, store: RosterStore, ttl: float) -> None:
        super().__init__(Url("sim"), node.runtime, "", ttl)
        self.node, self.network, self.store = node, network, store

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to disconnect."""

    async def start(self, owner: str, lost: Lost) -> str:
        session = self.runtime.unique()
        await self._call(lambda: self.store.start(session, owner, self.ttl, self.node, lost))
        return session

    async def renew(self, session: str) -> None:
        self.renewed(session)
        await self._call(lambda: self.store.renew(session))

    async def end(self, session: str) -> None:
        await self._call(lambda: self.store.end(session))

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        self._noted(id)
        return await self._call(lambda: self.store.claim(session, roster, id, body, width, shared))

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        self.withdrawing(id, True)
        try:
            await self._call(lambda: self.store.withdraw(session, roster, id, width))
        finally:
            self.withdrawing(id, False)

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        return await self._call(lambda: self.store.roll(roster, id))

    async def amend(self, claim: Claim, body: str) -> Claim:
        return await self._call(lambda: self.store.amend(claim, body))

    async def census(self, roster: str) -> tuple[Claim, ...]:
        return await self._call(lambda: self.store.census(roster))

    async def rosters(self, prefix: str) -> Sequence[str]:
        names = await self._call(lambda: self.store.names())
        return [name for name in names if name.startswith(prefix)]

    async def last_seen(self, session: str) -> float | None:
        return await self._call(lambda: self.store.last_seen(session))

    async def recall(self, name: str) -> Record | None:
        return await self._call(lambda: self.store.recall(name))

    async def record(self, name: str, text: str | None, version: Any) -> Any:
        return await self._call(lambda: self.store.record(name, text, version))

    async def recorded(self, prefix: str) -> Sequence[str]:
        names = await self._call(lambda: self.store.records())
        return [name for name in names if name.startswith(prefix)]

    async def listen(self, interest: Interest, wake: Wake) -> None:
        await self._call(lambda: self.store.mailboxes.listen(interest, self.node, wake))

    def unlisten(self, interest: Interest) -> None:
        self.network.tell(self.node, lambda: self.store.mailboxes.unlisten(interest))


class SimMutexDriver(SimRosterDriver, Mutex):
    """A mutex of the server's own, which lives on the session's connection.

    Whenever the outcome of a call is unknown, the connection is ended, and all that
    lives on it is lost: at once for the client, for the server when it hears of it.
    """

    traits: ClassVar[Traits] = Traits(
        scope="hosts", shared=True, frees_on_death=True, durable_claims=True
    )

    def __init__(self, node: Node, network: Network, store: RosterStore, ttl: float) -> None:
        super().__init__(node, network, store, ttl)
        self.mutex = self
        self._lost: dict[str, Lost] = {}

    async def start(self, owner: str, lost: Lost) -> str:
        session = await super().start(owner, lost)
        self._lost[session] = lost
        return session

    async def renew(self, session: str) -> None:
        self.renewed(session)
        await self._on(session, lambda: self.store.renew(session))

    async def end(self, session: str) -> None:
        self._lost.pop(session, None)
        await super().end(session)

    def _hang_up(self, session: str, reason: str) -> None:
        current = self.node.world.current
        if current is not None and current.acquire is not None:
            current.acquire.unsure = True
        self.network.tell(self.node, lambda: self.store.end(session))
        lost = self._lost.pop(session, None)
        if lost is not None:
            lost(reason)

    async def _on(self, session: str, call: Callable[[], T]) -> T:
        """A call on the session's connection, which does not outlive its failure."""
        if session not in self._lost:
            raise SessionLost("the session's connection has ended")
        try:
            return await self._call(call)
        except Unavailable as error:
            self._hang_up(session, str(error))
            raise SessionLost(f"the connection has ended: {error}") from error
        except BaseException:
            self._hang_up(session, "a call was interrupted")
            raise

    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        self._noted(id)
        store, mailboxes = self.store, self.store.mailboxes
        granted = self.runtime.signal()
        interest = Interest(session, name, id, None)

        def seize() -> Claim | None:
            if until is not None:
                mailboxes.listen(interest, self.node, granted.set)
            return store.seize(session, name, id, until is not None, shared)

        claim = await self._on(session, seize)
        while claim is None and until is not None and self.runtime.now() < until:
            look = self.runtime.now() + self.traits.poll
            try:
                await granted.wait(min(until, look))
            except BaseException:
                leave = self._on(session, lambda: store.withdraw(session, name, id))
                await self.runtime.finish(leave)
                raise
            granted.clear()
            claim = await self._on(session, seize)
        if claim is None:
            if until is not None:
                await self._on(session, lambda: store.withdraw(session, name, id))
            return None
        return Grant(name, id, claim.token, session)

    async def unseize(self, grant: Grant) -> None:
        session = grant.handle
        await self._on(session, lambda: self.store.withdraw(session, grant.name, grant.id))
