"""Rosters on memcached: the document rung over the meta commands, and what it takes to be safe.

memcached stores a document only if it is still the one that was read (`ms` with a
version), so every promise of the document rung holds as long as nothing is lost. What
this driver adds is what to do about loss, since memcached may forget any item at any time:

- a roster that is missing is told from one that never was (`_memcached_index`), and one
  that was lost grants nothing until every lease in it has run out;
- a session that is missing counts as alive until its TTL has passed; the dead are not
  deleted, but marked as dead;
- a renewal verifies that the session, each roster it has claims in, and their places
  in the index are there, else the session is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .._model import Claim, Finding, Roll, Server, Traits
from ..errors import BackendError, OutcomeUnknown, SessionLost
from ._memcached_documents import ItemDocuments
from ._memcached_findings import findings, server
from ._memcached_items import (
    Version,
    batches,
    unpack,
)
from ._memcached_sessions import ALIVE, LOST, Mine, new_session
from .base import Lost
from .document import BURIED

EMBARGOED_RANKS = 32
"""How much farther back than its place a claim stands while an embargo lasts: beyond any
width that it may be compared with soon, and near enough to be looked at every second."""
READ_SECONDS = 0.2
"""For so long a waiter may be told the same while nothing changes but who is alive."""


class MemcachedDriver(ItemDocuments):
    """One namespace on one memcached."""

    traits = Traits(scope="hosts", shared=True, push=False, poll=0.03)

    async def open(self) -> None:
        await self._wire.open()

    async def close(self) -> None:
        await self._wire.close()

    def abandon(self) -> None:
        self._wire.abandon()

    async def examine(self) -> Sequence[Finding]:
        return await findings(self._wire, self._most)

    async def server(self) -> Server:
        return await server(self._wire)

    # -- the session -----------------------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        session = new_session(self.runtime, self.ttl)
        index = self._index
        where = index.number("")
        request = self._sessions.begin(session, owner) + index.fetch(where)
        instance, replies = await self._wire.ask(request, 2)
        if replies[0].code != b"HD":
            raise OutcomeUnknown("memcached: the session's item was written by somebody else")
        self._sessions.mine[session] = Mine(owner, Version(instance, replies[0].flag(b"c"), ALIVE))
        self._owners[session] = owner
        try:
            index.check(where, instance, replies[1])
        except (BackendError, ValueError):
            await self.end(session)
            raise
        return session

    async def renew(self, session: str) -> None:
        mine = self._sessions.mine.get(session)
        if mine is None:
            raise SessionLost(BURIED)
        rosters = list(mine.generations.items())
        shards = sorted({self._index.number(roster) for roster, _ in rosters})
        probes = [b"mg %b f\r\n" % self._keys.of("r", roster).key for roster, _ in rosters]
        probes += [self._index.probe(shard) for shard in shards]
        replies = await self._sessions.renew(session, mine, probes)
        found = dict(zip(shards, replies[len(rosters) :], strict=True))
        for (roster, generation), reply in zip(rosters, replies, strict=False):
            if mine.generations.get(roster) != generation:
                continue  # its last claim was withdrawn meanwhile
            if reply.line != b"HD f%d" % generation:
                raise SessionLost(LOST.format("the roster", roster))
            listed = found[self._index.number(roster)]
            if not self._index.lists(roster, generation, listed) and not await self.relist(
                roster, generation
            ):
                raise SessionLost(LOST.format("the roster", roster))

    async def end(self, session: str) -> None:
        self._owners.pop(session, None)
        await self._sessions.end(session)
        self._sessions.mine.pop(session, None)
        for roster in sorted(self._public.pop(session, ())):
            await super().census(roster)  # buries its claims there

    async def last_seen(self, session: str) -> float | None:
        return await self._sessions.last_seen(session)

    async def living(self, sessions: Collection[str]) -> set[str]:
        return await self._sessions.living(sessions)

    # -- rosters ---------------------------------------------------------------

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        mine = self._sessions.mine.get(session)
        if mine is None:
            raise SessionLost(BURIED)
        mine.claims.setdefault(roster, set()).add(id)
        roll = await super().claim(session, roster, id, body, width, shared)
        if roll.mine is None:
            mine.withdrawn(roster, id)
        elif roster not in mine.generations:
            # It was there already: the reply to an earlier request had been lost.
            await self.recognize(mine, roster, id)
        if roster in self._embargoes and await self.embargoed(roster):
            if width is not None and roll.mine is not None:
                await self.withdraw(session, roster, id)
                roll = roll._replace(mine=None)
            return roll._replace(rank=roll.rank + EMBARGOED_RANKS)
        return roll

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        await super().withdraw(session, roster, id, width)
        mine = self._sessions.mine.get(session)
        if mine is not None:
            mine.withdrawn(roster, id)

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        # A waiter looks many times a second, and the dead are looked for a few times.
        look = await self._looks.begin(roster, (id, width))
        if look.found is not None:
            roll: Roll = look.found
        else:
            roll = await super().read(session, roster, id, width)
            # A grant is never told twice: between the two looks it may have been lost.
            self._looks.end(look, roll, READ_SECONDS if roll.rank >= width else 0.0)
        if roster in self._embargoes and await self.embargoed(roster):
            return roll._replace(rank=max(roll.rank, width) + EMBARGOED_RANKS)
        return roll

    async def census(self, roster: str) -> tuple[Claim, ...]:
        # The same for watchers. A census may be long, so its dead are looked for less often.
        look = await self._looks.begin(roster, "census")
        if look.found is not None:
            claims: tuple[Claim, ...] = look.found
            return claims
        claims = await super().census(roster)
        self._looks.end(look, claims, self.ttl / 4)
        return claims

    async def rosters(self, prefix: str) -> Sequence[str]:
        names = [each for each in await self._index.names("roster") if each.startswith(prefix)]
        found = []
        for some in batches(names):
            keys = [self._keys.of("r", name) for name in some]
            request = b"".join(b"mg %b v\r\n" % key.key for key in keys)
            _, replies = await self._wire.ask(request, len(some))
            for name, key, reply in zip(some, keys, replies, strict=True):
                if reply.value is not None and unpack(key, reply.value)[0]["claims"]:
                    found.append(name)
        return sorted(found)
