"""Votes for locks: how a majority of Redis masters gives one, and how it is given back.

What the keys hold, and why two majorities never give the same lock, is told in `_redis_redlock`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from .._model import Grant, Holder, Taken
from .._runtime.base import Runtime
from ..errors import OutcomeUnknown, SessionLost, Unsupported
from ..wires.redis_fan import Answers, Fan, Member, heard
from ._redis_keys import Keys
from ._redis_redlock_lua import LOCK, LOOK, UNLOCK
from .base import Mutex

POLL_SECONDS = 0.03
_DRAWS_MAX = 5
_SPLITS_MAX = 10


class Held(NamedTuple):
    """A lock that is held, or that is being taken."""

    name: str
    mine: bytes
    token: int
    votes: set[Member]


class Session:
    """What is known of one session."""

    def __init__(self, id: str, value: bytes) -> None:
        self.id = id
        self.value = value
        self.held: dict[str, Held] = {}
        self.number = 0
        self.entered: dict[Member, int] = {}
        """The number under which it was last to be entered anew, where it was."""
        self.stale: dict[Member, list[Held]] = {}
        """Those that may have a vote, or yet get one, for what was released, and that."""

    def number_at(self, member: Member) -> int:
        """The number that its key there has to begin with, for votes to count."""
        return self.entered.get(member, 0)


class Votes(Mutex):
    """The native mutex over several masters."""

    def __init__(self, fan: Fan, keys: Keys, runtime: Runtime, ttl_ms: int) -> None:
        self._fan = fan
        self._keys = keys
        self._runtime = runtime
        self._ttl_ms = ttl_ms
        self._last = 0
        self.sessions: dict[str, Session] = {}
        """Those that were begun here."""
        self.lock = runtime.lock()
        """Guards what is known of every session."""

    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        runtime = self._runtime
        splits = 0
        while True:
            known = self.sessions.get(session)
            if known is None:
                raise session_gone()
            held = Held(name, f"{session} {id} ".encode(), 0, set())
            try:
                got, taken = await self._attempt(known, held, id)
            except BaseException:
                await runtime.finish(self.take_back(known, held))
                raise
            if got is not None:
                return Grant(name, id, got.token, got)
            await self.take_back(known, held)
            splits += not taken
            now = runtime.now()
            if until is None and (taken or splits > _SPLITS_MAX):
                return None
            if until is not None and now >= until:
                return None
            # At random, so that those who have split the votes do not do so again.
            nap = now + POLL_SECONDS * (0.3 + runtime.random())
            await runtime.sleep(nap if until is None else min(nap, until))

    async def _attempt(self, known: Session, held: Held, id: str) -> tuple[Held | None, bool]:
        """What is held if a majority has voted for us; and whether somebody else holds it."""
        token = max(int(self._runtime.wall() * 1e6), self._last + 1)
        for _ in range(_DRAWS_MAX):
            answers = await self.vote(known, held, token, (), b"")
            words = list(answers.values())
            if b"roster" in words:
                raise Unsupported(
                    f"redlock: {held.name!r} is in use without lock=redlock on one of the masters"
                )
            with self.lock:
                votes = counted(known, answers)
                if len(votes) >= self._fan.quorum:
                    self._last = max(token, self._last)
                    got = known.held[id] = held._replace(token=token, votes=votes)
                    return got, False
            if len(self._fan.members) - words.count(b"unknown") < self._fan.quorum:
                raise session_gone()
            self._fan.check(answers, len(heard(answers)))
            greater = [word for word in words if isinstance(word, int)]
            if not greater:
                return None, words.count(b"taken") >= self._fan.quorum
            token = max(greater) + 1
        return None, False

    async def vote(
        self,
        known: Session,
        held: Held,
        token: int,
        among: Collection[Member],
        again: bytes,
    ) -> Answers:
        """Ask for votes, of all masters or of some; `again` says that they were given before."""
        keys = self._keys
        session, vote = keys.of_session(known.id), keys.of_vote(held.name)
        names = (4, vote, session, keys.counter, keys.of_roster(held.name))
        words = (held.mine, b"%d" % token, self._ttl_ms, self._keys.prefix, again)
        return await self._fan.run(LOCK, *names, *words, among=among)

    async def unseize(self, grant: Grant) -> None:
        held: Held = grant.handle
        known = self.sessions.get(held.mine.partition(b" ")[0].decode())
        if known is None:
            return  # it ended with its session
        with self.lock:
            known.held.pop(grant.id, None)
        if not await self.take_back(known, held):
            raise OutcomeUnknown("redlock: too few masters have answered to a release")

    async def take_back(self, known: Session, held: Held) -> bool:
        """Have every master forget its vote; say whether a majority has."""
        members = set(self._fan.members)
        try:
            vote = self._keys.of_vote(held.name)
            members -= heard(await self._fan.run(UNLOCK, 1, vote, held.mine))
        finally:
            with self.lock:
                for member in members:
                    known.stale.setdefault(member, []).append(held)
        return len(self._fan.members) - len(members) >= self._fan.quorum

    # -- for an operator ---------------------------------------------------------

    async def holder(self, name: str) -> Holder | None:
        answers = await self._fan.run(LOOK, 1, self._keys.of_vote(name), self._keys.prefix)
        self._fan.check(answers, len(heard(answers)))
        seen: list[tuple[bytes, bytes, str]] = []
        for each in answers.values():
            if isinstance(each, list):
                held, value = each
                owner = value.split(b" ", 2)[2].decode("utf-8", "surrogatepass")
                session, id, _, token = held.split(b" ")
                seen.append((session + b" " + id, token, owner))
        for one in seen:
            if seen.count(one) >= self._fan.quorum:
                return Holder(one[2], int(one[1]))
        return None

    async def taken(self) -> Sequence[Taken]:
        names: set[str] = set()
        for member in self._fan.members:
            if not member.down:
                names.update(await self._keys.names(member.wire, self._keys.of_vote(""), ""))
        found = []
        for name in sorted(names):
            holder = await self.holder(name)
            if holder is not None:
                found.append(Taken(name, (holder,)))
        return found


def counted(known: Session, answers: Answers) -> set[Member]:
    """Who has voted for us, under the number that stays.

    Where the session was to be entered anew, and nobody knows whether it was, an older number
    goes sooner or later; and with it, the vote.
    """
    return {
        member
        for member, reply in answers.items()
        if reply == b"granted %d" % known.number_at(member)
    }


def session_gone() -> SessionLost:
    """The error for a session that too few masters know."""
    return SessionLost("redlock: the session is gone on too many masters")
