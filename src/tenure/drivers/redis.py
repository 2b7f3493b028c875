"""Rosters on Redis: scripts that each take one round trip, TTLs, and pub/sub for wake-ups.

Works with Redis 6.0 and later and with what speaks its protocol, such as Valkey: one
server, or the master that sentinels name. The data model is in `_redis_lua`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from .._model import Claim, Interest, Roll, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import ProtocolError, SessionLost
from ..wires import redis as wires
from ._redis_ear import Ear
from ._redis_lua import AMEND, CLAIM, LIVING, READ, WITHDRAW
from ._redis_url import settings
from .base import Driver, Lost, Wake

T = TypeVar("T")


class _Begun(NamedTuple):
    """The calls of one session on one roster, packed up to where the claim comes in."""

    claim: bytes
    withdraw: bytes


class _Session(NamedTuple):
    owner: str
    key: bytes
    begun: dict[str, _Begun]


class RedisDriver(Driver):
    """One namespace in one Redis database."""

    traits = Traits(scope="hosts", durable_claims=False, push=True, poll=0.5)

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._ttl_ms = math.ceil(ttl * 1000)
        self._prefix = f"tenure:{{{_escape(namespace)}}}:".encode()
        self._counter = self._prefix + b"n"
        self._mailbox = runtime.unique()
        self._sessions: dict[str, _Session] = {}
        self._begun = 0
        self._wire = wires.wire(settings(url, self.patience), runtime.flavour)
        channel = self._prefix + b"w:" + self._mailbox.encode()
        self._ear = Ear(self._wire, runtime, channel, self.patience)

    async def open(self) -> None:
        await self._wire.open(self.runtime)

    async def close(self) -> None:
        await self._ear.close()
        await self._wire.close()

    def abandon(self) -> None:
        self._wire.abandon()

    # -- the session -----------------------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        self._begun += 1
        session = f"{self._mailbox}.{self._begun}"
        known = self._session(session, owner)
        await self._wire.command(b"SET", known.key, _utf8(owner), b"PX", self._ttl_ms)
        self._sessions[session] = known
        return session

    async def renew(self, session: str) -> None:
        if await self._wire.command(b"PEXPIRE", self._session_key(session), self._ttl_ms) != 1:
            self._sessions.pop(session, None)
            raise _lost()

    async def end(self, session: str) -> None:
        await self._wire.command(b"DEL", self._session_key(session))
        self._sessions.pop(session, None)

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
        begun = known.begun.get(roster) or self._begin(known, roster)
        member = f"{session} {id}".encode()
        tail = _TAILS.get((body, width)) or _tail(body, width)
        packed = b"%b$%d\r\n%b\r\n%b" % (begun.claim, len(member), member, tail)
        try:
            reply = await self._wire.ask(packed)
        except wires.ScriptMissing:
            reply = await self._teach(CLAIM, packed)
        if type(reply) is int and reply > 0:
            mine = Claim(roster, id, session, reply, known.owner, body)
            return Roll((mine,), mine)
        return self._roll(reply, roster, id, session)

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        known = self._sessions.get(session) or self._session(session, "")
        begun = known.begun.get(roster) or self._begin(known, roster)
        member = f"{session} {id}".encode()
        packed = b"%b$%d\r\n%b\r\n" % (begun.withdraw, len(member), member)
        try:
            await self._wire.ask(packed)
        except wires.ScriptMissing:
            await self._teach(WITHDRAW, packed)

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        keys = self._keys(roster, self._session_key(session))
        reply = await self._run(READ, *keys, self._prefix, _member(session, id))
        return self._roll(reply, roster, id, session)

    async def amend(self, claim: Claim, body: str) -> Claim:
        keys = self._keys(claim.roster, self._session_key(claim.session))
        member = _member(claim.session, claim.id)
        if await self._run(AMEND, *keys, member, _utf8(claim.body), _utf8(body)) != 1:
            raise SessionLost("redis: the claim is gone, or was changed by someone else")
        return claim._replace(body=body)

    async def rosters(self, prefix: str) -> Sequence[str]:
        start = self._prefix + b"r:"
        pattern = _literal(start + _utf8(prefix)) + b"*"
        found: set[bytes] = set()
        cursor: wires.Reply = b"0"
        while True:
            reply = await self._wire.command(
                b"SCAN", _is(cursor, bytes), b"MATCH", pattern, b"COUNT", 1000
            )
            cursor, keys = _is(reply, list)
            found.update(await self._living(sorted(set(_is(keys, list)) - found)))
            if cursor == b"0":
                return sorted(_text(key[len(start) :]) for key in found)

    async def _living(self, keys: list[bytes]) -> list[bytes]:
        if not keys:
            return []
        return _is(await self._run(LIVING, len(keys), *keys, self._prefix), list)

    # -- wake-ups ----------------------------------------------------------------

    async def listen(self, interest: Interest, wake: Wake) -> None:
        await self._ear.listen(interest.id, wake)

    def unlisten(self, interest: Interest) -> None:
        self._ear.unlisten(interest.id)

    # -- inside --------------------------------------------------------------------

    def _session(self, session: str, owner: str) -> _Session:
        return _Session(owner, self._session_key(session), {})

    def _session_key(self, session: str) -> bytes:
        return self._prefix + b"s:" + _utf8(session)

    def _keys(self, roster: str, *more: bytes) -> tuple[bytes | int, ...]:
        """The number of keys and the keys, as the scripts of one roster take them."""
        name = _utf8(roster)
        return (2 + len(more), self._prefix + b"r:" + name, self._prefix + b"b:" + name, *more)

    def _begin(self, known: _Session, roster: str) -> _Begun:
        claim = self._keys(roster, known.key, self._counter)
        begun = _Begun(
            CLAIM.begin(*claim, self._prefix, more=3),
            WITHDRAW.begin(*self._keys(roster), self._prefix, more=1),
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
            return await self._teach(script, packed)

    async def _teach(self, script: wires.Script, packed: bytes) -> wires.Reply:
        """Load the script, which is what a server needs once after each of its starts."""
        await self._wire.command(b"SCRIPT", b"LOAD", script.text)
        return await self._wire.ask(packed)

    def _roll(self, reply: wires.Reply, roster: str, id: str, session: str) -> Roll:
        """Read what the scripts' `look` returns, or the -1 for a dead session."""
        if reply == -1:
            raise _lost()
        if not isinstance(reply, list) or len(reply) != 8:
            raise _odd()
        token, rank, before, head, head_token, head_owner, head_body, body = reply
        if head is None:
            return Roll()
        head_session, _, head_id = _text(head).partition(" ")
        first = Claim(
            roster, head_id, head_session, _token(head_token), _text(head_owner), _text(head_body)
        )
        if token is None:
            return Roll((first,))
        if head_id == id and head_session == session:
            return Roll((first,), first)
        known = self._sessions.get(session)
        owner = known.owner if known is not None else ""
        mine = Claim(roster, id, session, _token(token), owner, _text(body))
        ahead = None if before is None else _text(before).partition(" ")[2]
        return Roll((first, mine), mine, _is(rank, int), ahead)


def _lost() -> SessionLost:
    return SessionLost("redis: the session is gone: it expired, or the server lost its data")


def _odd() -> ProtocolError:
    return ProtocolError("redis: the server answered something that the script does not return")


def _is(reply: Any, kind: type[T]) -> T:
    if not isinstance(reply, kind):
        raise _odd()
    return reply


def _token(score: Any) -> int:
    # Exact: a token is below 2**53, and a score is a double that Redis may write as 1e+15.
    return int(float(_is(score, bytes)))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: Any) -> str:
    return "" if data is None else _is(data, bytes).decode("utf-8", "surrogatepass")


def _member(session: str, id: str) -> bytes:
    return _utf8(f"{session} {id}")


def _tail(body: str, width: int | None) -> bytes:
    """The end of a packed claim: its body, and the width or 0."""
    return wires.word(_utf8(body)) + wires.word(b"%d" % (width or 0))


_TAILS = {("", width): _tail("", width) for width in (None, 1)}
_MOST_BEGUN = 1000


def _escape(namespace: str) -> str:
    """The namespace as it stands between the braces that make it a hash tag."""
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", namespace)


def _literal(text: bytes) -> bytes:
    """The text as a glob that matches nothing else."""
    return re.sub(rb"([*?\[\]\\^-])", rb"\\\1", text)


_UNSAFE = re.compile(r"[{}%\x00-\x1f\x7f]")
