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
a greater number, and what stood there before does not count any more.

A call that got no reply may still arrive. So a session is never entered under a smaller number
than it has there; and a vote and a renewal tell the number that they found, and count only
if it is the one that the master was last sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from contextlib import suppress

from .._model import Finding, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import SessionLost, Unavailable
from ..wires.redis_fan import Answers, Member, fan, heard
from ._redis_keys import Keys
from ._redis_redlock_lua import ENTER, RENEW, UNLOCK
from ._redis_replies import utf8
from ._redis_url import each_master
from ._redis_votes import POLL_SECONDS, Session, Votes, counted, session_gone
from .base import Driver, Lost


class RedlockDriver(Driver):
    """The native mutex over several masters. There is nothing else: no rosters."""

    traits = Traits(
        scope="hosts", shared=False, fair=False, push=False, poll=POLL_SECONDS, rosters=False
    )
    mutex: Votes

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._ttl_ms = math.ceil(ttl * 1000)
        self._keys = Keys(namespace)
        self._fan = fan(each_master(url, self.patience), runtime)
        self.mutex = self._votes = Votes(self._fan, self._keys, runtime, self._ttl_ms)
        self._mailbox = runtime.unique()
        self._begun = 0

    async def open(self) -> None:
        await self._fan.open()

    async def close(self) -> None:
        self._votes.sessions.clear()
        await self._fan.close()

    def abandon(self) -> None:
        self._votes.sessions.clear()
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
        value = b"%d %b" % (self._ttl_ms, utf8(owner))
        known = Session(session, value)
        self._fan.check(*await self._enter(known, 0, ()))
        self._votes.sessions[session] = known
        return session

    async def _enter(
        self, known: Session, number: int, among: Collection[Member]
    ) -> tuple[Answers, int]:
        """Write the session's key there; what they answered, and how many have it."""
        words = (self._keys.of_session(known.id), b"%d" % number, known.value, self._ttl_ms)
        answers = await self._fan.run(ENTER, 1, *words, among=among)
        return answers, sum(each == 1 for each in answers.values())

    async def renew(self, session: str) -> None:
        known = self._votes.sessions.get(session)
        if known is None:
            raise session_gone()
        until = self.runtime.now() + self.patience
        answers = await self._fan.run(RENEW, 1, self._keys.of_session(session), self._ttl_ms)
        gone = {member for member, reply in answers.items() if reply == -1}
        if len(self._fan.members) - len(gone) < self._fan.quorum:
            raise session_gone()
        with self._votes.lock:
            known_by = heard(answers) - gone
            there = {member for member in known_by if answers[member] == known.number_at(member)}
            # Those under another number know the session, and have no vote that counts.
            gone |= known_by - there
            for held in known.held.values():
                held.votes.difference_update(gone)
                if len(held.votes) < self._fan.quorum:
                    raise SessionLost("redlock: too few masters still know of a lock")
                self._fan.check(answers, len(held.votes & there))
            # Their votes are not needed for the majority, now that we know of one.
            spare = {
                member
                for member in known.stale.keys() & there
                if all(
                    len((held.votes & there) - known.stale.keys()) >= self._fan.quorum
                    for held in known.held.values()
                )
            }
            self._fan.check(answers, len(known_by))
            known.number = number = known.number + 1
            for member in gone | spare:
                known.entered[member] = number
                for held in known.held.values():
                    held.votes.discard(member)
        if gone or spare or any(there - held.votes for held in list(known.held.values())):
            await self._mend(known, number, there - spare, gone | spare, until)

    async def _mend(
        self, known: Session, number: int, there: set[Member], anew: set[Member], until: float
    ) -> None:
        """Enter the session where it is not known, and ask for the votes that are missing."""
        if anew:
            answers, _ = await self._enter(known, number, anew)
            entered = {member for member, reply in answers.items() if reply == 1}
            with self._votes.lock:
                left = [
                    (held, member) for member in entered for held in known.stale.pop(member, ())
                ]
                for member in anew - entered:
                    known.stale.setdefault(member, [])
            for held, member in left:
                # It does not count any more, but nobody else would remove it.
                await self._fan.run(
                    UNLOCK, 1, self._keys.of_vote(held.name), held.mine, among=(member,)
                )
            there = there | entered
        for held in list(known.held.values()):
            missing = there - held.votes
            if not missing or self.runtime.now() > until:
                continue
            answers = await self._votes.vote(known, held, held.token, missing, b"again")
            with self._votes.lock:
                held.votes.update(counted(known, answers))
                released = held not in known.held.values()
            if released:
                await self._votes.take_back(known, held)

    async def end(self, session: str) -> None:
        known = self._votes.sessions.pop(session, None)
        answers = await self._fan.command(b"DEL", self._keys.of_session(session))
        if known is not None:
            known.held.clear()
        self._fan.check(answers, len(heard(answers)))
