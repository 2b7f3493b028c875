"""What has happened in a group since it was looked at last.

A subscription in the background sees what comes and goes between two looks, as far as the
backend tells of it; a look when the program asks sees all that is there at that moment. Each
member's coming and going is told once, whichever of the two saw it first.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

from ..._sync._group import Group, Subscription
from ...errors import GroupNotFound
from . import _inside

NEWS_MAX = 10_000
"""Changes that nobody has asked for; of more than these, steps are forgotten, and no member."""
GONE_MAX = 10_000


class Step(NamedTuple):
    """A member has joined, or has left."""

    kind: Literal["joined", "left"]
    member: str


class GroupWatcher:
    """Follows one group, from now until it is closed. `GroupNotFound` if there is none.

    What it knows outlives `close`, so that `look` with a group of the next session finds what has
    changed meanwhile.
    """

    def __init__(self, group: Group) -> None:
        self.untold: deque[Step] = deque()
        """What was seen. A step is taken out by who tells it, and put back if that fails."""
        members = group.members()
        self._present = {info.id: info.token for info in members}
        """The token of each member that was seen."""
        self._gone: dict[tuple[str, int], None] = {}
        """Memberships that were seen to be over: word of their begin may come late."""
        self._news: deque[tuple[str, str, int]] = deque(maxlen=NEWS_MAX)
        self._subscription: Subscription | None = group.on_change(self._hear, since=members)

    def _hear(self, change: object) -> None:
        kind, member = getattr(change, "kind", None), getattr(change, "member", None)
        if member is not None and kind in ("joined", "left"):
            self._news.append((kind, member.id, member.token))

    def look(self, group: Group, until: float | None = None) -> None:
        """Add to `untold` what has happened, and what the group looks like now."""
        self._heard()
        if self._subscription is None:
            # Before it is read: of what comes later, this one hears.
            self._subscription = group.on_change(self._hear)
        try:
            now = _inside.present(group, until)
        except GroupNotFound:
            now = {}  # it was deleted, and its members with it
        for id, token in list(self._present.items()):
            if now.get(id) != token:
                self._left(id, token)
        for id, token in now.items():
            self._joined(id, token)

    def _heard(self) -> None:
        while self._news:
            kind, id, token = self._news.popleft()
            if kind == "joined" and (id, token) not in self._gone:
                self._joined(id, token)
            elif kind == "left":
                self._left(id, token)

    def _joined(self, id: str, token: int) -> None:
        present = self._present.get(id)
        if present == token:
            return
        if present is not None:
            self._left(id, present)
        self._present[id] = token
        self.untold.append(Step("joined", id))

    def _left(self, id: str, token: int) -> None:
        if self._present.get(id) != token:
            return
        del self._present[id]
        self._gone[id, token] = None
        if len(self._gone) > GONE_MAX:
            del self._gone[next(iter(self._gone))]
        self.untold.append(Step("left", id))

    def close(self) -> None:
        """Follow it no more. What was heard until now is not lost."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()
        self._heard()
