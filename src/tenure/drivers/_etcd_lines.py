"""What the watches of waiters and watchers are for: which news is worth a look.

A watch begins at some revision, and says at which. What its waiter knew by then, or has
learnt since, is compared with that; so nothing is missed between a look and a watch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..wires._etcd_api import Change
from ._etcd_keys import Place, is_shared, record


class Purpose(Protocol):
    """Decides for one watch whether news of it shall wake somebody."""

    def began(self, revision: int) -> bool:
        """The watch stands, and sees what comes after the revision (0: not known)."""

    def broke(self) -> None:
        """News may have been missed; the watch will begin anew."""

    def saw(self, changes: Sequence[Change]) -> bool:
        """Changes were seen, in the order of their revisions."""


class Predecessor:
    """The claim directly before one's own, and one's own key, if `own` is watched, too."""

    def __init__(self, place: Place, own: bool) -> None:
        self._place = place
        self._key = place.standing.before_key
        self._own = own
        self._began = 0

    def began(self, revision: int) -> bool:
        self._began = revision
        return not 0 < revision <= self._place.standing.revision

    def broke(self) -> None:
        self._began = 0
        self._place.forget()

    def saw(self, changes: Sequence[Change]) -> bool:
        place = self._place
        gone = {change.key: change.revision for change in changes}
        if place.key in gone:
            place.forget()
            self._own = False
            return True
        removed = gone.get(self._key)
        if removed is None:
            return False
        # Alone before us at `standing.revision`, and what happened to our own key since
        # would have been told first: so the claim is the head (docs/decisions/0021).
        standing = place.standing
        seen = self._own and 0 < self._began <= standing.revision < removed
        if seen and standing.rank == 1 and standing.before_key == self._key:
            place.first = True
        return True


class Line:
    """All claims before one's own, where more than one may be granted at a time.

    Everybody in line hears of every removal, but looks only when enough have gone.
    """

    def __init__(self, place: Place, width: int) -> None:
        self._place = place
        self._width = width
        self._began = 0
        self._gone: list[int] = []

    def began(self, revision: int) -> bool:
        self._began = revision
        return not 0 < revision <= self._place.standing.revision

    def broke(self) -> None:
        self._began = 0
        self._gone.clear()

    def saw(self, changes: Sequence[Change]) -> bool:
        place = self._place
        standing = place.standing
        for change in changes:
            if change.key == place.key or change.before is None:
                return True
            shared = place.shared and is_shared(change.key)
            if change.before.created < place.token and not shared:
                self._gone.append(change.revision)
        self._gone = [each for each in self._gone if each > standing.revision]
        if not 0 < self._began <= standing.revision:
            return True
        return standing.rank - len(self._gone) < self._width


class Public:
    """A roster's claims that have a body, or had one; or, with `every`, a record."""

    def __init__(self, every: bool = False) -> None:
        self._every = every

    def began(self, revision: int) -> bool:
        return not self._every  # the record's watch is asked for first: one look is for both

    def broke(self) -> None:
        """Looks anyway when it begins anew."""

    def saw(self, changes: Sequence[Change]) -> bool:
        return self._every or any(_is_public(change) for change in changes)


class Anything:
    """Whatever happens in a range."""

    def began(self, revision: int) -> bool:
        return True

    def broke(self) -> None:
        """Looks anyway when it begins anew."""

    def saw(self, changes: Sequence[Change]) -> bool:
        return True


def _is_public(change: Change) -> bool:
    if not change.removed and record(change.value).get("body"):
        return True
    if change.before is not None:
        return bool(record(change.before.value).get("body"))
    return change.removed  # what was removed is no longer known
