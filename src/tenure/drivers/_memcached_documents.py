"""The documents of the memcached driver: items that are stored if they are still what was read.

What it takes to be safe on a server that forgets is told in `memcached`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._runtime.base import Runtime
from .._url import Url
from ..errors import SessionLost, Unavailable
from ..wires import memcached as wires
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
from ._memcached_looks import Looks
from ._memcached_sessions import LOST, Mine, Sessions
from ._memcached_url import settings, ttl_most
from .document import BURIED, Document, DocumentDriver

LOADS_MAX = 20
"""Tries to find a roster that was lost and is made again."""
DELETED = "deleted"
"""The version of what was deleted: nothing ever has it again."""
_LETTERS = {"session": "s", "roster": "r", "record": "d"}


class ItemDocuments(DocumentDriver):
    """The document rung over items."""

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._most = ttl_most(url, ttl)
        self._keys = Keys(namespace)
        self._wire = wires.wire(settings(url, self.patience), runtime.flavour)
        self._index = Index(self._wire, self._keys, runtime, self._most)
        self._sessions = Sessions(self._wire, self._keys, runtime)
        self._embargoes: dict[str, int] = {}
        """Of each roster that was seen under an embargo: when that ends, by the server's clock."""
        self._looks = Looks(self._wire, self._keys, runtime)

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
        instance = version.instance
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
        if not sure and not await self.relist(roster, new.generation, bool(new.until)):
            # In place of one that was lost, without an embargo. Nothing was granted in it.
            await self._wire.ask(b"md %b C%d\r\n" % (key.key, new.cas), 1, instance)
            return None
        if mine is not None and mine.generations.setdefault(roster, new.generation) != (
            new.generation
        ):
            raise SessionLost(LOST.format("the roster", roster))  # with earlier claims of ours
        return new

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

    async def relist(self, roster: str, generation: int, again: bool = False) -> bool:
        """List a roster that is there; False if another one was there before.

        `SessionLost` if it was lost before that was done.
        """
        if not await self._index.enlist("roster", roster, generation, again):
            return False
        _, replies = await self._wire.ask(b"mg %b f\r\n" % self._keys.of("r", roster).key)
        if replies[0].line != b"HD f%d" % generation:
            raise SessionLost(LOST.format("the roster", roster))
        return True

    async def recognize(self, mine: Mine, roster: str, id: str) -> None:
        document, version = await self.load("roster", roster)
        here = document is not None and any(each[0] == id for each in document["claims"])
        if not here or not await self.relist(roster, version.generation, bool(version.until)):
            raise SessionLost(LOST.format("a claim in the roster", roster))
        mine.generations[roster] = version.generation

    async def embargoed(self, roster: str) -> bool:
        """Whether the embargo of a roster goes on."""
        until = self._embargoes.get(roster, 0)
        if (await self._index.clock()).uptime < until:
            return True
        self._embargoes.pop(roster, None)
        return False


def _token(clock: Clock, until: int) -> int:
    """The token before the first: beyond all that may have been given, by the same clock."""
    return (clock.time + max(0, until - clock.uptime + 1)) * 1_000_000
