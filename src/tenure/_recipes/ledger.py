"""A record that many clients change, one at a time: compare and set, again until it is done.

The record is a small JSON object. Where a change must not be made twice, such as counting
down, its author's mark is written with it: when the reply to a write is lost, the mark that is
found in the record tells that it was made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from .._session import Session
from ..errors import OutcomeUnknown, ProtocolError, Unavailable
from .records import insist

Entry = Mapping[str, Any]

MARKS_MAX = 256
"""How many changes back a mark is still found. So many others would have to be faster than a
client takes to ask what became of its lost write."""
TRIES_MAX = 1000
"""Tries at one compare-and-set loop before the record counts as too contended."""


class Ledger:
    """The record of one name."""

    __slots__ = ("_session", "name")

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self.name = name

    async def read(self, until: float | None = None) -> Entry | None:
        """What it says; None if there is no such record."""
        return (await self.look(until))[0]

    async def look(self, until: float | None = None) -> tuple[Entry | None, Any]:
        """What it says, and the version to give to `write`."""
        driver, name = self._session.driver, self.name
        record = await insist(self._session, lambda: driver.recall(name), until, self._session.ttl)
        if record is None:
            return None, None
        return _decoded(name, record.text), record.version

    async def write(self, entry: Entry | None, version: Any) -> bool | None:
        """Write it, or delete it if None, unless somebody was faster; say whether it is done.

        None if the reply is lost and nobody knows: look again.
        """
        text = None if entry is None else json.dumps(entry, separators=(",", ":"))
        try:
            return await self._session.driver.record(self.name, text, version) is not None
        except OutcomeUnknown:
            return None
        except Unavailable:
            return False

    async def change(
        self, change: Callable[[Entry | None], Entry | None], *, marked: bool = False
    ) -> Entry | None:
        """Replace what it says by what `change` makes of it; an empty object deletes it.

        If `change` returns None, it is left as it is. Returns what the record says now.
        With `marked`, the change is made once even if replies are lost; without, it may be
        made again on top of what others have written meanwhile.
        """
        runtime = self._session.runtime
        mark = runtime.unique()[:8]
        give_up: float | None = None
        unsure = False
        for attempt in range(TRIES_MAX):
            if attempt:
                # Whoever is away is waited for by `look`; this is for others that are faster.
                pause = runtime.random() * 0.002 * min(attempt, 25)
                await runtime.sleep(runtime.now() + pause)
                give_up = give_up or runtime.now() + self._session.ttl
            try:
                entry, version = await self.look(give_up)
            except Unavailable as error:
                if not unsure:
                    raise
                raise OutcomeUnknown(f"the change of {self.name!r} may be made: {error}") from error
            if entry is not None and mark in entry.get("by", ()):
                return entry
            new = change(entry)
            if new is None:
                return entry
            if not new and entry is None:
                return None
            if new and marked:
                before = entry.get("by", []) if entry is not None else []
                new = {**new, "by": [*before, mark][-MARKS_MAX:]}
            done = await self.write(new or None, version)
            if done:
                return new or None
            unsure = unsure or done is None
        raise Unavailable(f"the record {self.name!r} is too contended: {TRIES_MAX} tries in vain")


def _decoded(name: str, text: str) -> Entry:
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise ProtocolError(f"the record {name!r} is damaged: {text[:80]!r}")
    return entry
