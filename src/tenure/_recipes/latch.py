"""The latch: a number that is counted down, by whomever, and a wait for it to be zero.

It is a record and nothing else, so it needs no session and outlives every client. How often
it has come to zero is written beside it: who waits does not miss that somebody set it anew.
"""

from __future__ import annotations

from .. import _names
from .._session import Session
from ..errors import InvalidArgument, LimitMismatch
from .ledger import Entry, Ledger
from .watch import RosterWatch

COUNT_MAX = 1_000_000
"""The greatest count."""


class LatchRecipe:
    """One name. `first` is what its user takes it to begin with; None, whatever it is."""

    __slots__ = ("_ledger", "_session", "first", "name")

    def __init__(self, session: Session, name: str, first: int | None) -> None:
        self._session = session
        self._ledger = Ledger(session, _names.of("latch", name))
        self.name = name
        self.first = first

    async def count(self) -> int | None:
        """What is left; None if nobody has said where it begins."""
        self._session.check_open()
        entry = await self._ledger.read()
        return self.first if entry is None else int(self._checked(entry)["count"])

    async def count_down(self, number: int) -> int:
        """Take so many off, and say what is left. Made once, even if replies are lost."""
        self._session.check_open()

        def less(old: Entry | None) -> Entry | None:
            entry = self._begun() if old is None else self._checked(old)
            if not entry["count"]:
                return None
            left = max(0, entry["count"] - number)
            return {**entry, "count": left, "opened": entry["opened"] + (not left)}

        entry = await self._ledger.change(less, marked=True)
        return int(entry["count"]) if entry is not None else 0

    async def wait(self, until: float | None) -> bool:
        """Wait for zero; say whether it came before the time."""
        session = self._session
        session.check_open()
        entry = await self._ledger.read(until)
        opened = 0 if entry is None else self._checked(entry)["opened"]
        if _is_open(entry, opened):
            return True
        watch = RosterWatch(session, self._ledger.name)
        await watch.open()
        try:
            while True:
                entry = await self._ledger.read(until)
                if _is_open(entry, opened):
                    return True
                if until is not None and session.now() >= until:
                    return False
                await watch.wait(until)
        finally:
            watch.close()

    async def reset(self, count: int | None) -> None:
        """Begin again, with that count or the one that it began with."""
        self._session.check_open()

        def anew(old: Entry | None) -> Entry:
            begun = old or self._begun(count)
            of = begun["of"] if count is None else count
            return {**begun, "count": of, "of": of}

        await self._ledger.change(anew, marked=True)
        if count is not None:
            self.first = count

    async def delete(self) -> None:
        """Forget it. Idempotent."""
        self._session.check_open()
        await self._ledger.change(lambda old: {})

    def _begun(self, count: int | None = None) -> Entry:
        first = self.first if count is None else count
        if first is None:
            raise InvalidArgument(
                f"the latch {self.name!r} has no count yet: its first user must give one"
            )
        return {"count": first, "of": first, "opened": 0}

    def _checked(self, entry: Entry) -> Entry:
        if self.first not in (None, entry["of"]):
            raise LimitMismatch(
                f"the latch {self.name!r} began with a count of {entry['of']}, not of {self.first}",
                given=self.first,
                found=int(entry["of"]),
            )
        return entry


def _is_open(entry: Entry | None, opened: int) -> bool:
    return entry is not None and (not entry["count"] or entry["opened"] > opened)
