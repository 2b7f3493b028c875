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

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from .._model import Claim, Interest, Roll
from ..errors import OutcomeUnknown, SessionLost, Unavailable
from .base import Driver, Lost, Wake

Document = dict[str, Any]
"""JSON data, never changed in place."""

SAVES_MAX = 200
"""Tries at one compare-and-set loop before the backend counts as too contended."""

# Two machines' clocks may tick at slightly different rates; one second in a hundred
# is far more than quartz needs.
DRIFT = 1.01


class DocumentDriver(Driver):
    """A driver over `load` and `save`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._seen: dict[str, tuple[Any, float]] = {}
        """Of each session in our way: the version seen last, and when it was seen first."""

    @abstractmethod
    async def load(self, kind: str, name: str) -> tuple[Document | None, Any]:
        """The document and its version; None and the version of nothing if there is none.

        `kind` is "session" or "roster"; the two never share a document.
        """

    @abstractmethod
    async def save(self, kind: str, name: str, document: Document | None, version: Any) -> Any:
        """Save the document, or delete it if None, only if the version is still that.

        Returns the new version, or None if somebody else was faster.
        """

    @abstractmethod
    async def names(self, kind: str) -> Sequence[str]:
        """The names of the documents of a kind."""

    async def moved_up(self, claim: Claim) -> None:
        """A claim has come to the head: wake its waiter, where the backend can."""

    # -- sessions --------------------------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        session = self.runtime.unique()
        _, nothing = await self.load("session", session)
        document = {"owner": owner, "ttl": self.ttl, "beat": 0}
        version = await self.save("session", session, document, nothing)
        if version is None:
            raise OutcomeUnknown("the session's document was written by somebody else")
        return session

    async def renew(self, session: str) -> None:
        for _ in range(SAVES_MAX):
            document, version = await self.load("session", session)
            if document is None:
                raise SessionLost("the session was buried: it was not renewed for a whole TTL")
            renewed = {**document, "beat": document["beat"] + 1}
            if await self.save("session", session, renewed, version) is not None:
                return
            # Buried meanwhile, or an earlier renewal of ours arrived late: look which.
        raise Unavailable("the session's document is too contended")

    async def end(self, session: str) -> None:
        for _ in range(SAVES_MAX):
            document, version = await self.load("session", session)
            if document is None or await self.save("session", session, None, version) is not None:
                return
        raise Unavailable("the session's document is too contended")

    async def _alive(self, session: str) -> bool:
        """Say whether a session lives, as far as can be known; bury it if it does not."""
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

    async def claim(self, session: str, roster: str, id: str, body: str, width: int | None) -> Roll:
        mine, _ = await self.load("session", session)
        if mine is None:
            raise SessionLost("the session was buried: it was not renewed for a whole TTL")

        def enter(document: Document) -> Document | None:
            claims = document["claims"]
            if any(each[0] == id for each in claims) or (
                width is not None and len(claims) >= width
            ):
                return None
            token = document["token"] + 1
            entry = [id, session, token, mine["owner"], body]
            return {"token": token, "claims": [*claims, entry]}

        return _roll(roster, id, await self._change(roster, enter))

    async def read(self, session: str, roster: str, id: str) -> Roll:
        return _roll(roster, id, await self._change(roster, lambda document: None))

    async def withdraw(self, session: str, roster: str, id: str) -> None:
        def leave(document: Document) -> Document | None:
            # Saved even if the claim is not there: a request to enter it that is still
            # under way carries the version from before, and must not succeed any more.
            return {**document, "claims": [each for each in document["claims"] if each[0] != id]}

        document = await self._change(roster, leave)
        if document["claims"]:
            await self.moved_up(_claim(roster, document["claims"][0]))

    async def amend(self, claim: Claim, body: str) -> Claim:
        amended = claim._replace(body=body)

        def write(document: Document) -> Document | None:
            claims = list(document["claims"])
            for index, each in enumerate(claims):
                if each[0] == claim.id and each[4] == claim.body:
                    claims[index] = _entry(amended)
                    return {**document, "claims": claims}
            return None

        document = await self._change(claim.roster, write)
        if _entry(amended) not in document["claims"]:
            raise SessionLost(f"the claim {claim.id} is gone, or was amended by somebody else")
        return amended

    async def rosters(self, prefix: str) -> Sequence[str]:
        found = []
        for name in await self.names("roster"):
            if name.startswith(prefix):
                document, _ = await self.load("roster", name)
                if document is not None and document["claims"]:
                    found.append(name)
        return sorted(found)

    async def listen(self, interest: Interest, wake: Wake) -> None:
        """Where the backend pushes nothing, the core's own polling does."""

    async def _change(self, roster: str, change: Callable[[Document], Document | None]) -> Document:
        """Bury dead claims at the head, apply the change, save; again if somebody was faster.

        The change returns the new document, or None to leave it. The document that is
        returned was current at some moment of this call.
        """
        for attempt in range(SAVES_MAX):
            if attempt:
                pause = self.runtime.random() * 0.001 * min(attempt, 50)
                await self.runtime.sleep(self.runtime.now() + pause)
            stored, version = await self.load("roster", roster)
            document: Document = stored or {"token": 0, "claims": []}
            claims = document["claims"]
            while claims and not await self._alive(claims[0][1]):
                claims = claims[1:]
            buried = claims is not document["claims"]
            if buried:
                document = {**document, "claims": claims}
            changed = change(document)
            if changed is None and not buried:
                return document
            changed = changed or document
            if await self.save("roster", roster, changed, version) is not None:
                if buried and claims:
                    await self.moved_up(_claim(roster, claims[0]))
                return changed
        raise Unavailable(f"the roster {roster!r} is too contended: {SAVES_MAX} saves in vain")


def _roll(roster: str, id: str, document: Document) -> Roll:
    claims = document["claims"]
    head = (_claim(roster, claims[0]),) if claims else ()
    for rank, each in enumerate(claims):
        if each[0] == id:
            before = claims[rank - 1][0] if rank else None
            return Roll(head, _claim(roster, each), rank, before)
    return Roll(head, None, len(claims), claims[-1][0] if claims else None)


def _claim(roster: str, entry: list[Any]) -> Claim:
    id, session, token, owner, body = entry
    return Claim(roster, id, session, token, owner, body)


def _entry(claim: Claim) -> list[Any]:
    return [claim.id, claim.session, claim.token, claim.owner, claim.body]
