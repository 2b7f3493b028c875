"""The roster on Consul: a session is Consul's own, a claim a key that is locked by it.

A roster's order and its tokens are the creation indexes of its claims' keys, which are
positions in the servers' log. When a session ends, Consul deletes what it has locked. To claim
is one transaction, which also reads the roster; a waiter asks Consul to answer when the key of
its predecessor has changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from .._model import Claim, Finding, Interest, Roll, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import (
    BackendError,
    SessionLost,
    Unavailable,
)
from ..wires import consul as wires
from ..wires.consul import Answer, ConsulWire, Entry, Refused
from ._consul_claims import Claims
from ._consul_examine import check_ttl, examine, server
from ._consul_keys import (
    Keys,
    Session,
    Stand,
    claim,
    claim_id,
    find,
    record,
    roll,
    value,
)
from ._consul_polls import UNKNOWN, Gone, Line, Polls, Whatever
from ._consul_records import KeyRecords
from ._consul_url import check, lock_delay, settings
from .base import Driver, Lost, Wake

_OPERATIONS_MAX = 60
"""Consul takes 64 in one transaction, newer ones 128."""


class ConsulDriver(Driver):
    """Tenure over Consul's HTTP API, version 1.7 or newer."""

    traits = Traits(
        scope="hosts",
        shared=True,
        fair=True,
        frees_on_death=False,
        durable_tokens=True,
        durable_claims=True,
        push=True,
        poll=0.5,
        # The servers decide, by session_ttl_min, which is 10 s if nobody has changed it.
        min_ttl=1.0,
        # A session that is not renewed lives for two of its TTLs.
        linger=2.0,
    )

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        check(url)
        self._delay = lock_delay(url)
        self._keys = Keys(namespace)
        self._wire: ConsulWire | None = None
        self._agent: dict[str, Any] | None = None
        """What the agent said when it was asked first, for whoever wants to know."""
        self._claims = Claims(self._keys, self._connected, runtime)
        self._polls = Polls(runtime, self._connected, self.patience)
        self.records = KeyRecords(self._keys, self._connected, runtime)

    # -- the connection ----------------------------------------------------

    async def open(self) -> None:
        known = await self.runtime.blocking(lambda: settings(self.url, self.patience))
        wire = ConsulWire(known, self.runtime.flavour)
        try:
            await wire.open(self.runtime)
            await wire.get(f"{self._keys.root}probe")
            self._agent = await check_ttl(wire, self.ttl)
        except BaseException:
            await wire.close()
            raise
        self._wire = wire

    async def close(self) -> None:
        await self._polls.close()
        if self._wire is not None:
            await self._wire.close()

    def abandon(self) -> None:
        self._polls.abandon()
        if self._wire is not None:
            self._wire.abandon()

    async def examine(self) -> Sequence[Finding]:
        return await examine(self._connected(), self.ttl)

    async def server(self) -> Server:
        """The agent that answers, and the number of servers that it knows."""
        known, self._agent = self._agent, None
        return await server(self._connected(), known)

    def _connected(self) -> ConsulWire:
        if self._wire is None:
            raise Unavailable(f"{self.url.scheme}: the driver is not open")
        return self._wire

    # -- the session -------------------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        # What Consul does after a death: with a lock-delay the keys must stay for a while.
        behavior = "release" if self._delay else "delete"
        ttl, delay = (f"{math.ceil(each * 1000)}ms" for each in (self.ttl, self._delay))
        wire = self._connected()
        session = await wire.create_session(f"tenure {owner}"[:200], ttl, behavior, delay)
        self._claims.sessions[session] = Session(owner)
        return session

    async def renew(self, session: str) -> None:
        if not await self._connected().renew_session(session):
            raise SessionLost(f"consul: the session {session} has expired or was destroyed")

    async def end(self, session: str) -> None:
        wire = self._connected()
        if self._delay:
            # Else what is left in good order would be delayed, too.
            keys = [*self._claims.of_session(session), self._keys.of_session(session)]
            for at in range(0, len(keys), _OPERATIONS_MAX):
                await wire.txn([wires.delete(key) for key in keys[at : at + _OPERATIONS_MAX]])
        await wire.end_session(session)
        self._claims.forget(session)

    async def last_seen(self, session: str) -> float | None:
        # Consul tells no more of a session than that it lives.
        return 0.0 if await self._connected().session_exists(session) else None

    # -- the roster --------------------------------------------------------

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        return await self._claims.enter(session, roster, id, body, width, shared)

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        await self._claims.withdraw(session, roster, id)

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        found = await self._connected().tree(self._keys.of_roster(roster))
        entries = await self._claims.without_dead(session, found.entries)
        place = self._claims.places.get(id)
        if place is not None:
            return self._claims.stands(place, entries, find(entries, place.key), found.version)
        stand = Stand(None, ())
        for public in (True, False) if id else ():
            if stand.entry is None:
                stand = find(entries, self._keys.of_claim(roster, id, public))
        return roll(roster, entries, stand)

    async def census(self, roster: str) -> tuple[Claim, ...]:
        found = await self._connected().tree(self._keys.of_roster(roster))
        dead = [each for each in found.entries if not each.session and "/p/" in each.key]
        if dead:
            with suppress(BackendError):  # they are left out anyway
                deletes = [wires.delete_if(each.key, each.modified) for each in dead]
                await self._connected().txn(deletes[:_OPERATIONS_MAX])
        return tuple(claim(roster, each) for each in found.entries if each.session)

    async def amend(self, claim: Claim, body: str) -> Claim:
        wire, entry = self._connected(), await self._find(claim)
        if entry is None or entry.created != claim.token or not entry.session:
            raise SessionLost(f"consul: the claim {claim.id} is gone")
        now = record(entry)
        if now.get("body") == body != claim.body:
            return claim._replace(body=body)  # an earlier attempt whose answer was lost
        if now.get("body") != claim.body:
            raise SessionLost(f"consul: the claim {claim.id} has another body by now")
        text = value(str(now.get("owner", "")), body, now.get("since", 0))
        operations = [wires.put_if(entry.key, entry.modified, text, entry.flags)]
        if "/q/" in entry.key:
            # It is public now; watchers hear of what happens among those that always were.
            mark = self._keys.of_claim(claim.roster, claim.id, True)
            operations += [wires.put(mark), wires.delete(mark)]
        if isinstance(await wire.txn(operations), Refused):
            raise SessionLost(f"consul: the claim {claim.id} was changed meanwhile")
        return claim._replace(body=body)

    async def _find(self, claim: Claim) -> Entry | None:
        """The entry of a claim: by its key if it is known, else by its id."""
        place = self._claims.places.get(claim.id)
        keys = {self._keys.of_claim(claim.roster, claim.id, public) for public in (True, False)}
        keys = keys if place is None else {place.key}
        found = await self._connected().trees(*keys)  # also of keys that go on longer
        return next((each for each in found if each.key in keys), None)

    async def rosters(self, prefix: str) -> Sequence[str]:
        found = await self._connected().keys(self._keys.rosters(prefix), "/")
        return sorted(self._keys.name(each) for each in found)

    # -- wake-ups ----------------------------------------------------------

    async def listen(self, interest: Interest, wake: Wake) -> None:
        prefix = self._keys.of_roster(interest.roster)
        if interest.watch:
            questions = (f"{self._keys.of_record(interest.roster)}?", f"{prefix}p?keys&separator=/")
            known = [(text, await self._polls.known(text)) for text in questions]
            for text, answer in known:
                self._polls.add(interest, text, answer, Whatever(), wake)
            return
        place = self._claims.places.get(interest.id)
        before = None if place is None else place.before
        if place is None or before is None or claim_id(before) != interest.before:
            self._polls.add(interest, f"{prefix}?keys", UNKNOWN, Whatever(), wake)
        elif interest.width > 1:
            line = Whatever() if self._delay else Line(place, interest.width)
            answer = Answer(place.index, False)
            self._polls.add(interest, f"{prefix}?keys", answer, line, wake)
        else:
            answer = Answer(before.modified, False)
            self._polls.add(interest, f"{before.key}?", answer, Gone(), wake)

    def unlisten(self, interest: Interest) -> None:
        self._polls.remove(interest)
