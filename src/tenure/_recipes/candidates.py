"""Who waits to lead, and who was chosen to.

A candidate that has to wait enters a claim in a public list, since nobody can see who
waits for a backend's own lock. A leader that stands down in favour of one of them enters
a nomination in the same list: while it stands, every other candidate that is elected
gives the lock back. It stands for a bounded time, ends with the session of the one that
made it, and is void once the chosen one is no longer in the list, because it leads, has
given up or is dead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from .._model import Candidate, Claim
from .._session import Life, Session
from ..errors import BackendError, SessionLost
from . import payload


class Nomination(NamedTuple):
    """A leader's wish that the candidate `heir` be the next. `id` is the claim's."""

    id: str
    heir: str
    seconds: float
    """For how long the others are to stand aside, from when they first saw it."""


def candidates(claims: Iterable[Claim]) -> tuple[Candidate, ...]:
    """Those of the claims that are candidates, in the order in which they came."""
    found = []
    for claim in claims:
        since = (payload.decode(claim.body) or {}).get("since")
        if isinstance(since, (int, float)):
            found.append(Candidate(claim.owner, claim.id, since))
    return tuple(found)


def nomination(claims: Iterable[Claim]) -> Nomination | None:
    """The newest nomination, unless the chosen one is no candidate any more."""
    claims = tuple(claims)
    waiting = {claim.id for claim in claims}
    for claim in reversed(claims):
        body = payload.decode(claim.body) or {}
        heir, seconds = body.get("heir"), body.get("seconds")
        if isinstance(heir, str) and isinstance(seconds, (int, float)):
            return Nomination(claim.id, heir, seconds) if heir in waiting else None
    return None


class Entry:
    """A claim in the list: one candidacy, or one nomination. Entered anew in another session."""

    __slots__ = ("_life", "_roster", "_session", "_sure", "_wake", "id")

    def __init__(self, session: Session, roster: str) -> None:
        self._session = session
        self._roster = roster
        self._wake = session.runtime.signal()
        self._life: Life | None = None
        self._sure = False
        self.id = ""
        """The claim's id; empty while it is not entered."""

    async def enter(self, life: Life, body: dict[str, Any]) -> None:
        """Enter it, unless it stands already. A failure leaves nothing behind."""
        if self._life is life:
            return
        self._forget()
        session, roster, text = self._session, self._roster, json.dumps(body)
        driver, id = session.driver, life.next_id()
        self._sure = False
        try:
            try:
                await driver.claim(life.id, roster, id, text, None)
                self._sure = True
            except ConnectionError:
                await session.retry(
                    life,
                    lambda: driver.claim(life.id, roster, id, text, None),
                    None,
                    session.ttl / 3,
                )
        except BaseException:
            session.owe(life, roster, id)
            raise
        self._life, self.id = life, id
        session.waiting(life, self._wake)  # so that a close waits until it is withdrawn

    async def leave(self) -> None:
        """Withdraw it: now, or in the background if the backend does not answer."""
        life, id = self._life, self.id
        if life is None:
            return
        try:
            if life.reason is None:
                await self._session.runtime.finish(self._withdraw(life, id))
        finally:
            self._forget()

    async def _withdraw(self, life: Life, id: str) -> None:
        session, sure = self._session, self._sure
        try:
            await session.driver.withdraw(life.id, self._roster, id)
        except BackendError:
            sure = False
        except SessionLost as error:
            session.lose(life, str(error))
        except BaseException:
            session.owe(life, self._roster, id)
            raise
        if not sure:
            session.owe(life, self._roster, id)

    def _forget(self) -> None:
        life, self._life, self.id = self._life, None, ""
        if life is not None:
            self._session.not_waiting(life, self._wake)
