"""Drivers that lie about what was written, one for each experiment on views.

An experiment that refutes nobody proves nothing. To import this module registers them; each
is an honest driver with one thing wrong, and claims as if it were right.
"""

from __future__ import annotations

from typing import Any

from .._model import Record, Roll
from .._runtime.base import Runtime
from .._url import Url
from ..drivers import registry
from ..drivers.base import Driver
from ..drivers.etcd import EtcdDriver
from ..drivers.memory import MemoryDriver
from ..wires import _etcd_proto as proto
from ..wires._etcd_api import Get

__all__ = [
    "LIARS",
    "DoubleSwaps",
    "EffectsFirst",
    "LostUpdates",
    "ReadsOfOneMember",
    "ReadsOfThePast",
    "StaleReads",
    "TwoHolders",
]


class StaleReads(MemoryDriver):
    """Answers with what it has read up to a tenth of a second ago."""

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._read: dict[str, tuple[float, Record | None]] = {}

    async def recall(self, name: str) -> Record | None:
        now = self.runtime.now()
        if name not in self._read or self._read[name][0] < now - 0.1:
            self._read[name] = (now, await super().recall(name))
        return self._read[name][1]

    async def record(self, name: str, text: str | None, version: Any) -> Any:
        self._read.pop(name, None)
        return await super().record(name, text, version)


class EffectsFirst(MemoryDriver):
    """Answers with what it has read the last time, and reads anew for the next."""

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._next: dict[str, Record | None] = {}

    async def recall(self, name: str) -> Record | None:
        fresh = await super().recall(name)
        told = self._next.get(name, fresh)
        self._next[name] = fresh
        return told


class ReadsOfThePast(MemoryDriver):
    """Answers every seventh read with what the one before the last has found."""

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._reads: list[tuple[str, Record | None]] = []

    async def recall(self, name: str) -> Record | None:
        fresh = await super().recall(name)
        self._reads.append((name, fresh))
        mine = [record for other, record in self._reads if other == name]
        return mine[-3] if len(self._reads) % 7 == 0 and len(mine) > 2 else fresh


class LostUpdates(MemoryDriver):
    """Acknowledges every tenth write, and forgets it."""

    _written = 0

    async def record(self, name: str, text: str | None, version: Any) -> Any:
        self._written += 1
        if self._written % 10 or version is None:
            return await super().record(name, text, version)
        found = await self.recall(name)
        return None if found is None or found.version != version else version


class DoubleSwaps(MemoryDriver):
    """Writes over whatever is there, if what was expected is not there any more."""

    async def record(self, name: str, text: str | None, version: Any) -> Any:
        done = await super().record(name, text, version)
        if done is not None or version is None:
            return done
        found = await self.recall(name)
        return None if found is None else await super().record(name, text, found.version)


class TwoHolders(MemoryDriver):
    """Has locks and nothing else, and grants every fifth that is taken."""

    traits = MemoryDriver.traits._replace(rosters=False)
    _taken = 0

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        roll = await super().claim(session, roster, id, body, width, shared)
        if roll.mine is None:
            self._taken += 1
            if self._taken % 5 == 0:
                roll = await super().claim(session, roster, id, body, None, shared)
                roll = roll._replace(rank=0, before=None)
        return roll


class ReadsOfOneMember(EtcdDriver):
    """Has the member that it asks answer from what that one has, without asking the others."""

    async def recall(self, name: str) -> Record | None:
        records: Any = self.records
        wire = records._wire()
        request = proto.range_request(Get(records._keys.of_record(name)))
        found = proto.range_reply(await wire._call("Range", request + _SERIALIZABLE))
        return next((Record(each.value.decode(), each.modified) for each in found), None)


_SERIALIZABLE = b"\x38\x01"
"""Field 7 of a RangeRequest: true."""

LIARS: dict[str, type[Driver]] = {
    "liar-stale": StaleReads,
    "liar-effects": EffectsFirst,
    "liar-past": ReadsOfThePast,
    "liar-updates": LostUpdates,
    "liar-swaps": DoubleSwaps,
    "liar-holders": TwoHolders,
    "liar-member": ReadsOfOneMember,
}
"""By the scheme of their URLs."""

for _scheme, _driver in LIARS.items():
    registry.register(_scheme, _driver)
