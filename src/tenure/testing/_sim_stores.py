"""Two simulated backends: one that only loads and saves, one that keeps rosters and mutexes.

Both tell the judge what is entered, what is removed, and which session ends, at the
moment when it happens. Neither forgets anything in a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .._model import Claim, Interest, Record, Roll
from ..errors import SessionLost
from ._sim_net import Network
from ._sim_world import Node, World

Document = dict[str, Any]


class Observer(Protocol):
    """Who is told what happens in a store."""

    def entered(self, claim: Claim) -> None: ...

    def removed(self, roster: str, id: str) -> None: ...

    def recorded(self, name: str, text: str | None) -> None: ...

    def session_ended(self, session: str) -> None: ...


class Mailboxes:
    """Who wants to hear of which claim, or of which roster. Lost in a restart."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._wakes: dict[str, tuple[Node, Callable[[], None]]] = {}
        self._watchers: dict[str, set[str]] = {}

    def listen(self, interest: Interest, node: Node, wake: Callable[[], None]) -> None:
        self._wakes[interest.id] = (node, wake)
        if interest.watch:
            self._watchers.setdefault(interest.roster, set()).add(interest.id)

    def unlisten(self, interest: Interest) -> None:
        self._wakes.pop(interest.id, None)
        self._watchers.get(interest.roster, set()).discard(interest.id)

    def notify(self, id: str) -> None:
        if id in self._wakes:
            self._network.hint(*self._wakes[id])

    def changed(self, name: str) -> None:
        """A roster's public claims, or a record, changed."""
        for id in sorted(self._watchers.get(name, ())):
            self.notify(id)

    def forget(self) -> None:
        self._wakes.clear()
        self._watchers.clear()


class DocumentStore:
    """Documents with versions; a save names the version that it replaces."""

    def __init__(self, world: World, network: Network, observer: Observer) -> None:
        self._documents: dict[tuple[str, str], tuple[Document, int]] = {}
        self._version = 0
        self._world = world
        self._network = network
        self._observer = observer
        self._beats: dict[str, tuple[Node | None, float]] = {}
        """Of each session: whose it is, and when it was renewed last."""
        self.mailboxes = Mailboxes(network)

    def load(self, kind: str, name: str) -> tuple[Document | None, int]:
        return self._documents.get((kind, name), (None, 0))

    def save(self, kind: str, name: str, document: Document | None, version: int) -> int | None:
        old, current = self.load(kind, name)
        if current != version:
            return None
        self._version += 1
        if document is None:
            self._documents.pop((kind, name), None)
        else:
            self._documents[kind, name] = (document, self._version)
        if kind == "roster":
            self._report(name, (old or {"claims": []})["claims"], (document or old or {})["claims"])
        elif kind == "record":
            self._observer.recorded(name, None if document is None else document["text"])
        elif document is not None:
            owner = self._beats[name][0] if name in self._beats else self._network.serving
            self._beats[name] = (owner, self._world.time)
        elif old is not None:
            owner, renewed = self._beats.pop(name)
            if owner is not self._network.serving and self._world.time - renewed < old["ttl"]:
                self._world.fail(f"the session {name} was buried within its TTL")
            self._observer.session_ended(name)
        return self._version

    def _report(self, roster: str, old: list[Any], new: list[Any]) -> None:
        if old is new:
            return
        # By token, too: a claim that was buried and entered again stands at the end.
        before, after = [(each[0], each[2]) for each in old], [(each[0], each[2]) for each in new]
        for entry in before:
            if entry not in after:
                self._observer.removed(roster, entry[0])
        for id, session, token, owner, body, shared in new:
            if after.count((id, token)) > before.count((id, token)):
                self._observer.entered(Claim(roster, id, session, token, owner, body, shared))

    def names(self, kind: str) -> Sequence[str]:
        return [name for each, name in self._documents if each == kind]

    def sessions(self) -> list[str]:
        """The sessions that it knows."""
        return [name for kind, name in self._documents if kind == "session"]


class RosterStore:
    """Sessions that expire on the server's clock, with ordered claims, or mutexes with queues."""

    def __init__(
        self, world: World, network: Network, observer: Observer, rate: float, tells: bool
    ) -> None:
        self._world = world
        self._network = network
        self._observer = observer
        self._rate = rate
        self._tells = tells
        """Whether it pushes the end of a session, to its owner and to who moves up."""
        self._expiry: dict[str, float] = {}
        self._ttl: dict[str, float] = {}
        self._owner: dict[str, tuple[str, Node, Callable[[str], None]]] = {}
        self._rosters: dict[str, list[Claim]] = {}
        self._records: dict[str, Record] = {}
        self._version = 0
        self._token = 0
        self.mailboxes = Mailboxes(network)

    # -- sessions ----------------------------------------------------------------

    def start(
        self, session: str, owner: str, ttl: float, node: Node, lost: Callable[[str], None]
    ) -> None:
        self._owner[session] = (owner, node, lost)
        self._ttl[session] = ttl
        self._expiry[session] = self._world.time + ttl / self._rate
        self._world.push(self._expiry[session], None, self._look, session)

    def check(self, session: str) -> None:
        """Raise `SessionLost` if it does not live any more."""
        if session not in self._expiry:
            raise SessionLost("the session has expired")

    def renew(self, session: str) -> None:
        self.check(session)
        self._expiry[session] = self._world.time + self._ttl[session] / self._rate

    def end(self, session: str) -> None:
        if session not in self._expiry:
            return
        del self._expiry[session]
        for roster in list(self._rosters):
            for claim in list(self._rosters[roster]):
                if claim.session == session:
                    self._remove(claim)
        self._observer.session_ended(session)

    def _look(self, session: str) -> None:
        expiry = self._expiry.get(session)
        if expiry is None:
            return
        if expiry > self._world.time:
            self._world.push(expiry, None, self._look, session)
            return
        self.end(session)
        _, node, lost = self._owner[session]
        if self._tells:
            self._network.hint(node, lambda: lost("the backend says that it has expired"))

    def sessions(self) -> list[str]:
        """The sessions that it knows."""
        return list(self._expiry)

    def last_seen(self, session: str) -> float | None:
        """Seconds since it was renewed."""
        expiry = self._expiry.get(session)
        if expiry is None:
            return None
        return self._world.time - expiry + self._ttl[session] / self._rate

    # -- rosters -----------------------------------------------------------------

    def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        self.check(session)
        claims = self._rosters.setdefault(roster, [])
        known = self._known(claims, id)
        if not known and (width is None or len(_ahead(claims, shared)) < width):
            token = self._draw(claims)
            claim = Claim(roster, id, session, token, self._owner[session][0], body, shared)
            self.place(claims, claim)
            self._observer.entered(claim)
            if body:
                self.mailboxes.changed(roster)
        return self.roll(roster, id)

    def amend(self, claim: Claim, body: str) -> Claim:
        """Replace the body that is known, or find it replaced."""
        self.check(claim.session)
        amended = claim._replace(body=body)
        claims = self._rosters.get(claim.roster, [])
        if amended not in claims:
            if claim not in claims:
                raise SessionLost("the claim is gone, or was amended by somebody else")
            claims[claims.index(claim)] = amended
            self.mailboxes.changed(claim.roster)
        return amended

    def census(self, roster: str) -> tuple[Claim, ...]:
        """All claims, in their order."""
        return tuple(self._rosters.get(roster, ()))

    def names(self) -> list[str]:
        """The rosters that have a claim."""
        return sorted(roster for roster, claims in self._rosters.items() if claims)

    def place(self, claims: list[Claim], claim: Claim) -> None:
        """Where a new claim stands: behind all others."""
        claims.append(claim)

    def _known(self, claims: list[Claim], id: str) -> bool:
        return any(claim.id == id for claim in claims)

    def _draw(self, claims: list[Claim]) -> int:
        self._token += 1
        return self._token

    def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        for claim in self._rosters.get(roster, ()):
            if claim.id == id and claim.session == session:
                self._remove(claim, width)
                return

    def _remove(self, claim: Claim, width: int = 1) -> None:
        claims = self._rosters[claim.roster]
        at = claims.index(claim)
        del claims[at]
        self._observer.removed(claim.roster, claim.id)
        if claim.body:
            self.mailboxes.changed(claim.roster)
        if self._tells:
            for other in claims[max(at, width - 1) :]:
                self.mailboxes.notify(other.id)
                if not other.shared:
                    break

    def roll(self, roster: str, id: str) -> Roll:
        claims = self._rosters.get(roster, [])
        for at, claim in enumerate(claims):
            if claim.id == id:
                ahead = _ahead(claims[:at], claim.shared)
                before = ahead[-1].id if ahead else None
                return Roll(tuple(claims[:1]), claim, len(ahead), before)
        return Roll(tuple(claims[:1]))

    # -- records -----------------------------------------------------------------

    def recall(self, name: str) -> Record | None:
        return self._records.get(name)

    def record(self, name: str, text: str | None, version: Any) -> Any:
        old = self._records.get(name)
        if (None if old is None else old.version) != version:
            return None
        self._version += 1
        if text is None:
            self._records.pop(name, None)
        else:
            self._records[name] = Record(text, self._version)
        self._observer.recorded(name, text)
        self.mailboxes.changed(name)
        return self._version

    def records(self) -> list[str]:
        """The names of all records."""
        return sorted(self._records)

    # -- mutexes: the first of a queue owns it ---------------------------------------

    def seize(self, session: str, name: str, id: str, wait: bool, shared: bool) -> Claim | None:
        """The claim if it owns the mutex now; if not, it waits in the queue or is refused."""
        roll = self.claim(session, name, id, "", None if wait else 1, shared)
        if roll.mine is None or roll.rank:
            return None
        # Drawn while it is held, and anew: whoever queues holds no token yet.
        return roll.mine._replace(token=self._draw(self._rosters[name]))


def _ahead(claims: list[Claim], shared: bool) -> list[Claim]:
    """Those of the claims that stand in the way of one behind them."""
    return [each for each in claims if not each.shared] if shared else claims
