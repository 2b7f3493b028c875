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
from typing import Any, NamedTuple

from .._model import Claim, Finding, Roll, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import BackendError, OutcomeUnknown, SessionLost, Unavailable
from ..wires import memcached as wires
from ._memcached_findings import findings, server
from ._memcached_index import Clock, Index, draw
from ._memcached_items import (
    Absent,
    Key,
    Keys,
    Version,
    add,
    batches,
    check_size,
    fetched,
    pack,
    swap,
    unpack,
)
from ._memcached_sessions import ALIVE, LOST, Mine, Sessions, new_session
from ._memcached_url import settings, ttl_most
from .base import Lost
from .document import BURIED, KNOWN_MAX, Document, DocumentDriver

LOADS_MAX = 20
"""Tries to find a roster that was lost and is made again."""
EMBARGOED_RANKS = 32
"""How much farther back than its place a claim stands while an embargo lasts: beyond any
width that it may be compared with soon, and near enough to be looked at every second."""
READ_SECONDS = 0.2
"""For so long a waiter may be told the same while nothing changes but who is alive."""
DELETED = "deleted"
"""The version of what was deleted: nothing ever has it again."""
_LETTERS = {"session": "s", "roster": "r", "record": "d"}


class _Known(NamedTuple):
    """What was found in a roster at some version or after it, and how long that may be told."""

    version: Version | None
    until: float
    found: Any


class MemcachedDriver(DocumentDriver):
    """One namespace on one memcached."""

    traits = Traits(scope="hosts", shared=True, push=False, poll=0.03)

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._most = ttl_most(url, ttl)
        self._keys = Keys(namespace)
        self._wire = wires.wire(settings(url, self.patience), runtime.flavour)
        self._index = Index(self._wire, self._keys, runtime, self._most)
        self._sessions = Sessions(self._wire, self._keys, runtime)
        self._embargoes: dict[str, int] = {}
        """Of each roster that was seen under an embargo: when that ends, by the server's clock."""
        self._rolls: dict[tuple[str, str, int], _Known] = {}
        self._censuses: dict[str, _Known] = {}

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
            if not self._index.lists(roster, generation, listed) and not await self._relist(
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
        if not body and not shared and (width is None or width > 0):
            at_once = await self._claim_at_once(mine, session, roster, id)
            if at_once is not None:
                return at_once
        roll = await super().claim(session, roster, id, body, width, shared)
        if roll.mine is None:
            mine.withdrawn(roster, id)
        elif roster not in mine.generations:
            # It was there already: the reply to an earlier request had been lost.
            await self._recognize(mine, roster, id)
        if roster in self._embargoes and await self._embargoed(roster):
            if width is not None and roll.mine is not None:
                await self.withdraw(session, roster, id)
                roll = roll._replace(mine=None)
            return roll._replace(rank=roll.rank + EMBARGOED_RANKS)
        return roll

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        if not await self._withdraw_at_once(roster, id):
            await super().withdraw(session, roster, id, width)
        mine = self._sessions.mine.get(session)
        if mine is not None:
            mine.withdrawn(roster, id)

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        # A waiter looks many times a second: unless something changed, it gets what was found
        # before, and the dead are looked for a few times a second.
        now = self.runtime.now()
        known = self._rolls.get((roster, id, width))
        version = None if known is None else await self._probe(roster)
        if known is not None and version == known.version and now < known.until:
            roll: Roll = known.found
        else:
            roll = await super().read(session, roster, id, width)
            # A grant is never told twice: between the two looks it may have been lost.
            until = now + READ_SECONDS if roll.rank >= width else 0.0
            self._remember(self._rolls, (roster, id, width), version, until, roll)
        if roster in self._embargoes and await self._embargoed(roster):
            return roll._replace(rank=max(roll.rank, width) + EMBARGOED_RANKS)
        return roll

    async def census(self, roster: str) -> tuple[Claim, ...]:
        # The same for watchers. A census may be long, so its dead are looked for less often.
        now = self.runtime.now()
        known = self._censuses.get(roster)
        version = None if known is None else await self._probe(roster)
        if known is not None and version == known.version and now < known.until:
            claims: tuple[Claim, ...] = known.found
            return claims
        claims = await super().census(roster)
        self._remember(self._censuses, roster, version, now + self.ttl / 4, claims)
        return claims

    async def _probe(self, roster: str) -> Version | None:
        """The version of a roster; None if it is not there."""
        request = b"mg %b c f\r\n" % self._keys.of("r", roster).key
        instance, replies = await self._wire.ask(request)
        return fetched(instance, replies[0]) if replies[0].code == b"HD" else None

    def _remember(
        self, known: dict[Any, _Known], key: Any, version: Version | None, until: float, found: Any
    ) -> None:
        """Keep what was found, with a version from before: so it is never newer than that.

        Without one, only that somebody looked: the next look asks for the version first.
        """
        if len(known) >= KNOWN_MAX:
            known.clear()
        known[key] = _Known(version, 0.0 if version is None else until, found)

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

    # -- documents -------------------------------------------------------------

    async def load(self, kind: str, name: str) -> tuple[Document | None, Any]:
        key = self._keys.of(_LETTERS[kind], name)
        for _ in range(LOADS_MAX):
            instance, replies = await self._wire.ask(b"mg %b v c f\r\n" % key.key)
            if replies[0].value is not None:
                document, until = unpack(key, replies[0].value)
                if until and not self._index.over(instance, until):
                    self._embargoes[name] = until
                return document, fetched(instance, replies[0])._replace(until=until)
            if kind != "roster":
                return None, Absent(instance)
            shard, clock, until = await self._index.shard(name)
            if name not in shard.names.get(kind, {}):
                if until:
                    self._embargoes[name] = until
                token = _token(clock, until)
                return {"token": token, "claims": []}, Absent(shard.version.instance, until)
            # Lost. It is made again at once, so that the embargo begins for everybody.
            until = clock.uptime + self._index.embargo
            value = pack(key, {"token": _token(clock, until), "claims": []}, until)
            request = add(key.key, value, draw(self.runtime))
            await self._wire.ask(request, 1, shard.version.instance)
        raise Unavailable(f"memcached: the server drops the roster {name!r} as soon as it is made")

    async def save(self, kind: str, name: str, document: Document | None, version: Any) -> Any:
        key = self._keys.of(_LETTERS[kind], name)
        if version == DELETED:
            return None
        if document is None:
            return await self._delete(kind, name, key, version)
        request, written = self._request(key, document, version)
        instance, replies = await self._wire.ask(request, 1, version.instance)
        if not replies or replies[0].code != b"HD":
            return None
        new = written._replace(instance=instance, cas=replies[0].flag(b"c"))
        if kind == "record" and isinstance(version, Absent):
            await self._index.enlist(kind, name)
        return new

    async def save_for(self, session: str, roster: str, document: Document, version: Any) -> Any:
        key = self._keys.of("r", roster)
        request, written = self._request(key, document, version)
        return await self._save_for(session, roster, key, request, written, version.instance)

    async def _save_for(
        self,
        session: str,
        roster: str,
        key: Key,
        request: bytes,
        written: Version,
        instance: bytes,
    ) -> Version | None:
        index = self._index
        mine = self._sessions.mine.get(session)  # None where we amend another's claim
        # One connection keeps the order: the session lived, and the name was listed, when
        # the claim was already there. If not, it is a dead session's claim, or a place that
        # nobody believes in yet.
        _, replies = await self._wire.ask(
            b"%bmg %b f\r\n%b"
            % (request, self._keys.of("s", session).key, index.probe(index.number(roster))),
            3,
            instance,
        )
        if not replies:
            return None
        saved, alive, listed = replies
        if alive.line != b"HD f0":
            raise SessionLost(BURIED)
        if saved.code != b"HD":
            return None
        new = Version(instance, saved.flag(b"c"), written.generation, written.until)
        sure = index.lists(roster, new.generation, listed)
        if not sure and not await self._relist(roster, new.generation, bool(new.until)):
            # In place of one that was lost, without an embargo. Nothing was granted in it.
            await self._wire.ask(b"md %b C%d\r\n" % (key.key, new.cas), 1, instance)
            return None
        if mine is not None and mine.generations.setdefault(roster, new.generation) != (
            new.generation
        ):
            raise SessionLost(LOST.format("the roster", roster))  # with earlier claims of ours
        return new

    async def _claim_at_once(self, mine: Mine, session: str, roster: str, id: str) -> Roll | None:
        """Take a lock that nobody held when we released it; None if that is not so any more.

        The same as the document rung does, with a document that needs no encoder.
        """
        known = self._known.pop(roster, None)
        if known is None:
            return None
        document, version = known
        key = self._keys.of("r", roster)
        if document["claims"] or key.told or version.until or roster in self._embargoes:
            self._known[roster] = known
            return None
        token = document["token"] + 1
        value = b'\n{"token":%d,"claims":[["%b","%b",%d,%b,"",false]]}' % (
            *(token, id.encode(), session.encode(), token),
            mine.encoded,
        )
        request = swap(key.key, value, version)
        new = await self._save_for(session, roster, key, request, version, version.instance)
        if new is None:
            return None
        entry = [id, session, token, mine.owner, "", False]
        self._known[roster] = ({"token": token, "claims": [entry]}, new)
        claim = Claim(roster, id, session, token, mine.owner)
        return Roll((claim,), claim)

    async def _withdraw_at_once(self, roster: str, id: str) -> bool:
        """Release a lock that nobody waited for when we took it; False if that is not so."""
        known = self._known.pop(roster, None)
        if known is None:
            return False
        document, version = known
        claims = document["claims"]
        key = self._keys.of("r", roster)
        if len(claims) != 1 or claims[0][0] != id or claims[0][4] or key.told or version.until:
            self._known[roster] = known
            return False
        token = document["token"]
        value = b'\n{"token":%d,"claims":[]}' % token
        instance = version.instance
        _, replies = await self._wire.ask(swap(key.key, value, version), 1, instance)
        if not replies or replies[0].code != b"HD":
            return False
        new = Version(instance, replies[0].flag(b"c"), version.generation)
        self._known[roster] = ({"token": token, "claims": []}, new)
        return True

    async def names(self, kind: str) -> Sequence[str]:
        names = await self._index.names(kind)
        found: list[str] = []
        for some in batches(names):
            request = b"".join(
                b"mg %b\r\n" % self._keys.of(_LETTERS[kind], name).key for name in some
            )
            _, replies = await self._wire.ask(request, len(some))
            found += [
                name for name, reply in zip(some, replies, strict=True) if reply.code == b"HD"
            ]
        return found

    # -- inside ----------------------------------------------------------------

    def _request(
        self, key: Key, document: Document, version: Version | Absent
    ) -> tuple[bytes, Version]:
        """A request to save a document, and what its version will be but for its number."""
        until = version.until
        value = pack(key, document, until)
        check_size(key.key, value, self._wire.item_bytes_max)
        if isinstance(version, Version):
            return swap(key.key, value, version), version
        new = Version(version.instance, 0, draw(self.runtime), until)
        return add(key.key, value, new.generation), new

    async def _delete(self, kind: str, name: str, key: Key, version: Any) -> Any:
        if isinstance(version, Absent):
            return DELETED
        request = b"md %b C%d\r\n" % (key.key, version.cas)
        _, replies = await self._wire.ask(request, 1, version.instance)
        if not replies or replies[0].code != b"HD":
            return None
        await self._index.unlist(kind, name, key)
        return DELETED

    async def _relist(self, roster: str, generation: int, again: bool = False) -> bool:
        """List a roster that is there; False if another one was there before.

        `SessionLost` if it was lost before that was done.
        """
        if not await self._index.enlist("roster", roster, generation, again):
            return False
        _, replies = await self._wire.ask(b"mg %b f\r\n" % self._keys.of("r", roster).key)
        if replies[0].line != b"HD f%d" % generation:
            raise SessionLost(LOST.format("the roster", roster))
        return True

    async def _recognize(self, mine: Mine, roster: str, id: str) -> None:
        document, version = await self.load("roster", roster)
        here = document is not None and any(each[0] == id for each in document["claims"])
        if not here or not await self._relist(roster, version.generation, bool(version.until)):
            raise SessionLost(LOST.format("a claim in the roster", roster))
        mine.generations[roster] = version.generation

    async def _embargoed(self, roster: str) -> bool:
        """Whether the embargo of a roster goes on."""
        until = self._embargoes.get(roster, 0)
        if (await self._index.clock()).uptime < until:
            return True
        self._embargoes.pop(roster, None)
        return False


def _token(clock: Clock, until: int) -> int:
    """The token before the first: beyond all that may have been given, by the same clock."""
    return (clock.time + max(0, until - clock.uptime + 1)) * 1_000_000
