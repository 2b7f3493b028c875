"""Records on Consul: keys that no session has locked, whose version is when they were written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._model import Record
from .._runtime.base import Runtime
from ..wires import consul as wires
from ..wires.consul import ConsulWire, Refused
from ._consul_keys import Keys
from .base import Records


class KeyRecords(Records):
    """The records of one namespace."""

    def __init__(self, keys: Keys, wire: Callable[[], ConsulWire], runtime: Runtime) -> None:
        self._keys = keys
        self._wire = wire
        self._runtime = runtime

    async def recall(self, name: str) -> Record | None:
        entry = await self._wire().get(self._keys.of_record(name))
        if entry is None:
            return None
        return Record(wires.decoded(entry).decode(errors="replace"), entry.modified)

    async def record(self, name: str, text: str | None, version: Any) -> int | None:
        key, wire = self._keys.of_record(name), self._wire()
        if text is not None:
            # Without it, the same text again would be no write, and have no version of its own.
            flags = int(self._runtime.random() * (1 << 53))
            outcome = await wire.txn([wires.put_if(key, version or 0, text.encode(), flags)])
            return None if isinstance(outcome, Refused) else outcome[0].modified
        if version is None:
            operations = [wires.not_there(key)]
        else:  # a deletion by index would also succeed where nothing is
            operations = [wires.unchanged(key, version), wires.delete(key)]
        # What is deleted has no version; that of what was there will not come again.
        return None if isinstance(await wire.txn(operations), Refused) else version or 0

    async def recorded(self, prefix: str) -> Sequence[str]:
        found = await self._wire().keys(self._keys.of_record(prefix))
        return sorted(self._keys.name(each) for each in found)
