"""Which names a namespace has on memcached, and whether what is missing was lost.

memcached forgets: it evicts, it is flushed, it is restarted. A roster that is not there may
never have been, and then its lock is free; or it was lost, and then its holder does not
know yet. The index tells the two apart. It is a fixed number of items, the shards, each
with the names that fall into it, and of each roster its generation. Nothing is granted
in a roster before it is listed, with its generation, and was seen to be there after that. So:

- not there and not listed: nothing was ever granted in it;
- not there, but listed, or listed with another generation: it was lost;
- its shard is not there: it never was if the server has been up for longer than any
  lease lasts and has never dropped anything, as its statistics tell; else the shard may
  have been lost.

What may have been lost is made again under an embargo: for longer than any lease lasts
nothing in it is granted. The end of the embargo is a reading of the server's clock, kept
in the item, so that all agree about it. A shard's embargo is that of all that is made
in it meanwhile.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from .._runtime.base import Runtime
from ..errors import BackendError, InvalidURL, ProtocolError, Unavailable
from ..wires.memcached import Reply, Wire, statistics
from ._memcached_items import (
    Key,
    Keys,
    Version,
    add,
    check_size,
    fetched,
    pack,
    swap,
    unpack,
)

SHARDS = 64
TRIES_MAX = 100

LOSSES = (
    *("evictions", "cmd_flush", "slab_reassign_evictions_nomem", "slab_reassign_busy_deletes"),
    *("store_too_large", "store_no_memory"),
)
"""The statistics that count what was dropped without anybody's asking for it."""

UPTIME_AT_START_SECONDS = 3
"""The server's uptime does not begin at 0."""


class Clock(NamedTuple):
    """What a server says of its age: its uptime, and Unix time, in seconds."""

    uptime: int
    time: int


class Shard(NamedTuple):
    """One item of the index."""

    version: Version
    names: dict[str, dict[str, int]]
    """By kind: the generation of each name's item; 0 where that is not kept."""


class Index:
    """The index of one namespace."""

    def __init__(self, wire: Wire[Any], keys: Keys, runtime: Runtime, most: float) -> None:
        self._wire = wire
        self._runtime = runtime
        self._most = most
        self._listed: dict[str, tuple[int, int]] = {}
        """Of each roster used last: the generation of the shard that is known to list it, and
        the roster's."""
        self._age = (b"", 0)
        """A life of the server, and how old it was when it was asked last."""
        self._shards = [keys.of("i", str(number)) for number in range(SHARDS)]
        self.embargo = math.ceil(most) + 1
        """Seconds on the server's clock; a second is as fine as that goes."""

    def number(self, name: str) -> int:
        """Of the shard that a name falls into."""
        return zlib.crc32(name.encode("utf-8", "surrogatepass")) % SHARDS

    def probe(self, number: int) -> bytes:
        """A request for the generation of a shard."""
        return b"mg %b f\r\n" % self._shards[number].key

    def lists(self, name: str, generation: int, reply: Reply) -> bool:
        """Whether the shard that answered the probe is known to list the roster."""
        known = self._listed.get(name)
        return known is not None and known[1] == generation and reply.line == b"HD f%d" % known[0]

    async def clock(self) -> Clock:
        """Read the server's clock."""
        instance, replies = await self._wire.ask(b"stats\r\n")
        return self._read_clock(instance, replies[0])

    def over(self, instance: bytes, until: int) -> bool:
        """Whether the clock was seen to be past that. If not, it may be all the same."""
        return until <= (self._age[1] if instance == self._age[0] else 0)

    async def shard(self, name: str) -> tuple[Shard, Clock, int]:
        """The shard that a name falls into, the server's clock, and when its embargo ends, or 0.

        It is made if need be.
        """
        key = self._shards[self.number(name)]
        for _ in range(TRIES_MAX):
            instance, replies = await self._wire.ask(b"mg %b v c f\r\nstats\r\n" % key.key, 2)
            now = self._read_clock(instance, replies[1])
            if replies[0].value is not None:
                shard = self._read(key, instance, replies[0])
                until = shard.version.until
                # The statistics were read after the shard: what they say was true then.
                over = until <= now.uptime or self._never_lost(statistics(replies[1]))
                return shard, now, 0 if over else until
            await self._found(instance, now)
        raise Unavailable("memcached: the server drops the index as soon as it is made")

    async def enlist(self, kind: str, name: str, generation: int = 0, again: bool = False) -> bool:
        """See to it that a name is listed; False if it is with another generation.

        With `again` the other generation is replaced: that of an item that was lost, if
        the embargo on the present one began after that.
        """
        for attempt in range(TRIES_MAX):
            if attempt:
                pause = self._runtime.random() * 0.001 * min(attempt, 50)
                await self._runtime.sleep(self._runtime.now() + pause)
            shard, _, _ = await self.shard(name)
            listed = shard.names.get(kind, {}).get(name)
            if listed is not None and listed != generation and not again:
                return False
            if listed == generation or await self.change(kind, name, shard, generation):
                if len(self._listed) >= 4096:
                    self._listed.clear()
                self._listed[name] = (shard.version.generation, generation)
                return True
        raise Unavailable("memcached: the index is too contended")

    async def unlist(self, kind: str, name: str, key: Key) -> None:
        """Take off what was deleted; if that fails, a name is left that is no harm."""
        try:
            shard, _, _ = await self.shard(name)
            if await self.change(kind, name, shard, None):
                _, replies = await self._wire.ask(b"mg %b\r\n" % key.key)
                if replies[0].code == b"HD":  # made again, and perhaps listed before we removed it
                    await self.enlist(kind, name)
        except BackendError:
            return

    async def change(self, kind: str, name: str, shard: Shard, generation: int | None) -> bool:
        """List a name, or remove it if None; False if somebody else changed the shard."""
        names = {**shard.names.get(kind, {})}
        names.pop(name, None)
        if generation is not None:
            names[name] = generation
        key, version = self._shards[self.number(name)], shard.version
        value = pack(key, self._document({**shard.names, kind: names}), version.until)
        check_size(key.key, value, self._wire.item_bytes_max)
        request = swap(key.key, value, version)
        _, replies = await self._wire.ask(request, 1, version.instance)
        return bool(replies) and replies[0].code == b"HD"

    async def names(self, kind: str) -> list[str]:
        """Every name of a kind that is listed."""
        request = b"".join(b"mg %b v c f\r\n" % key.key for key in self._shards)
        instance, replies = await self._wire.ask(request, SHARDS)
        found: list[str] = []
        for key, reply in zip(self._shards, replies, strict=True):
            if reply.value is not None:
                found += self._read(key, instance, reply).names.get(kind, {})
        return found

    def _document(self, names: dict[str, dict[str, int]]) -> dict[str, Any]:
        return {"ttl_max": self._most, **names}

    def check(self, number: int, instance: bytes, reply: Reply) -> None:
        """Raise `InvalidURL` if the shard, if there is one, was made with another `ttl_max`."""
        if reply.value is not None:
            self._read(self._shards[number], instance, reply)

    def fetch(self, number: int) -> bytes:
        """A request for a shard, for `check`."""
        return b"mg %b v c f\r\n" % self._shards[number].key

    def _read(self, key: Key, instance: bytes, reply: Reply) -> Shard:
        assert reply.value is not None
        document, until = unpack(key, reply.value)
        if not isinstance(document, dict) or "ttl_max" not in document:
            raise ProtocolError(f"memcached: the item {key.key.decode()!r} is no index of Tenure's")
        most = document.pop("ttl_max")
        if most != self._most:
            raise InvalidURL(
                f"memcached: the namespace is in use with ttl_max={most:g}, and our URL says "
                f"{self._most:g}; all of its clients need the same"
            )
        return Shard(fetched(instance, reply)._replace(until=until), document)

    def _read_clock(self, instance: bytes, reply: Reply) -> Clock:
        now = clock(statistics(reply))
        if self._age[0] != instance or self._age[1] < now.uptime:
            self._age = (instance, now.uptime)
        return now

    async def _found(self, instance: bytes, now: Clock) -> None:
        """Make the shards that are missing: under an embargo, which counts unless nothing was
        ever lost."""
        value = pack(self._shards[0], self._document({}), now.uptime + self.embargo)
        requests = [add(key.key, value, draw(self._runtime)) for key in self._shards]
        await self._wire.ask(b"".join(requests), SHARDS, instance)

    def _never_lost(self, listed: Mapping[str, str]) -> bool:
        """Whether nothing was lost since before the oldest lease that may still be believed in."""
        up = clock(listed).uptime >= UPTIME_AT_START_SECONDS + self.embargo
        return up and not any(number(listed, each) for each in LOSSES)


def number(listed: Mapping[str, str], name: str) -> int:
    """One of the server's numbers; 0 if it does not count that."""
    text = listed.get(name, "0")
    return int(text) if text.isdigit() else 0


def clock(listed: Mapping[str, str]) -> Clock:
    """The clock among the server's statistics."""
    if not (listed.get("uptime", "").isdigit() and listed.get("time", "").isdigit()):
        raise ProtocolError("memcached: the server does not tell its uptime")
    return Clock(int(listed["uptime"]), int(listed["time"]))


def draw(runtime: Runtime) -> int:
    """A new generation."""
    return 2 + int(runtime.unique(), 36) % (2**32 - 2)
