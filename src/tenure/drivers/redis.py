"""Rosters on Redis: scripts that each take one round trip, TTLs, and pub/sub for wake-ups.

Works with Redis 6.0 and later and with what speaks its protocol, such as Valkey: one
server, or the master that sentinels name. The data model is in `_redis_lua`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from .._model import Claim, Finding, Interest, Record, Roll, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import ProtocolError, SessionLost, TenureError, Unavailable, Unsupported
from ..wires import redis as wires
from ._redis_ear import Ear
from ._redis_lua import (
    AMEND,
    CENSUS,
    CLAIM,
    CLAIM_SHARED,
    END,
    LIVING,
    READ,
    RECORD,
    SEEN,
    WITHDRAW,
)
from ._redis_replicas import Replicas, TooFewReplicas, wanted
from ._redis_url import escape, redlock, settings
from .base import Driver, Lost, Wake

T = TypeVar("T")

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
        tag = escape(namespace).encode()
        self._prefix = b"tenure:{%b}:" % tag
        self._counter = self._prefix + b"n"
        self._mailbox = runtime.unique()
        self._sessions: dict[str, _Session] = {}
        self._begun = 0
        self._wire = wires.wire(settings(url, self.patience, tag), runtime.flavour)
        count = wanted(url)
        self._replicas = (
            Replicas(self._wire, self._counter, count, self.patience) if count else None
        )
        self._enter = self._wire.ask if self._replicas is None else self._replicas.entered
        channel = self._prefix + b"w:" + self._mailbox.encode()
        self._ear = Ear(self._wire, runtime, channel, self.patience)

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
        value = b"%d %b" % (self._ttl_ms, _utf8(owner))
        await self._wire.command(b"SET", known.key, value, b"PX", self._ttl_ms)
        self._sessions[session] = known
        return session

    async def renew(self, session: str) -> None:
        ask = self._wire.ask if self._replicas is None else self._replicas.renewed
        key = self._session_key(session)
        if await ask(wires.packed_command(b"PEXPIRE", key, self._ttl_ms)) != 1:
            raise _lost()

    async def end(self, session: str) -> None:
        known = self._sessions.get(session)
        shown = set() if known is None else {roster for roster, _ in known.public}
        # Its claims are dead now, and whoever watches them sees that when it looks.
        await self._run(END, 1, self._session_key(session), *map(self._channel, sorted(shown)))
        self._sessions.pop(session, None)

    async def last_seen(self, session: str) -> float | None:
        left, value = _is(await self._run(SEEN, 1, self._session_key(session)), list)
        if value is None:
            return None
        ttl = int(_is(value, bytes).partition(b" ")[0])
        return max(0, ttl - _is(left, int)) / 1000

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
            raise _lost()
        if body:
            known.public.add((roster, id))
        if shared:
            keys = self._keys(roster, known.key, self._counter)
            words = (self._prefix, _member(session, id, shared), _utf8(body), width or 0)
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
        return _roll(reply, roster, id, session, known.owner)

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        known = self._sessions.get(session) or self._session(session, "")
        if width != 1:
            words = (self._prefix, _member(session, id), width)
            await self._run(WITHDRAW, *self._keys(roster), *words)
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
        keys = self._keys(roster, self._session_key(session))
        reply = await self._run(READ, *keys, self._prefix, _member(session, id), max(width, 1))
        roll, value = _list(reply, 2)
        return _roll(roll, roster, id, session, _owner(value))

    async def census(self, roster: str) -> tuple[Claim, ...]:
        reply = await self._run(CENSUS, 1, self._roster_key(roster), self._prefix)
        members, texts, values = map(_list, _list(reply))
        bodies = dict(zip(texts[::2], texts[1::2], strict=True))
        owners: dict[bytes, str | None] = {}
        claims = []
        for member, token in zip(members[::2], members[1::2], strict=True):
            session, mark, id = _parts(member)
            if session not in owners:
                value = values[len(owners)]
                owners[session] = None if value is None else _owner(value)
            owner = owners[session]
            if owner is not None:
                body = _text(bodies.get(member))
                claims.append(
                    Claim(roster, _text(id), _text(session), _token(token), owner, body, mark)
                )
        return tuple(claims)

    async def amend(self, claim: Claim, body: str) -> Claim:
        keys = self._keys(claim.roster, self._session_key(claim.session))
        member = _member(claim.session, claim.id, claim.shared)
        words = (member, _utf8(claim.body), _utf8(body), self._channel(claim.roster))
        known = self._sessions.get(claim.session)
        if body and known is not None:
            known.public.add((claim.roster, claim.id))
        if await self._run(AMEND, *keys, *words) != 1:
            raise SessionLost("redis: the claim is gone, or was changed by someone else")
        return claim._replace(body=body)

    async def rosters(self, prefix: str) -> Sequence[str]:
        async def living(keys: list[bytes]) -> list[bytes]:
            return _list(await self._run(LIVING, len(keys), *keys, self._prefix))

        return await self._scan(b"r:", prefix, living)

    # -- records -----------------------------------------------------------------

    async def recall(self, name: str) -> Record | None:
        reply = await self._wire.command(b"HMGET", self._record_key(name), b"text", b"version")
        text, version = _list(reply)
        return None if version is None else Record(_text(text), int(version))

    async def record(self, name: str, text: str | None, version: Any) -> Any:
        keys = (2, self._record_key(name), self._counter)
        words = (self._channel(name), b"" if version is None else b"%d" % version)
        more = () if text is None else (_utf8(text),)
        return await self._run(RECORD, *keys, *words, *more)

    async def recorded(self, prefix: str) -> Sequence[str]:
        return await self._scan(b"d:", prefix)

    # -- wake-ups ----------------------------------------------------------------

    async def listen(self, interest: Interest, wake: Wake) -> None:
        if interest.watch:
            await self._ear.watch(self._channel(interest.roster), interest.id, wake)
        else:
            await self._ear.listen(interest.id, wake)

    def unlisten(self, interest: Interest) -> None:
        if interest.watch:
            self._ear.unwatch(self._channel(interest.roster), interest.id)
        else:
            self._ear.unlisten(interest.id)

    # -- inside --------------------------------------------------------------------

    def _session(self, session: str, owner: str) -> _Session:
        return _Session(owner, self._session_key(session), {}, set())

    def _session_key(self, session: str) -> bytes:
        return self._prefix + b"s:" + _utf8(session)

    def _roster_key(self, roster: str) -> bytes:
        return self._prefix + b"r:" + _utf8(roster)

    def _record_key(self, name: str) -> bytes:
        return self._prefix + b"d:" + _utf8(name)

    def _channel(self, name: str) -> bytes:
        return self._prefix + b"c:" + _utf8(name)

    def _keys(self, roster: str, *more: bytes) -> tuple[bytes | int, ...]:
        """The number of keys and the keys, as the scripts of one roster take them."""
        name = _utf8(roster)
        return (2 + len(more), self._prefix + b"r:" + name, self._prefix + b"b:" + name, *more)

    def _begin(self, known: _Session, roster: str) -> _Begun:
        claim = self._keys(roster, known.key, self._counter)
        begun = _Begun(
            CLAIM.begin(*claim, self._prefix, more=3),
            WITHDRAW.begin(*self._keys(roster), self._prefix, more=1),  # and no width: it is 1
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

    async def _scan(
        self,
        kind: bytes,
        prefix: str,
        sift: Callable[[list[bytes]], Awaitable[list[bytes]]] | None = None,
    ) -> Sequence[str]:
        """The names of the keys of a kind that begin with the prefix, those that are sifted out."""
        start = self._prefix + kind
        pattern = _literal(start + _utf8(prefix)) + b"*"
        found: set[bytes] = set()
        cursor: wires.Reply = b"0"
        while True:
            reply = await self._wire.command(
                b"SCAN", _is(cursor, bytes), b"MATCH", pattern, b"COUNT", 1000
            )
            cursor, keys = _list(reply)
            new = sorted(set(_list(keys)) - found)
            found.update(await sift(new) if sift is not None and new else new)
            if cursor == b"0":
                return sorted(_text(key[len(start) :]) for key in found)


def _lost() -> SessionLost:
    return SessionLost("redis: the session is gone: it expired, or the server lost its data")


def _odd() -> ProtocolError:
    return ProtocolError("redis: the server answered something that the script does not return")


def _is(reply: Any, kind: type[T]) -> T:
    if not isinstance(reply, kind):
        raise _odd()
    return reply


def _roll(reply: wires.Reply, roster: str, id: str, session: str, owner: str) -> Roll:
    """Read what the scripts' `look` returns, or the -1 for a dead session."""
    if reply == -1:
        raise _lost()
    if reply == -2:
        raise Unsupported(f"redis: {roster!r} is held with lock=redlock: use the same strategy")
    token, rank, before, shared, head, head_token, value, head_body, body = _list(reply, 9)
    if head is None:
        return Roll()
    head_session, mark, head_id = _parts(head)
    first = Claim(
        roster,
        _text(head_id),
        _text(head_session),
        _token(head_token),
        _owner(value),
        _text(head_body),
        mark,
    )
    if token is None:
        return Roll((first,))
    if first.id == id and first.session == session:
        return Roll((first,), first)
    mine = Claim(roster, id, session, _token(token), owner, _text(body), shared == 1)
    ahead = None if before is None else _text(_parts(before)[2])
    return Roll((first, mine), mine, _is(rank, int), ahead)


def _list(reply: Any, size: int | None = None) -> list[Any]:
    if not isinstance(reply, list) or len(reply) != (len(reply) if size is None else size):
        raise _odd()
    return reply


def _parts(member: bytes) -> tuple[bytes, bool, bytes]:
    """The session, whether the claim is shared, and the claim's id."""
    found = _MEMBER.match(member)
    if found is None:
        raise _odd()
    return found[1], found[2] == b"+", found[3]


def _owner(value: Any) -> str:
    """The owner's name in what a session's key holds."""
    return _text(value).partition(" ")[2]


def _token(score: Any) -> int:
    # Exact: a token is below 2**53, and a score is a double that Redis may write as 1e+15.
    return int(float(_is(score, bytes)))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: Any) -> str:
    return "" if data is None else _is(data, bytes).decode("utf-8", "surrogatepass")


def _member(session: str, id: str, shared: bool = False) -> bytes:
    return _utf8(f"{session}{'+' if shared else ' '}{id}")


def _tail(body: str, width: int | None) -> bytes:
    """The end of a packed claim: its body, and the width or 0."""
    return wires.word(_utf8(body)) + wires.word(b"%d" % (width or 0))


_TAILS = {("", width): _tail("", width) for width in (None, 1)}
_MOST_BEGUN = 1000


def _literal(text: bytes) -> bytes:
    """The text as a glob that matches nothing else."""
    return re.sub(rb"([*?\[\]\\^-])", rb"\\\1", text)


_MEMBER = re.compile(rb"([0-9A-Za-z.]+)([ +])(.*)", re.DOTALL)
