"""The election: a lock elects, and a post in a public list shows leader and value.

The lock is the backend's own where it has one, so that a leader's death is seen as soon
as the backend can see it. The lock alone says who leads; the post is for the others to
read, stands only while its leader has the lock, and is put up and taken down inside of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from .. import _names
from .._gate import Ticket
from .._model import Candidate, Claim, Leader
from .._session import Life, Session
from ..drivers.base import Mutex
from ..errors import (
    CandidateNotFound,
    LeaseLost,
    SessionLost,
    Unavailable,
)
from . import payload
from .candidates import Entry, Nomination, candidates, nomination
from .lock import LockRecipe
from .post import PostedLease
from .records import insist
from .watch import RosterWatch

PAUSE_SECONDS_MAX = 5.0
"""How long a campaign that could not reach the backend waits before it is begun again."""


def _copy(value: Any) -> Any:
    """The value as others will read it; `InvalidArgument` if it is not JSON, or too long."""
    return json.loads(payload.encode(value, "the value"))


def _shown(claims: Iterable[Claim]) -> tuple[Leader, str] | None:
    """Who leads, and as which candidate: of several posts, the one with the greatest token."""
    best: tuple[Leader, str] | None = None
    for claim in claims:
        body = payload.decode(claim.body) or {}
        token, since = body.get("token"), body.get("since")
        if not isinstance(token, int) or not isinstance(since, (int, float)):
            continue
        if best is None or token > best[0].token:
            leader = Leader(claim.owner, token, body.get("value"), since)
            best = leader, str(body.get("candidate"))
    return best


def leader(claims: Iterable[Claim]) -> Leader | None:
    """Who leads, by the claims of the board."""
    shown = _shown(claims)
    return None if shown is None else shown[0]


class TermLease(PostedLease):
    """A lease of the election's lock, with a post that says so."""

    __slots__ = ("_candidate", "_edition", "_since_wall", "value")

    value: Any
    """What it has published, as others read it."""

    def __init__(self, *args: Any) -> None:
        self.value = None
        self._candidate = ""
        self._edition = 0
        self._since_wall = 0.0
        super().__init__(*args)

    def _text(self, value: Any) -> str:
        # Numbered, so that no text ever comes back: an old request that arrives late
        # must not find the text that it was meant to replace.
        self._edition += 1
        body = {
            "token": self.token,
            "since": self._since_wall,
            "candidate": self._candidate,
            "edition": self._edition,
            "value": value,
        }
        return json.dumps(body, separators=(",", ":"))

    async def _begin(self, board: str, candidate: str, value: Any) -> None:
        """Show that it leads. If that fails, the lock is released."""
        self._candidate = candidate
        self._since_wall = round(self._session.runtime.wall(), 3)
        self.value = value
        await self._put_up(board, self._text(value))

    async def _publish(self, value: Any) -> None:
        value = _copy(value)
        await self._rewrite(self._text(value))
        self.value = value

    async def _stand_down(self, to: str, seconds: float) -> bool:
        """Resign in favour of a candidate; say whether it leads when the time is over."""
        self.check()
        session, life = self._session, self._life
        driver, until = session.driver, session.now() + seconds
        roster = _names.of("candidate", self.name)
        heir = await self._candidate_called(to, roster)
        entry = Entry(session, roster)
        watch = RosterWatch(session, roster)
        try:
            try:
                await entry.enter(life, {"heir": heir, "seconds": seconds})
            except SessionLost as error:
                session.lose(life, str(error))
                raise self._loss() from error
            await watch.open()
            await self._release()
            while session.now() < until:
                try:
                    waiting = {claim.id for claim in await driver.census(roster)}
                except Unavailable:
                    waiting = {heir}
                if heir not in waiting:
                    break
                await watch.wait(until)
        finally:
            watch.close()
            await entry.leave()
        board = _names.of("leader", self.name)
        shown = _shown(await insist(session, lambda: driver.census(board)))
        return shown is not None and shown[1] == heir

    async def _candidate_called(self, name: str, roster: str) -> str:
        session, driver = self._session, self._session.driver
        waiting = candidates(await insist(session, lambda: driver.census(roster)))
        for each in waiting:
            if name in (each.owner, each.id):
                return each.id
        owners = ", ".join(repr(each.owner) for each in waiting[:5]) or "nobody"
        raise CandidateNotFound(
            f"{name!r} does not wait to lead {self.name!r}; {owners} of {len(waiting)} waiting"
        )


T = TypeVar("T", bound=TermLease)


class _CampaignLock(LockRecipe[T]):
    """The election's lock, which lists its waiters: once in each session that they wait in."""

    __slots__ = ("_entry",)

    def __init__(self, session: Session, name: str, term_type: type[T], entry: Entry) -> None:
        super().__init__(session, name, False, term_type, roster=_names.of("election", name))
        self._entry = entry

    async def _seize(
        self, mutex: Mutex, life: Life, ticket: Ticket, wait: bool, until: float | None
    ) -> T | None:
        term = await super()._seize(mutex, life, ticket, False, None)
        if term is None and wait:
            await self._enter(life)
            term = await super()._seize(mutex, life, ticket, True, until)
        return term

    async def _queue(self, life: Life, ticket: Ticket, wait: bool, until: float | None) -> T | None:
        term = await super()._queue(life, ticket, False, None)
        if term is None and wait:
            await self._enter(life)
            term = await super()._queue(life, ticket, True, until)
        return term

    async def _enter(self, life: Life) -> None:
        await self._entry.enter(life, {"since": round(self._session.runtime.wall(), 3)})


class ElectionRecipe(Generic[T]):
    """One election. Stateless: every campaign returns a term of its own."""

    __slots__ = ("_term_type", "board", "name", "roster", "session")

    def __init__(self, session: Session, name: str, term_type: type[T]) -> None:
        self.session = session
        self._term_type = term_type
        self.name = name
        self.board = _names.of("leader", name)
        self.roster = _names.of("candidate", name)

    def now(self) -> float:
        """The session's clock, in seconds."""
        return self.session.now()

    async def try_campaign(self, value: Any) -> T | None:
        """Lead if nobody does, and nobody else was chosen to."""
        value = _copy(value)
        entry = Entry(self.session, self.roster)
        term = await _CampaignLock(self.session, self.name, self._term_type, entry).try_acquire()
        if term is None:
            return None
        try:
            return term if await self._lead(term, entry, value, {}) is None else None
        except (SessionLost, LeaseLost) as error:
            raise Unavailable(f"the session was lost at once: {error}") from error

    async def campaign(self, until: float | None, value: Any) -> T | None:
        """Wait in turn, and lead; None if the time came first."""
        value = _copy(value)
        entry = Entry(self.session, self.roster)
        term: T | None = None
        try:
            term = await self._elected(entry, until, value)
        finally:
            try:
                await entry.leave()
            except BaseException:
                if term is not None:
                    await self.session.runtime.finish(term.release_at_close())
                raise
        return term

    async def _elected(self, entry: Entry, until: float | None, value: Any) -> T | None:
        lock = _CampaignLock(self.session, self.name, self._term_type, entry)
        over: dict[str, float] = {}  # when each nomination that we met is to count no more
        while True:
            term = await lock.acquire(until)
            if term is None:
                return None
            try:
                other = await self._lead(term, entry, value, over)
            except (SessionLost, LeaseLost):
                continue  # lost before anybody saw it: queue again, in a new session
            if other is None:
                return term
            await self._stand_aside(other, entry, until, over)
            if until is not None and self.now() >= until:
                return None

    async def _lead(
        self, term: T, entry: Entry, value: Any, over: dict[str, float]
    ) -> Nomination | None:
        """Begin the term. If another was chosen, say so, and give the lock back."""
        session, driver = self.session, self.session.driver
        try:
            other = nomination(await insist(session, lambda: driver.census(self.roster)))
        except BaseException:
            await session.runtime.finish(term.release_at_close())
            raise
        if other is None or other.heir == entry.id or self.now() >= over.get(other.id, math.inf):
            await term._begin(self.board, entry.id, value)
            return None
        over.setdefault(other.id, self.now() + other.seconds)
        await session.runtime.finish(term.release_at_close())
        return other

    async def _stand_aside(
        self, other: Nomination, entry: Entry, until: float | None, over: dict[str, float]
    ) -> None:
        """Wait until the nomination is fulfilled, or void, or its time is over."""
        end = over[other.id] if until is None else min(over[other.id], until)
        watch = RosterWatch(self.session, self.roster)
        try:
            await watch.open()
            while self.now() < end:
                try:
                    found = nomination(await self.session.driver.census(self.roster))
                except Unavailable:
                    found = other  # nobody can lead meanwhile, either
                if found is None or found.heir == entry.id or found.id != other.id:
                    return
                await watch.wait(end)
        finally:
            watch.close()

    async def leader(self) -> Leader | None:
        """Who leads; one round trip."""
        session = self.session
        return leader(await insist(session, lambda: session.driver.census(self.board)))

    async def candidates(self) -> tuple[Candidate, ...]:
        """Who waits to lead; one round trip."""
        session = self.session
        return candidates(await insist(session, lambda: session.driver.census(self.roster)))

    def watch(self) -> BoardWatch:
        """Watch who leads."""
        return BoardWatch(self.session, self.name, self.board)

    async def pause(self) -> None:
        """Stand back while the backend cannot be reached."""
        session = self.session
        session.check_open()
        rest = session.ttl / 6 * (0.75 + session.runtime.random() / 2)
        await session.runtime.sleep(session.now() + min(rest, PAUSE_SECONDS_MAX))


class BoardWatch:
    """Tells the leaders as they change. Needs no session, and outlives all of them."""

    def __init__(self, session: Session, name: str, board: str) -> None:
        self._session = session
        self._board = board
        self._watch = RosterWatch(session, board)
        self._opened = False
        self._told = False
        self._token = 0
        self.name = name
        self.closed = False
        self.leader: Leader | None = None
        """The leader as it was told last."""

    def now(self) -> float:
        """The session's clock, in seconds."""
        return self._session.now()

    async def open(self) -> None:
        """Listen: what changes from now on will be told."""
        if not self._opened and not self.closed:
            self._opened = True
            await self._watch.open()

    async def news(self) -> tuple[Leader | None] | None:
        """The next leader; None if the watch was closed."""
        return (self.leader,) if await self.change(None) else None

    async def change(self, until: float | None) -> bool:
        """Wait until the leader is another than was told last; the first time, for the first look.

        False if the time came first, or the watch was closed. `Unavailable` if the backend
        does not answer for a whole TTL; then it may be asked again.
        """
        session = self._session
        silent_since: float | None = None
        look = not self._told
        await self.open()
        try:
            while not self.closed:
                if look:
                    try:
                        found = self._newest(await session.driver.census(self._board))
                        silent_since = None
                    except Unavailable:
                        silent_since = silent_since or session.now()
                        if session.now() >= silent_since + session.ttl:
                            raise
                    else:
                        if found != self.leader or not self._told:
                            self._told, self.leader = True, found
                            return True
                    if until is not None and session.now() >= until:
                        return False
                await self._watch.wait(until)
                look = True
        finally:
            if self.closed:
                self._watch.close()  # it may have begun to listen just when it was closed
        return False

    def _newest(self, claims: Iterable[Claim]) -> Leader | None:
        """Who leads. The post of an earlier term, that could not be taken down, says nothing."""
        found = leader(claims)
        # A backend that forgot its tokens begins anew: there, a small one can be the newest.
        durable = self._session.driver.traits.durable_tokens
        if found is None or (durable and found.token < self._token):
            return None
        self._token = found.token
        return found

    def close(self) -> None:
        """Watch no more; whoever waits is told. From any thread."""
        self.closed = True
        self._watch.wake()
        self._watch.close()
