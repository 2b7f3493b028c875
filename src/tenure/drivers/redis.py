"""Rosters on Redis: scripts that each take one round trip, TTLs, and pub/sub for wake-ups.

Works with Redis 6.0 and later and with what speaks its protocol, such as Valkey: one
server, or the master that sentinels name. The data model is in `_redis_lua`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from .._model import Claim, Finding, Interest, Roll, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import SessionLost, TenureError, Unavailable
from ..wires import redis as wires
from ._redis_ear import Ear
from ._redis_keys import Keys
from ._redis_lua import (
    AMEND,
    CENSUS,
    CLAIM,
    CLAIM_SHARED,
    END,
    LIVING,
    READ,
    SEEN,
    WITHDRAW,
)
from ._redis_records import HashRecords
from ._redis_replicas import Replicas, TooFewReplicas, wanted
from ._redis_replies import (
    census_of,
    checked,
    gone,
    listed,
    member_of,
    owner_of,
    roll_of,
    utf8,
)
from ._redis_url import redlock, settings
from .base import Driver, Lost, Wake

_Ask = Callable[[bytes], Awaitable[wires.Reply]]


class _Begun(NamedTuple):
    """The calls of one session on one roster, packed up to where the claim comes in."""

    claim: bytes
    withdraw: bytes


class _Session(NamedTuple):
    owner: str
    key: bytes
    begun: dict[str, _Begun]
    public: set[tuple[str, str]]
    """Roster and id of each claim with a body that may stand."""


class RedisDriver(Driver):
    """One namespace in one Redis database."""

    traits = Traits(scope="hosts", shared=True, durable_claims=False, push=True, poll=0.5)

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._ttl_ms = math.ceil(ttl * 1000)
        self._keys = Keys(namespace)
        self._mailbox = runtime.unique()
        self._sessions: dict[str, _Session] = {}
        self._begun = 0
        self._wire = wires.wire(settings(url, self.patience, self._keys.tag), runtime.flavour)
        count = wanted(url)
        self._replicas = (
            Replicas(self._wire, self._keys.counter, count, self.patience) if count else None
        )
        self._enter = self._wire.ask if self._replicas is None else self._replicas.entered
        self.records = HashRecords(self._keys, self._wire, self._run)
        mailbox = self._keys.of_mailbox(self._mailbox)
        self._ear = Ear(self._wire, runtime, mailbox, self.patience)

    @classmethod
    def chosen(cls, url: Url) -> type[Driver]:
        if redlock(url):
            from ._redis_redlock import RedlockDriver

            return RedlockDriver
        return cls

    async def open(self) -> None:
        await self._wire.open(self.runtime)

    async def close(self) -> None:
        await self._ear.close()
        await self._wire.close()

    def abandon(self) -> None:
        self._wire.abandon()

    async def examine(self) -> Sequence[Finding]:
        from ._redis_examine import examine  # only an operator needs it

        return await examine(self._wire.command, self.runtime.wall, self.ttl)

    async def server(self) -> Server:
        """The master; of a cluster, the number of nodes that its map names, replicas included."""
        return self._wire.server()

    # -- the session -----------------------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        self._begun += 1
        session = f"{self._mailbox}.{self._begun}"
        known = self._session(session, owner)
        value = b"%d %b" % (self._ttl_ms, utf8(owner))
        await self._wire.command(b"SET", known.key, value, b"PX", self._ttl_ms)
        self._sessions[session] = known
        return session

    async def renew(self, session: str) -> None:
        ask = self._wire.ask if self._replicas is None else self._replicas.renewed
        key = self._keys.of_session(session)
        if await ask(wires.packed_command(b"PEXPIRE", key, self._ttl_ms)) != 1:
            raise gone()

    async def end(self, session: str) -> None:
        known = self._sessions.get(session)
        shown = set() if known is None else {roster for roster, _ in known.public}
        # Its claims are dead now, and whoever watches them sees that when it looks.
        channels = map(self._keys.of_channel, sorted(shown))
        await self._run(END, 1, self._keys.of_session(session), *channels)
        self._sessions.pop(session, None)

    async def last_seen(self, session: str) -> float | None:
        left, value = checked(await self._run(SEEN, 1, self._keys.of_session(session)), list)
        if value is None:
            return None
        ttl = int(checked(value, bytes).partition(b" ")[0])
        return max(0, ttl - checked(left, int)) / 1000

    # -- the roster --------------------------------------------------------------

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        if width is not None and width < 1:
            return await self.read(session, roster, id)
        known = self._sessions.get(session)
        if known is None:
            raise gone()
        if body:
            known.public.add((roster, id))
        if shared:
            keys = self._of_roster(roster, known.key, self._keys.counter)
            words = (self._keys.prefix, member_of(session, id, shared), utf8(body), width or 0)
            script, packed = CLAIM_SHARED, CLAIM_SHARED.begin(*keys, *words, more=0)
        else:
            begun = known.begun.get(roster) or self._begin(known, roster)
            member = f"{session} {id}".encode()
            tail = _TAILS.get((body, width)) or _tail(body, width)
            packed = b"%b$%d\r\n%b\r\n%b" % (begun.claim, len(member), member, tail)
            script = CLAIM
        try:
            try:
                reply = await self._enter(packed)
            except wires.ScriptMissing:
                reply = await self._teach(script, packed, self._enter)
        except TooFewReplicas as error:
            raise await self._given_up(error, session, roster, id, width or 1) from error
        if type(reply) is int and reply > 0:
            mine = Claim(roster, id, session, reply, known.owner, body, shared)
            return Roll((mine,), mine)
        return roll_of(reply, roster, id, session, known.owner)

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        known = self._sessions.get(session) or self._session(session, "")
        if width != 1:
            words = (self._keys.prefix, member_of(session, id), width)
            await self._run(WITHDRAW, *self._of_roster(roster), *words)
        else:
            begun = known.begun.get(roster) or self._begin(known, roster)
            member = f"{session} {id}".encode()
            packed = b"%b$%d\r\n%b\r\n" % (begun.withdraw, len(member), member)
            try:
                await self._wire.ask(packed)
            except wires.ScriptMissing:
                await self._teach(WITHDRAW, packed, self._wire.ask)
        if known.public:
            known.public.discard((roster, id))

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        keys = self._of_roster(roster, self._keys.of_session(session))
        words = (self._keys.prefix, member_of(session, id), max(width, 1))
        reply = await self._run(READ, *keys, *words)
        roll, value = listed(reply, 2)
        return roll_of(roll, roster, id, session, owner_of(value))

    async def census(self, roster: str) -> tuple[Claim, ...]:
        reply = await self._run(CENSUS, 1, self._keys.of_roster(roster), self._keys.prefix)
        return census_of(reply, roster)

    async def amend(self, claim: Claim, body: str) -> Claim:
        keys = self._of_roster(claim.roster, self._keys.of_session(claim.session))
        member = member_of(claim.session, claim.id, claim.shared)
        words = (member, utf8(claim.body), utf8(body), self._keys.of_channel(claim.roster))
        known = self._sessions.get(claim.session)
        if body and known is not None:
            known.public.add((claim.roster, claim.id))
        if await self._run(AMEND, *keys, *words) != 1:
            raise SessionLost("redis: the claim is gone, or was changed by someone else")
        return claim._replace(body=body)

    async def rosters(self, prefix: str) -> Sequence[str]:
        async def living(keys: list[bytes]) -> list[bytes]:
            return listed(await self._run(LIVING, len(keys), *keys, self._keys.prefix))

        return await self._keys.names(self._wire, self._keys.of_roster(""), prefix, living)

    # -- wake-ups ----------------------------------------------------------------

    async def listen(self, interest: Interest, wake: Wake) -> None:
        if interest.watch:
            await self._ear.watch(self._keys.of_channel(interest.roster), interest.id, wake)
        else:
            await self._ear.listen(interest.id, wake)

    def unlisten(self, interest: Interest) -> None:
        if interest.watch:
            self._ear.unwatch(self._keys.of_channel(interest.roster), interest.id)
        else:
            self._ear.unlisten(interest.id)

    # -- inside --------------------------------------------------------------------

    def _session(self, session: str, owner: str) -> _Session:
        return _Session(owner, self._keys.of_session(session), {}, set())

    def _of_roster(self, roster: str, *more: bytes) -> tuple[bytes | int, ...]:
        """The number of keys and the keys, as the scripts of one roster take them."""
        keys = self._keys
        return (2 + len(more), keys.of_roster(roster), keys.of_bodies(roster), *more)

    def _begin(self, known: _Session, roster: str) -> _Begun:
        claim = self._of_roster(roster, known.key, self._keys.counter)
        prefix = self._keys.prefix
        begun = _Begun(
            CLAIM.begin(*claim, prefix, more=3),
            WITHDRAW.begin(*self._of_roster(roster), prefix, more=1),  # and no width: it is 1
        )
        if len(known.begun) >= _MOST_BEGUN:
            known.begun.clear()
        known.begun[roster] = begun
        return begun

    async def _run(self, script: wires.Script, *words: bytes | int) -> wires.Reply:
        packed = script.begin(*words, more=0)
        try:
            return await self._wire.ask(packed)
        except wires.ScriptMissing:
            return await self._teach(script, packed, self._wire.ask)

    async def _teach(self, script: wires.Script, packed: bytes, ask: _Ask) -> wires.Reply:
        """Load the script, which is what a server needs once after each of its starts."""
        await self._wire.command(b"SCRIPT", b"LOAD", script.text)
        return await ask(packed)

    async def _given_up(
        self, error: TooFewReplicas, session: str, roster: str, id: str, width: int
    ) -> TenureError:
        """Withdraw a claim that too few replicas have; return what to tell the caller."""
        try:
            await self.withdraw(session, roster, id, width)
        except Unavailable:
            return error  # it may stand
        return Unavailable(str(error))


def _tail(body: str, width: int | None) -> bytes:
    """The end of a packed claim: its body, and the width or 0."""
    return wires.word(utf8(body)) + wires.word(b"%d" % (width or 0))


_TAILS = {("", width): _tail("", width) for width in (None, 1)}
_MOST_BEGUN = 1000
