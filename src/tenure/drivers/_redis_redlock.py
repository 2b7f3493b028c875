"""`?lock=redlock`: a lock over several independent Redis masters, held by a majority of them.

On each master, under the same prefix as rosters have:

- `s:<session>` holds a number, the session's TTL in milliseconds and the owner's name, and expires;
- `m:<name>` holds `<session> <grant id> <number> <token>`, and counts as long as that session's
  key is there with that number;
- `n` is the last token that this master has voted for.

A client proposes a token, its clock's microseconds or one more than the greatest that it has
heard of, to all masters at once. A master votes for it if the lock is free there and the
token is greater than its last; a majority of votes is a grant. Two majorities have a master
in common, so the later token is the greater one. Each vote renews the session on its master,
so that it lives at least as long as the lease's deadline says.

A renewal counts if for every lock a majority of its voters have known the session all the
time. Only then is a master that has forgotten the session entered anew, and asked for its
votes again. So is one that may still have a vote for what was released: its session gets
another number, and what stood there before does not count any more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from .._model import Finding, Grant, Holder, Server, Taken, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import OutcomeUnknown, SessionLost, TenureError, Unavailable, Unsupported
from ..wires.redis import Script
from ..wires.redis_fan import Answers, Member, fan
from ._redis_url import each_master, escape
from .base import Driver, Lost, Mutex

_LIVE = """
local function live(held)
  local session, number = string.match(held, '^(%S+) %S+ (%S+)')
  local value = redis.call('GET', prefix .. 's:' .. session)
  return value and string.match(value, '^%S+') == number and value
end
"""

_LOCK = Script(
    f"""
local mine, prefix, roster = ARGV[1], ARGV[4], KEYS[4]
{_LIVE}
local session = redis.call('GET', KEYS[2])
if not session then return 'unknown' end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
for _, claim in ipairs(redis.call('ZRANGE', roster, 0, 99)) do
  if redis.call('EXISTS', prefix .. 's:' .. string.match(claim, '^[%w.]+')) == 1 then
    return 'roster'
  end
end
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #mine) ~= mine and live(held) then return 'taken' end
local last, token = tonumber(redis.call('GET', KEYS[3]) or 0), tonumber(ARGV[2])
if token <= last and ARGV[5] == '' then return last end
if token > last then redis.call('SET', KEYS[3], ARGV[2]) end
redis.call('SET', KEYS[1], mine .. string.match(session, '^%S+') .. ' ' .. ARGV[2])
return 'granted'
"""
)
"""KEYS: lock, session, last token, the roster of that name. ARGV: what the lock's key begins
with, the token, the TTL, the prefix, and something if it is a vote that was lost. Returns a
word, or the last token where that is not less."""

_UNLOCK = Script(
    """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
)

_LOOK = Script(
    f"""
local prefix = ARGV[1]
{_LIVE}
local held = redis.call('GET', KEYS[1])
local value = held and live(held)
return value and {{held, value}}
"""
)

_POLL_SECONDS = 0.03
_DRAWS_MAX = 5
_SPLITS_MAX = 10


class _Held(NamedTuple):
    """A lock that is held, or that is being taken."""

    name: str
    mine: bytes
    token: int
    votes: set[Member]


class _Session:
    """What is known of one session."""

    def __init__(self, id: str, value: bytes) -> None:
        self.id = id
        self.value = value
        self.held: dict[str, _Held] = {}
        self.number = 0
        self.entered: dict[Member, int] = {}
        """The number under which it was entered anew, where it was."""
        self.stale: dict[Member, list[_Held]] = {}
        """Those that may have a vote, or yet get one, for what was released, and that."""

    def numbered(self) -> bytes:
        """What its key holds."""
        return b"%d %b" % (self.number, self.value)


class RedlockDriver(Driver, Mutex):
    """The native mutex over several masters. There is nothing else: no rosters."""

    traits = Traits(
        scope="hosts", shared=False, fair=False, push=False, poll=_POLL_SECONDS, rosters=False
    )

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self.mutex = self
        self._ttl_ms = math.ceil(ttl * 1000)
        self._prefix = b"tenure:{%b}:" % escape(namespace).encode()
        self._fan = fan(each_master(url, self.patience), runtime)
        self._mailbox = runtime.unique()
        self._sessions: dict[str, _Session] = {}
        self._begun = 0
        self._last = 0
        self._lock = runtime.lock()

    async def open(self) -> None:
        await self._fan.open()

    async def close(self) -> None:
        self._sessions.clear()
        await self._fan.close()

    def abandon(self) -> None:
        self._sessions.clear()
        self._fan.abandon()

    async def examine(self) -> Sequence[Finding]:
        from ._redis_examine import examine

        found = []
        for member in self._fan.members:
            label = member.wire.settings.label
            try:
                each = await examine(member.wire.command, self.runtime.wall, self.ttl)
            except Unavailable as error:
                text = "A lock needs more than half of the masters, and this one does not answer."
                each = [Finding("warning", "away", text, str(error))]
            found += [finding._replace(subject=f"{label}: {finding.subject}") for finding in each]
        return found

    async def server(self) -> Server:
        """The master with the lowest version, of those that could be reached so far.

        Where there are both Redis and Valkey, the numbers alone are compared. The topology is
        how many masters the URL names.
        """
        found = []
        for member in self._fan.members:
            with suppress(Unavailable):
                found.append(member.wire.server())
        if not found:
            raise Unavailable("redlock: no master can be reached")
        lowest = min(found, key=lambda each: [*map(int, re.findall(r"\d+", each.version))])
        return lowest._replace(topology=f"{len(self._fan.members)} independent masters")

    # -- the session -----------------------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        self._begun += 1
        session = f"{self._mailbox}.{self._begun}"
        value = b"%d %b" % (self._ttl_ms, owner.encode("utf-8", "surrogatepass"))
        known = _Session(session, value)
        self._check(*await self._enter(known, ()))
        self._sessions[session] = known
        return session

    async def _enter(self, known: _Session, among: Collection[Member]) -> tuple[Answers, int]:
        """Write the session's key there; what they answered, and how many have it."""
        words = (self._session_key(known.id), known.numbered(), b"PX", self._ttl_ms)
        answers = await self._fan.command(b"SET", *words, among=among)
        return answers, sum(each == b"OK" for each in answers.values())

    async def renew(self, session: str) -> None:
        known = self._sessions.get(session)
        if known is None:
            raise _lost()
        until = self.runtime.now() + self.patience
        answers = await self._fan.command(b"PEXPIRE", self._session_key(session), self._ttl_ms)
        there = {member for member, reply in answers.items() if reply == 1}
        gone = {member for member, reply in answers.items() if reply == 0}
        if len(self._fan.members) - len(gone) < self._fan.quorum:
            raise _lost()
        with self._lock:
            for held in known.held.values():
                held.votes.difference_update(gone)
                if len(held.votes) < self._fan.quorum:
                    raise SessionLost("redlock: too few masters still know of a lock")
                self._check(answers, len(held.votes & there))
            # Their votes are not needed for the majority, now that we know of one.
            spare = {
                member
                for member in known.stale.keys() & there
                if all(
                    len((held.votes & there) - known.stale.keys()) >= self._fan.quorum
                    for held in known.held.values()
                )
            }
            self._check(answers, len(there))
            for member in gone | spare:
                known.number += 1
                known.entered[member] = known.number
                for held in known.held.values():
                    held.votes.discard(member)
        if gone or spare or any(there - held.votes for held in list(known.held.values())):
            await self._mend(known, there - spare, gone | spare, until)

    async def _mend(
        self, known: _Session, there: set[Member], anew: set[Member], until: float
    ) -> None:
        """Enter the session where it is not known, and ask for the votes that are missing."""
        if anew:
            answers, _ = await self._enter(known, anew)
            entered = {member for member, reply in answers.items() if reply == b"OK"}
            with self._lock:
                left = [
                    (held, member) for member in entered for held in known.stale.pop(member, ())
                ]
                for member in anew - entered:
                    known.stale.setdefault(member, [])
            for held, member in left:
                # It does not count any more, but nobody else would remove it.
                await self._fan.run(
                    _UNLOCK, 1, self._lock_key(held.name), held.mine, among=(member,)
                )
            there = there | entered
        for held in list(known.held.values()):
            missing = there - held.votes
            if not missing or self.runtime.now() > until:
                continue
            before = dict(known.entered)
            answers = await self._vote(known, held, held.token, missing, b"again")
            with self._lock:
                held.votes.update(self._votes(known, answers, before))
                released = held not in known.held.values()
            if released:
                await self._take_back(known, held)

    @staticmethod
    def _votes(known: _Session, answers: Answers, before: dict[Member, int]) -> set[Member]:
        """Who has voted for us, and has not been entered anew since."""
        return {
            member
            for member, reply in answers.items()
            if reply == b"granted" and known.entered.get(member) == before.get(member)
        }

    async def end(self, session: str) -> None:
        known = self._sessions.pop(session, None)
        answers = await self._fan.command(b"DEL", self._session_key(session))
        if known is not None:
            known.held.clear()
        self._check(answers, len(_heard(answers)))

    # -- the lock ----------------------------------------------------------------

    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        runtime = self.runtime
        splits = 0
        while True:
            known = self._sessions.get(session)
            if known is None:
                raise _lost()
            held = _Held(name, f"{session} {id} ".encode(), 0, set())
            try:
                got, taken = await self._attempt(known, held, id)
            except BaseException:
                await runtime.finish(self._take_back(known, held))
                raise
            if got is not None:
                return Grant(name, id, got.token, got)
            await self._take_back(known, held)
            splits += not taken
            now = runtime.now()
            if until is None and (taken or splits > _SPLITS_MAX):
                return None
            if until is not None and now >= until:
                return None
            # At random, so that those who have split the votes do not do so again.
            nap = now + self.traits.poll * (0.3 + runtime.random())
            await runtime.sleep(nap if until is None else min(nap, until))

    async def _attempt(self, known: _Session, held: _Held, id: str) -> tuple[_Held | None, bool]:
        """What is held if a majority has voted for us; and whether somebody else holds it."""
        token = max(int(self.runtime.wall() * 1e6), self._last + 1)
        for _ in range(_DRAWS_MAX):
            before = dict(known.entered)
            answers = await self._vote(known, held, token, (), b"")
            words = list(answers.values())
            if b"roster" in words:
                raise Unsupported(
                    f"redlock: {held.name!r} is in use without lock=redlock on one of the masters"
                )
            with self._lock:
                votes = self._votes(known, answers, before)
                if len(votes) >= self._fan.quorum:
                    self._last = max(token, self._last)
                    got = known.held[id] = held._replace(token=token, votes=votes)
                    return got, False
            if len(self._fan.members) - words.count(b"unknown") < self._fan.quorum:
                raise _lost()
            self._check(answers, len(_heard(answers)))
            greater = [word for word in words if isinstance(word, int)]
            if not greater:
                return None, words.count(b"taken") >= self._fan.quorum
            token = max(greater) + 1
        return None, False

    async def _vote(
        self,
        known: _Session,
        held: _Held,
        token: int,
        among: Collection[Member],
        again: bytes,
    ) -> Answers:
        roster = self._prefix + b"r:" + held.name.encode("utf-8", "surrogatepass")
        session, last = self._session_key(known.id), self._prefix + b"n"
        keys = (4, self._lock_key(held.name), session, last, roster)
        words = (held.mine, b"%d" % token, self._ttl_ms, self._prefix, again)
        return await self._fan.run(_LOCK, *keys, *words, among=among)

    async def unseize(self, grant: Grant) -> None:
        held: _Held = grant.handle
        known = self._sessions.get(held.mine.partition(b" ")[0].decode())
        if known is None:
            return  # it ended with its session
        with self._lock:
            known.held.pop(grant.id, None)
        if not await self._take_back(known, held):
            raise OutcomeUnknown("redlock: too few masters have answered to a release")

    async def _take_back(self, known: _Session, held: _Held) -> bool:
        """Have every master forget its vote; say whether a majority has."""
        members = set(self._fan.members)
        try:
            members -= _heard(await self._fan.run(_UNLOCK, 1, self._lock_key(held.name), held.mine))
        finally:
            with self._lock:
                for member in members:
                    known.stale.setdefault(member, []).append(held)
        return len(self._fan.members) - len(members) >= self._fan.quorum

    # -- for an operator ---------------------------------------------------------

    async def holder(self, name: str) -> Holder | None:
        answers = await self._fan.run(_LOOK, 1, self._lock_key(name), self._prefix)
        self._check(answers, len(_heard(answers)))
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
        names: set[bytes] = set()
        for member in self._fan.members:
            if member.down:
                continue
            cursor: Any = b"0"
            while True:
                words = (b"SCAN", cursor, b"MATCH", b"*:m:*", b"COUNT", 1000)
                reply: Any = await member.wire.command(*words)
                cursor, keys = reply
                start = self._prefix + b"m:"
                names.update(key[len(start) :] for key in keys if key.startswith(start))
                if cursor == b"0":
                    break
        found = []
        for name in sorted(each.decode("utf-8", "surrogatepass") for each in names):
            holder = await self.holder(name)
            if holder is not None:
                found.append(Taken(name, (holder,)))
        return found

    # -- inside --------------------------------------------------------------------

    def _session_key(self, session: str) -> bytes:
        return self._prefix + b"s:" + session.encode()

    def _lock_key(self, name: str) -> bytes:
        return self._prefix + b"m:" + name.encode("utf-8", "surrogatepass")

    def _check(self, answers: Answers, good: int) -> None:
        """Raise what is right when fewer than a majority have done it."""
        if good >= self._fan.quorum:
            return
        for error in answers.values():
            if isinstance(error, TenureError) and not isinstance(error, Unavailable):
                raise error
        if any(isinstance(each, OutcomeUnknown) for each in answers.values()) or good:
            raise OutcomeUnknown(
                f"redlock: {good} of {len(self._fan.members)} masters have answered"
            )
        self._fan.check_reached()
        raise Unavailable("redlock: too few masters can do it now")


def _heard(answers: Answers) -> set[Member]:
    """Those that have answered, and not with an error."""
    return {member for member in answers if not isinstance(answers[member], TenureError)}


def _lost() -> SessionLost:
    return SessionLost("redlock: the session is gone on too many masters")
