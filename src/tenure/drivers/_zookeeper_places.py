"""What the ZooKeeper driver knows of its own claims, and of the bodies that it has read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from .._runtime.base import Runtime
from ..wires._zookeeper_api import NoNode, Reply, Stat

_ROSTERS_MAX = 64


class Place:
    """A claim of the driver's own.

    `node` is empty until it is known that the claim was entered; then a request to enter it
    may still be under way. `before` is the node directly before it, at the last look.
    """

    __slots__ = ("before", "body", "node", "roster", "session", "shared", "turn")

    def __init__(
        self, session: str, roster: str, shared: bool, turn: AbstractAsyncContextManager[None]
    ) -> None:
        self.session = session
        self.roster = roster
        self.shared = shared
        self.turn = turn
        self.node = ""
        self.body = ""
        self.before = ""


class Places:
    """The own claims, by id."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._places: dict[str, Place] = {}
        self.get = self._places.get

    def take(self, session: str, roster: str, id: str, shared: bool) -> tuple[Place, bool]:
        """The place of a claim, and whether it was made just now."""
        made = Place(session, roster, shared, self._runtime.mutex())
        place = self._places.setdefault(id, made)
        return place, place is made

    def drop(self, id: str) -> None:
        """Forget a claim that is gone."""
        self._places.pop(id, None)

    def end(self, session: str) -> None:
        """Forget all claims of a session that has ended."""
        for id, place in list(self._places.items()):
            if place.session == session:
                self._places.pop(id, None)


class Bodies:
    """The bodies of the claims of some rosters, as they were read last.

    Every amendment writes the roster's folder, too, and there the name of the node that it
    has amended. So if the folder's version is one more than when the bodies were read, one of
    them has to be read again, and it is known which.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int, dict[str, str]]] = {}

    def known(self, roster: str, stat: Stat, nodes: set[str], amended: str) -> dict[str, str]:
        """What need not be read again, of these nodes. `amended` was amended last."""
        born, version, bodies = self._known.get(roster, (0, 0, {}))
        if born != stat.born or not version <= stat.version <= version + 1:
            return {}
        changed = amended if stat.version > version else ""
        if stat.version > version and not changed:
            return {}
        return {node: body for node, body in bodies.items() if node in nodes and node != changed}

    def keep(self, roster: str, stat: Stat, bodies: dict[str, str]) -> None:
        """These were read after the folder had that version."""
        self._known.pop(roster, None)
        if len(self._known) >= _ROSTERS_MAX:
            self._known.pop(next(iter(self._known)), None)
        self._known[roster] = (stat.born, stat.version, bodies)

    @staticmethod
    def read(
        nodes: list[str], replies: list[Reply], value: Callable[[Reply], tuple[bytes, Stat]]
    ) -> dict[str, str]:
        """The bodies that were answered; a claim that is gone by now has none."""
        bodies = {}
        for node, reply in zip(nodes, replies, strict=True):
            try:
                bodies[node] = value(reply)[0].decode(errors="replace")
            except NoNode:
                continue
        return bodies
