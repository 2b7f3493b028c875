"""The document rung: the whole roster contract from two verbs, load and save.

A backend that can load a small document and save it if nobody else has (compare and
set) subclasses `DocumentDriver` and writes `load` and `save`; it gets sessions,
ordered claims, tokens and burial from here.

Sessions need no clock that anybody shares. A session is a document that its owner
changes at every renewal. Whoever finds it in the way remembers when, on its own
clock, it first saw that very version; once it has seen no other for a whole TTL it
may bury the session, by deleting that version of the document and no other. If the
owner renewed in between, the burial fails; if the burial came first, the renewal
finds nothing and the owner knows that it lost. (Kubernetes' client-go judges its
leader election leases in this way.)
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any

from .._model import Claim, Interest, Record, Roll
from ..errors import OutcomeUnknown, SessionLost, Unavailable
from .base import Driver, Lost, Wake

Document = dict[str, Any]
"""JSON data, never changed in place."""

SAVES_MAX = 200
"""Tries at one compare-and-set loop before the backend counts as too contended."""
BURIED = "the session was buried: it was not renewed for a whole TTL"
KNOWN_MAX = 4096
"""Rosters whose last document is remembered."""

# Two machines' clocks may tick at slightly different rates; one second in a hundred
# is far more than quartz needs.
DRIFT = 1.01


_encode = json.JSONEncoder(separators=(",", ":")).encode
_quoted = json.encoder.encode_basestring_ascii


def encoded(document: Document) -> str:
    """The document as JSON; what most rosters are, without the encoder, which costs more."""
    claims = document.get("claims")
    if claims is not None and len(document) == 2:
        if not claims:
            return f'{{"token":{document["token"]},"claims":[]}}'
        if len(claims) == 1 and claims[0][4:] == ["", False]:
            id, session, token, owner, _, _ = claims[0]
            entry = f"{_quoted(id)},{_quoted(session)},{token},{_quoted(owner)}"
            return f'{{"token":{document["token"]},"claims":[[{entry},"",false]]}}'
    return _encode(document)


class DocumentDriver(Driver):
    """A driver over `load` and `save`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._seen: dict[str, tuple[Any, float]] = {}
        """Of each session in our way: the version seen last, and when it was seen first."""
        self._public: dict[str, set[str]] = {}
        """Of each session of ours: the rosters in which it has shown something."""
        self._owners: dict[str, str] = {}
        """The owners of the sessions begun here."""
        self._known: dict[str, tuple[Document, Any]] = {}
        """Of each roster used last: its document as it was saved, a guess at what is there."""

    @abstractmethod
    async def load(self, kind: str, name: str) -> tuple[Document | None, Any]:
        """The document and its version; None and the version of nothing if there is none.

        `kind` is "session", "roster" or "record"; no two of them share a document.
        """

    @abstractmethod
    async def save(self, kind: str, name: str, document: Document | None, version: Any) -> Any:
        """Save the document, or delete it if None, only if the version is still that.

        Returns the new version, or None if somebody else was faster.
        """

    @abstractmethod
    async def names(self, kind: str) -> Sequence[str]:
        """The names of the documents of a kind."""

    async def save_for(self, session: str, roster: str, document: Document, version: Any) -> Any:
        """Save the roster's document if the session lives; `SessionLost` if it does not.

        To be overridden where one round trip can do both. Otherwise like `save`.
        """
        if (await self.load("session", session))[0] is None:
            raise SessionLost(BURIED)
        return await self.save("roster", roster, document, version)

    async def moved_up(self, claim: Claim) -> None:
        """A claim is granted, most likely: wake its waiter, where the backend can."""

    async def changed(self, name: str) -> None:
        """A roster's public claims, or a record, changed: wake the watchers, where it can."""

    # -- sessions --------------------------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        session = self.runtime.unique()
        _, nothing = await self.load("session", session)
        wall = round(self.runtime.wall(), 3)
        document = {"owner": owner, "ttl": self.ttl, "beat": 0, "wall": wall}
        version = await self.save("session", session, document, nothing)
        if version is None:
            raise OutcomeUnknown("the session's document was written by somebody else")
        self._owners[session] = owner
        return session

    async def renew(self, session: str) -> None:
        for _ in range(SAVES_MAX):
            document, version = await self.load("session", session)
            if document is None:
                raise SessionLost(BURIED)
            wall = round(self.runtime.wall(), 3)
            renewed = {**document, "beat": document["beat"] + 1, "wall": wall}
            if await self.save("session", session, renewed, version) is not None:
                return
            # Buried meanwhile, or an earlier renewal of ours arrived late: look which.
        raise Unavailable("the session's document is too contended")

    async def end(self, session: str) -> None:
        self._owners.pop(session, None)
        for _ in range(SAVES_MAX):
            document, version = await self.load("session", session)
            if document is None or await self.save("session", session, None, version) is not None:
                break
        else:
            raise Unavailable("the session's document is too contended")
        for roster in sorted(self._public.pop(session, ())):
            await self.census(roster)  # buries its claims there, and tells the watchers

    async def last_seen(self, session: str) -> float | None:
        document, _ = await self.load("session", session)
        return None if document is None else max(0.0, self.runtime.wall() - document["wall"])

    async def living(self, sessions: Collection[str]) -> set[str]:
        """Those of the sessions that live, as far as can be known; the others are buried."""
        return {session for session in sessions if await self._alive(session)}

    async def _alive(self, session: str) -> bool:
        document, version = await self.load("session", session)
        if document is None:
            self._seen.pop(session, None)
            return False
        now = self.runtime.now()
        seen = self._seen.get(session)
        if seen is None or seen[0] != version:
            self._seen[session] = (version, now)
            return True
        if now - seen[1] < document["ttl"] * DRIFT:
            return True
        if await self.save("session", session, None, version) is None:
            return True
        self._seen.pop(session, None)  # another task of ours may have found the same
        return False

    # -- rosters ---------------------------------------------------------------

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        owner = self._owners.get(session)
        if owner is not None and not (body or shared) and (width is None or width > 0):
            at_once = await self._claim_free(session, roster, id, owner)
            if at_once is not None:
                return at_once
        if owner is None:
            mine, _ = await self.load("session", session)
            if mine is None:
                raise SessionLost(BURIED)
            owner = mine["owner"]
        entered = False

        def enter(document: Document) -> Document | None:
            nonlocal entered
            claims = document["claims"]
            entered = False
            if any(each[0] == id for each in claims) or (
                width is not None and len(_ahead(claims, shared)) >= width
            ):
                return None
            entered = True
            token = document["token"] + 1
            entry = [id, session, token, owner, body, shared]
            return {"token": token, "claims": [*claims, entry]}

        if body:
            self._public.setdefault(session, set()).add(roster)
        document = await self._change(roster, enter, session=session, guarded=True)
        if entered and body:
            await self.changed(roster)
        return roll_of(roster, id, document, shared)

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        document = await self._change(roster, lambda document: None, width, id)
        return roll_of(roster, id, document)

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        if await self._withdraw_alone(session, roster, id):
            return
        left: list[Any] = []

        def leave(document: Document) -> Document | None:
            # Saved even if the claim is not there: a request to enter it that is still
            # under way carries the version from before, and must not succeed any more.
            left[:] = [each for each in document["claims"] if each[0] == id]
            return {**document, "claims": [each for each in document["claims"] if each[0] != id]}

        document = await self._change(roster, leave, session=session)
        for entry in _admitted(document["claims"], width):
            await self.moved_up(_claim(roster, entry))
        if left and left[0][4]:
            if not any(each[1] == session and each[4] for each in document["claims"]):
                self._public.get(session, set()).discard(roster)
            await self.changed(roster)

    async def amend(self, claim: Claim, body: str) -> Claim:
        amended = claim._replace(body=body)

        def write(document: Document) -> Document | None:
            claims = list(document["claims"])
            for index, each in enumerate(claims):
                if each[0] == claim.id and each[4] == claim.body:
                    claims[index] = _entry(amended)
                    return {**document, "claims": claims}
            return None

        document = await self._change(claim.roster, write, session=claim.session, guarded=True)
        if _entry(amended) not in document["claims"]:
            raise SessionLost(f"the claim {claim.id} is gone, or was amended by somebody else")
        await self.changed(claim.roster)
        return amended

    async def census(self, roster: str) -> tuple[Claim, ...]:
        document = await self._change(roster, lambda document: None, None)
        return tuple(_claim(roster, each) for each in document["claims"])

    async def rosters(self, prefix: str) -> Sequence[str]:
        found = []
        for name in await self.names("roster"):
            if name.startswith(prefix):
                document, _ = await self.load("roster", name)
                if document is not None and document["claims"]:
                    found.append(name)
        return sorted(found)

    # -- records ---------------------------------------------------------------

    async def recall(self, name: str) -> Record | None:
        document, version = await self.load("record", name)
        return None if document is None else Record(document["text"], version)

    async def record(self, name: str, text: str | None, version: Any) -> Any:
        if version is None:
            document, version = await self.load("record", name)
            if document is not None:
                return None
        new = await self.save("record", name, None if text is None else {"text": text}, version)
        if new is not None:
            await self.changed(name)
        return new

    async def recorded(self, prefix: str) -> Sequence[str]:
        return sorted(name for name in await self.names("record") if name.startswith(prefix))

    async def listen(self, interest: Interest, wake: Wake) -> None:
        """Where the backend pushes nothing, the core's own polling does."""

    # What `_change` does with a guess, for the two changes that nearly all are: a lock is taken
    # that nobody held when we released it, and released when nobody waits for it.

    async def _claim_free(self, session: str, roster: str, id: str, owner: str) -> Roll | None:
        """Take a lock that is known to be free; None if it is not known to be, or is not."""
        known = self._known.pop(roster, None)
        if known is None:
            return None
        document, version = known
        if document["claims"]:
            self._known[roster] = known
            return None
        token = document["token"] + 1
        taken = {"token": token, "claims": [[id, session, token, owner, "", False]]}
        new = await self.save_for(session, roster, taken, version)
        if new is None:
            return None
        self._known[roster] = (taken, new)
        claim = Claim(roster, id, session, token, owner)
        return Roll((claim,), claim)

    async def _withdraw_alone(self, session: str, roster: str, id: str) -> bool:
        """Release a lock that nobody is known to wait for; False if that is not so."""
        known = self._known.pop(roster, None)
        if known is None:
            return False
        document, version = known
        claims = document["claims"]
        if len(claims) != 1 or claims[0][:2] != [id, session] or claims[0][4]:
            self._known[roster] = known
            return False
        free: Document = {"token": document["token"], "claims": []}
        new = await self.save("roster", roster, free, version)
        if new is None:
            return False
        self._known[roster] = (free, new)
        return True

    async def _change(
        self,
        roster: str,
        change: Callable[[Document], Document | None],
        width: int | None = 1,
        id: str = "",
        *,
        session: str = "",
        guarded: bool = False,
    ) -> Document:
        """Bury dead claims, apply the change, save; again if somebody was faster.

        The change returns the new document, or None to leave it. The document that is
        returned was current at some moment of this call. The dead are buried where they
        are in the way: among the first `width` (None: all), and before a shared `id`.
        With a session, whose change it is, the document is guessed first, which spares the
        loading; `guarded` saves only if that session lives.
        """
        guess = self._known.pop(roster, None) if session else None
        if guess is not None and any(each[1] != session for each in guess[0]["claims"]):
            guess = None  # it was made by an earlier session
        for attempt in range(SAVES_MAX):
            if attempt:
                pause = self.runtime.random() * 0.001 * min(attempt, 50)
                await self.runtime.sleep(self.runtime.now() + pause)
            if guess is not None:
                # Nobody else is in it, so there is nobody to bury. Saved, it was current.
                changed = change(guess[0])
                version, guess = guess[1], None
                if changed and await self._save(roster, changed, version, session, guarded):
                    return changed
            stored, version = await self.load("roster", roster)
            document: Document = stored or {"token": 0, "claims": []}
            dead = await self._dead(document["claims"], width, id)
            claims = [each for each in document["claims"] if each not in dead]
            if dead:
                document = {**document, "claims": claims}
            changed = change(document)
            if changed is None and not dead:
                return document
            changed = changed or document
            if await self._save(roster, changed, version, session, guarded):
                if dead:
                    await self._buried(roster, dead, claims)
                return changed
        raise Unavailable(f"the roster {roster!r} is too contended: {SAVES_MAX} saves in vain")

    async def _save(
        self, roster: str, document: Document, version: Any, session: str, guarded: bool
    ) -> bool:
        if guarded:
            new = await self.save_for(session, roster, document, version)
        else:
            new = await self.save("roster", roster, document, version)
        if new is None:
            return False
        if session and all(each[1] == session for each in document["claims"]):
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[roster] = (document, new)
        return True

    async def _dead(self, claims: list[Any], width: int | None, id: str) -> list[Any]:
        """Those of the claims that are in the way and whose session is dead."""
        known: dict[str, bool] = {}
        dead: list[Any] = []
        while True:
            left = [each for each in claims if each not in dead] if dead else claims
            checked = left[:width]
            mine = next((at for at, each in enumerate(left) if each[0] == id and each[5]), 0)
            checked += [each for each in left[:mine] if not each[5]][-1:]
            unknown = {each[1] for each in checked} - known.keys()
            if unknown:
                living = await self.living(unknown)
                known.update((session, session in living) for session in unknown)
            gone = [each for each in checked if not known[each[1]]]
            if not gone:
                return dead
            dead += gone

    async def _buried(self, roster: str, dead: list[Any], claims: list[Any]) -> None:
        for entry in _admitted(claims, 1):
            await self.moved_up(_claim(roster, entry))
        if any(each[4] for each in dead):
            await self.changed(roster)


def _ahead(claims: list[Any], shared: bool) -> list[Any]:
    """Those of the claims that stand in the way of one behind them."""
    return [each for each in claims if not each[5]] if shared else claims


def _admitted(claims: list[Any], width: int) -> list[Any]:
    """The claims to wake when others have gone: the last under the width, and more readers."""
    admitted = claims[width - 1 : width]
    if claims and claims[0][5]:
        readers = next((at for at, each in enumerate(claims) if not each[5]), len(claims))
        admitted = claims[:readers]
    return admitted


def roll_of(roster: str, id: str, document: Document, shared: bool = False) -> Roll:
    """What a document says of one claim."""
    claims = document["claims"]
    head = (_claim(roster, claims[0]),) if claims else ()
    for at, each in enumerate(claims):
        if each[0] == id:
            ahead = _ahead(claims[:at], each[5])
            return Roll(head, _claim(roster, each), len(ahead), ahead[-1][0] if ahead else None)
    ahead = _ahead(claims, shared)
    return Roll(head, None, len(ahead), ahead[-1][0] if ahead else None)


def _claim(roster: str, entry: list[Any]) -> Claim:
    id, session, token, owner, body, shared = entry
    return Claim(roster, id, session, token, owner, body, shared)


def _entry(claim: Claim) -> list[Any]:
    return [claim.id, claim.session, claim.token, claim.owner, claim.body, claim.shared]
