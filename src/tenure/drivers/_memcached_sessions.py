"""Sessions on memcached: who lives, as far as a server that forgets can tell.

A session is an item that its owner stores again at each renewal. It is never deleted:
who ends it, or buries it, stores a mark in its place. So an item that is missing was
lost, and proves no death; whoever misses one stores another mark, which says since
when it is missed, and a TTL later the session counts as dead. In either case the owner
finds another version at its next renewal, and knows.

That no renewal came for a TTL is seen in two ways: by one's own clock, since one saw
this very version first; or by the time that the server has left for the item, for those
who come later and do not stay long. The server counts whole seconds, so that takes two more.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NamedTuple

from .._runtime.base import Runtime
from ..errors import SessionLost, Unavailable
from ..wires.memcached import Reply, Wire
from ._memcached_items import Key, Keys, Version, add, batches, fetched, pack, swap
from .document import BURIED, DRIFT, SAVES_MAX

ALIVE, DEAD, MISSED = 0, 1, 2
"""The client flags of a session's item."""
LOST = "memcached: {} {!r} was lost by the server, and what we had in it"
SEEN_MAX = 65536
GRAIN_SECONDS = 2
"""How much older an item may look on the server's clock than it is."""


class Mine:
    """A session that was begun here."""

    __slots__ = ("claims", "generations", "owner", "version")

    def __init__(self, owner: str, version: Version) -> None:
        self.owner = owner
        self.version: Version | None = version
        """None if a renewal was sent whose outcome is not known."""
        self.claims: dict[str, set[str]] = {}
        """By roster: the ids of the claims that stand, or may."""
        self.generations: dict[str, int] = {}
        """Of each roster with a claim that stands: the generation of its item."""

    def withdrawn(self, roster: str, id: str) -> None:
        """A claim does not stand any more."""
        ids = self.claims.get(roster)
        if ids is not None:
            ids.discard(id)
            if not ids:
                self.claims.pop(roster, None)
                self.generations.pop(roster, None)


class _Seen(NamedTuple):
    version: tuple[bytes, int]
    since: float


def new_session(runtime: Runtime, ttl: float) -> str:
    """A session's id. It tells the TTL, also when nothing else is left of the session."""
    return f"{runtime.unique()}-{math.ceil(ttl * 1000)}"


def ttl_of(session: str) -> float:
    """The TTL that a session's id tells."""
    text = session.rpartition("-")[2]
    return int(text) / 1000 if text.isdigit() else 0.0


def lifetime(session: str) -> int:
    """For how many seconds the server keeps a session's item.

    At most ten days, for a TTL of one; from thirty on, the server takes it for a date.
    """
    return max(3600, math.ceil(10 * ttl_of(session)))


class Sessions:
    """The sessions of one namespace."""

    def __init__(self, wire: Wire[Any], keys: Keys, runtime: Runtime) -> None:
        self._wire = wire
        self._keys = keys
        self._runtime = runtime
        self._seen: dict[str, _Seen] = {}
        self.mine: dict[str, Mine] = {}

    def begin(self, session: str, owner: str) -> bytes:
        """The request that stores a new session."""
        key = self._keys.of("s", session)
        return add(key.key, pack(key, {"owner": owner}), ALIVE, lifetime(session))

    async def renew(self, session: str, mine: Mine, probes: list[bytes]) -> list[Reply]:
        """Store our session again, then send the probes; the replies to these."""
        key = self._keys.of("s", session)
        value = pack(key, {"owner": mine.owner})
        for _ in range(SAVES_MAX):
            version, mine.version = mine.version, None
            if version is None:
                version = await self._load(key)
            first, *more = batches([swap(key.key, value, version, lifetime(session)), *probes])
            request = b"".join(first)
            instance, replies = await self._wire.ask(request, len(first), version.instance)
            # Buried meanwhile, or an earlier renewal of ours arrived late: look which.
            if replies and replies[0].code == b"HD":
                mine.version = version._replace(instance=instance, cas=replies[0].flag(b"c"))
                found = replies[1:]
                for some in more:
                    found += (await self._wire.ask(b"".join(some), len(some)))[1]
                return found
        raise Unavailable("memcached: the session's item is too contended")

    async def _load(self, key: Key) -> Version:
        instance, replies = await self._wire.ask(b"mg %b c f\r\n" % key.key)
        if replies[0].code == b"EN":
            raise SessionLost(LOST.format("the session", key.key.decode()))
        version = fetched(instance, replies[0])
        if version.generation != ALIVE:
            raise SessionLost(BURIED)
        return version

    async def end(self, session: str) -> None:
        """Mark a session as dead, whatever is there."""
        key = self._keys.of("s", session).key
        await self._wire.ask(b"ms %b 0 F%d T%d\r\n\r\n" % (key, DEAD, lifetime(session)))

    async def last_seen(self, session: str) -> float | None:
        """Seconds since it was renewed; None if it is dead."""
        key = self._keys.of("s", session).key
        _, replies = await self._wire.ask(b"mg %b f t\r\n" % key)
        if replies[0].code == b"EN" or replies[0].flag(b"f") != ALIVE:
            return None
        return float(max(0, lifetime(session) - replies[0].flag(b"t")))

    async def living(self, sessions: Collection[str]) -> set[str]:
        """Those that live, or may; the others are marked as dead."""
        found: set[str] = set()
        for some in batches(sorted(sessions)):
            found |= await self._living(some)
        return found

    async def _living(self, sessions: Any) -> set[str]:
        keys = [self._keys.of("s", session).key for session in sessions]
        request = b"".join(b"mg %b f c t\r\n" % key for key in keys)
        instance, replies = await self._wire.ask(request, len(keys))
        now = self._runtime.now()
        living: set[str] = set()
        marks: list[bytes] = []
        over: list[tuple[str, bytes]] = []
        for session, key, reply in zip(sessions, keys, replies, strict=True):
            if reply.code == b"EN":
                marks.append(b"ms %b 0 ME F%d T%d\r\n\r\n" % (key, MISSED, lifetime(session)))
                living.add(session)
            elif reply.flag(b"f") == DEAD:
                self._seen.pop(session, None)
            elif self._silent(session, (instance, reply.flag(b"c")), reply.flag(b"t"), now):
                mark = b"ms %b 0 C%d F%d T%d\r\n\r\n"
                cas = reply.flag(b"c")
                over.append((session, mark % (key, cas, DEAD, lifetime(session))))
            else:
                living.add(session)
        if marks:
            await self._wire.ask(b"".join(marks), len(marks), instance)
        if over:
            request = b"".join(mark for _, mark in over)
            _, replies = await self._wire.ask(request, len(over), instance)
            # Where that fails, it was renewed or somebody else buried it: the next look tells.
            buried = {each[0] for each, reply in zip(over, replies, strict=False) if _done(reply)}
            living.update(session for session, _ in over if session not in buried)
            for session in buried:
                self._seen.pop(session, None)
        return living

    def _silent(self, session: str, version: tuple[bytes, int], left: int, now: float) -> bool:
        """Whether a session was not renewed, or is missing, for a whole TTL."""
        ttl = ttl_of(session)
        if lifetime(session) - left >= math.ceil(ttl) + GRAIN_SECONDS:
            return True
        seen = self._seen.get(session)
        if seen is None or seen.version != version:
            if len(self._seen) >= SEEN_MAX:
                self._seen.clear()
            self._seen[session] = _Seen(version, now)
            return False
        return now - seen.since >= ttl * DRIFT


def _done(reply: Reply) -> bool:
    return reply.code == b"HD"
