"""Records on etcd: keys without a lease, whose version is the revision that wrote them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._model import Record
from ..wires._etcd_api import Created, Delete, Get, Guard, Operation, Put, Unchanged, Wire
from ._etcd_keys import Keys
from .base import Records


class KeyRecords(Records):
    """The records of one namespace."""

    def __init__(self, keys: Keys, wire: Callable[[], Wire]) -> None:
        self._keys = keys
        self._wire = wire

    async def recall(self, name: str) -> Record | None:
        for entry in await self._wire().get(Get(self._keys.of_record(name))):
            return Record(entry.value.decode(errors="replace"), entry.modified)
        return None

    async def record(self, name: str, text: str | None, version: Any) -> int | None:
        key = self._keys.of_record(name)
        guard: Guard = Created(key) if version is None else Unchanged(key, version)
        write: Operation = Delete(key) if text is None else Put(key, text.encode(), 0)
        outcome = await self._wire().txn((guard,), (write,))
        return outcome.revision if outcome.succeeded else None

    async def recorded(self, prefix: str) -> Sequence[str]:
        found = await self._wire().get(Get(*self._keys.records(prefix), keys_only=True))
        return sorted(self._keys.record_of(entry.key) for entry in found)
