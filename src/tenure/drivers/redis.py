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


class _Session(NamedTuple):
    owner: str
    key: bytes


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
        await self.runtime.blocking(self._wire.prepare)
        await self._wire.command(b"PING")

    async def close(self) -> None:
        await self._ear.close()
        await self._wire.close()

    def abandon(self) -> None:
        self._wire.abandon()

    # -- the session -----------------------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        self._begun += 1
        session = f"{self._mailbox}.{self._begun}"
        key = self._session_key(session)
        await self._wire.command(b"SET", key, _utf8(owner), b"PX", self._ttl_ms)
        self._sessions[session] = _Session(owner, key)
        return session

    async def renew(self, session: str) -> None:
        if await self._wire.command(b"PEXPIRE", self._session_key(session), self._ttl_ms) != 1:
            self._sessions.pop(session, None)
            raise _lost()

    async def end(self, session: str) -> None:
        await self._wire.command(b"DEL", self._session_key(session))
        self._sessions.pop(session, None)

    # -- the roster --------------------------------------------------------------

    async def claim(self, session: str, roster: str, id: str, body: str, width: int | None) -> Roll:
        if width is not None and width < 1:
            return await self.read(session, roster, id)
        known = self._sessions.get(session)
        if known is None:
            raise _lost()
        prefix = self._prefix
        name = _utf8(roster)
        reply = await self._wire.run(
            CLAIM,
            4,
            prefix + b"r:" + name,
            known.key,
            self._counter,
            prefix + b"b:" + name,
            _member(session, id),
            _utf8(body),
            width or 0,
            prefix,
        )
        if type(reply) is int:
            if reply < 0:
                raise _lost()
            mine = Claim(roster, id, session, reply, known.owner, body)
            return Roll((mine,), mine)
        return self._roll(reply, roster, id, session)

    async def amend(self, claim: Claim, body: str) -> Claim:
        name = _utf8(claim.roster)
        reply = await self._wire.run(
            AMEND,
            3,
            self._prefix + b"r:" + name,
            self._session_key(claim.session),
            self._prefix + b"b:" + name,
            _member(claim.session, claim.id),
            _utf8(claim.body),
            _utf8(body),
        )
        if reply != 1:
            raise SessionLost("redis: the claim is gone, or was changed by someone else")
        return claim._replace(body=body)

    async def withdraw(self, session: str, roster: str, id: str) -> None:
        prefix = self._prefix
        name = _utf8(roster)
        await self._wire.run(
            WITHDRAW, 2, prefix + b"r:" + name, prefix + b"b:" + name, _member(session, id), prefix
        )

    async def read(self, session: str, roster: str, id: str) -> Roll:
        name = _utf8(roster)
        reply = await self._wire.run(
            READ,
            3,
            self._prefix + b"r:" + name,
            self._session_key(session),
            self._prefix + b"b:" + name,
            _member(session, id),
            self._prefix,
        )
        return self._roll(reply, roster, id, session)

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
        reply = await self._wire.run(LIVING, len(keys), *keys, self._prefix)
        return _is(reply, list)

    # -- wake-ups ----------------------------------------------------------------

    async def listen(self, interest: Interest, wake: Wake) -> None:
        await self._ear.listen(interest.id, wake)

    def unlisten(self, interest: Interest) -> None:
        self._ear.unlisten(interest.id)

    # -- inside --------------------------------------------------------------------

    def _session_key(self, session: str) -> bytes:
        return self._prefix + b"s:" + _utf8(session)

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


def _escape(namespace: str) -> str:
    """The namespace as it stands between the braces that make it a hash tag."""
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", namespace)


def _literal(text: bytes) -> bytes:
    """The text as a glob that matches nothing else."""
    return re.sub(rb"([*?\[\]\\^-])", rb"\\\1", text)


_UNSAFE = re.compile(r"[{}%\x00-\x1f\x7f]")
