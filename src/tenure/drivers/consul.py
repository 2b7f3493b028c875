"""The roster on Consul: a session is Consul's own, a claim a key that is locked by it.

A roster's order and its tokens are the creation indexes of its claims' keys, which are
positions in the servers' log. When a session ends, Consul deletes what it has locked. To claim
is one transaction, which also reads the roster; a waiter asks Consul to answer when the key of
its predecessor has changed.

Whoever enters a claim writes the roster's gate, a key that says nothing but when it was
written. A conditional claim is entered only if the gate was not written since its driver looked,
or since a claim of its own was alone there.

A claim whose answer stayed out may still be on its way when it is withdrawn. Such a withdrawal
writes the session's key, and claims are entered only if that was not written since the driver
last did; so the late one comes to nothing.
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
    OutcomeUnknown,
    ProtocolError,
    SessionLost,
    TenureError,
    Unavailable,
)
from ..wires import consul as wires
from ..wires.consul import Answer, ConsulWire, Entry, Refused
from ._consul_examine import check_ttl, examine, server
from ._consul_keys import (
    SHARED,
    Keys,
    Place,
    Session,
    Stand,
    ahead,
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

_RACES = 16
"""How often a conditional claim starts over because others claimed in between."""
_KNOWN_EMPTY = 4096
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
        self._sessions: dict[str, Session] = {}
        self._places: dict[str, Place] = {}
        self._empty: dict[str, int] = {}
        """Of rosters where an own claim was alone that has left: when the gate was written."""
        self._wire: ConsulWire | None = None
        self._agent: dict[str, Any] | None = None
        """What the agent said when it was asked first, for whoever wants to know."""
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
        self._sessions[session] = Session(owner)
        return session

    async def renew(self, session: str) -> None:
        if not await self._connected().renew_session(session):
            raise SessionLost(f"consul: the session {session} has expired or was destroyed")

    async def end(self, session: str) -> None:
        wire = self._connected()
        if self._delay:
            # Else what is left in good order would be delayed, too.
            keys = [each.key for each in self._places.values() if each.session == session]
            keys.append(self._keys.of_session(session))
            for at in range(0, len(keys), _OPERATIONS_MAX):
                await wire.txn([wires.delete(key) for key in keys[at : at + _OPERATIONS_MAX]])
        await wire.end_session(session)
        self._sessions.pop(session, None)
        for id in [id for id, place in self._places.items() if place.session == session]:
            self._places.pop(id, None)

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
        place = self._places.get(id)
        if place is None:
            key = self._keys.of_claim(roster, id, bool(body))
            place = self._places[id] = Place(session, roster, key, shared)
        try:
            if width is None:
                found = await self._enter(place, body, None)
                assert found is not None
            else:
                found = await self._enter_among(place, body, width)
        except BaseException as error:
            if not _is_answer(error):
                place.sure = False
            elif place.sure and not place.token:
                self._places.pop(id, None)
            raise
        if found.mine is None and place.sure:
            self._places.pop(id, None)
        return found

    async def _enter_among(self, place: Place, body: str, width: int) -> Roll:
        """Claim if fewer than `width` have: by what is known, or after a look."""
        roster, wire = place.roster, self._connected()
        gate, prefix = self._keys.of_gate(roster), self._keys.of_roster(roster)
        guess = self._empty.pop(roster, None)
        if guess is not None:
            entered = await self._enter(place, body, guess)
            if entered is not None:
                return entered
        for _ in range(_RACES):
            found = await wire.trees(gate, prefix)
            written = next((each.modified for each in found if each.key == gate), 0)
            claims = wires.in_order([each for each in found if each.key != gate])
            entries = await self._without_dead(place.session, claims)
            stand = find(entries, place.key)
            if stand.entry is not None:
                place.token = stand.entry.created
                return self._stands(place, entries, stand, 0)
            if len(ahead(entries, place.shared)) >= width:
                if place.session not in self._sessions:
                    raise SessionLost(f"consul: the session {place.session} has ended")
                return roll(roster, entries, stand, place.shared)
            entered = await self._enter(place, body, written, entries)
            if entered is not None:
                return entered
        raise Unavailable("consul: too many others claimed at the same time")

    async def _enter(
        self, place: Place, body: str, written: int | None, others: Sequence[Entry] = ()
    ) -> Roll | None:
        """Put the claim; with `written`, only if the gate was last written then, else None.

        Then the `others` are those that were there at that time.
        """
        session, roster, key = place.session, place.roster, place.key
        gate = self._keys.of_gate(roster)
        session_key = self._keys.of_session(session)
        public = bool(body) and written is None  # it is there to be read, and waits for nobody
        known = self._sessions.get(session)
        if known is None:
            raise SessionLost(f"consul: the session {session} has ended")
        text, mark = value(known.owner, body, round(self.runtime.wall(), 3)), key.encode()
        for _ in range(_RACES):
            epoch = known.epoch
            alive = wires.unchanged(session_key, epoch) if epoch else wires.not_there(session_key)
            operations = [
                wires.not_there(key),
                alive,
                # Consul takes what changes nothing for no write, so the claim's name is in it.
                wires.put(gate, mark) if written is None else wires.put_if(gate, written, mark),
                wires.lock(key, session, text, SHARED if place.shared else 0),
            ]
            if written is None and not public:
                operations.append(wires.tree(self._keys.of_roster(roster)))
            outcome = await self._connected().txn(operations)
            if not isinstance(outcome, Refused):
                break
            if 0 in outcome.reasons:
                return await self._found(place)
            if 1 in outcome.reasons:  # a withdrawal has written it meanwhile
                if known.epoch == epoch:
                    await self._learn_epoch(session, known)
            elif written is not None and 2 in outcome.reasons:
                return None
            else:
                raise BackendError(f"consul: a claim was refused: {outcome.reasons}")
        else:
            raise Unavailable("consul: too many others withdrew at the same time")
        at = next((at for at, each in enumerate(outcome) if each.key == key), None)
        if at is None:
            raise ProtocolError("consul: a transaction has other results than operations")
        entered = outcome[at]
        token = place.token = entered.created
        mine = Claim(roster, claim_id(entered), session, token, known.owner, body, place.shared)
        if public:
            return Roll((), mine)
        if written is None:
            entries = await self._without_dead(session, wires.in_order(outcome[at + 1 :]))
        else:
            entries = [*others, entered._replace(value=wires.encoded(text))]
        place.alone = len(entries) == 1
        if place.alone:
            return Roll((mine,), mine)
        return self._stands(place, entries, find(entries, key), token)

    async def _learn_epoch(self, session: str, known: Session) -> None:
        entry = await self._connected().get(self._keys.of_session(session))
        if entry is None:
            raise SessionLost(f"consul: the session {session} has expired or was destroyed")
        known.epoch = max(known.epoch, entry.modified)

    async def _found(self, place: Place) -> Roll:
        """The roll as seen from an own claim that turned out to be there already."""
        found = await self._connected().tree(self._keys.of_roster(place.roster))
        entries = await self._without_dead(place.session, found.entries)
        stand = find(entries, place.key)
        if stand.entry is not None:
            place.token = stand.entry.created
        return self._stands(place, entries, stand, found.version)

    def _stands(self, place: Place, entries: Sequence[Entry], stand: Stand, index: int) -> Roll:
        """Keep in mind where a claim was found to stand, and make the roll of it."""
        place.index = index
        place.before = stand.ahead[-1] if stand.ahead else None
        place.ahead = frozenset(each.key for each in stand.ahead)
        return roll(place.roster, entries, stand, place.shared)

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        found = await self._connected().tree(self._keys.of_roster(roster))
        entries = await self._without_dead(session, found.entries)
        place = self._places.get(id)
        if place is not None:
            return self._stands(place, entries, find(entries, place.key), found.version)
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

    async def _without_dead(self, session: str, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Remove the claims of sessions that are over, where Consul has left them.

        It does if they were begun with a lock-delay. To lock a key is what the delay forbids,
        so as long as it lasts a dead claim stays, and counts.
        """
        if all(each.session for each in entries):
            return entries
        left = []
        for each in entries:
            if not each.session and session:
                lost = self._keys.of_session(claim_id(each).rpartition(".")[0])
                operations = [wires.delete(each.key), wires.delete(lost)]
                if "/q/" in each.key:
                    operations.insert(0, wires.lock(each.key, session))
                if not isinstance(await self._connected().txn(operations), Refused):
                    continue
            left.append(each)
        return left

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
        place = self._places.get(claim.id)
        keys = {self._keys.of_claim(claim.roster, claim.id, public) for public in (True, False)}
        keys = keys if place is None else {place.key}
        found = await self._connected().trees(*keys)  # also of keys that go on longer
        return next((each for each in found if each.key in keys), None)

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        place, wire = self._places.get(id), self._connected()
        if place is None:  # somebody else's, or it was withdrawn before, most likely
            keys = [self._keys.of_claim(roster, id, public) for public in (True, False)]
            await wire.txn([wires.delete(key) for key in keys])
            return
        known = self._sessions.get(session)
        if place.sure or known is None:
            try:
                await wire.delete(place.key)
            except BaseException as error:
                if not _is_answer(error):
                    place.sure = False
                raise
            if place.alone:
                self._left_empty(roster, place.token)
        else:
            unique = self.runtime.unique().encode()
            epoch = wires.lock(self._keys.of_session(session), session, unique)
            # Without the session, nothing that is still under way can be entered.
            with suppress(SessionLost):
                outcome = await wire.txn([wires.delete(place.key), epoch])
                if isinstance(outcome, Refused):
                    raise BackendError(f"consul: a withdrawal was refused: {outcome.reasons}")
                known.epoch = max(known.epoch, outcome[-1].modified)
        self._places.pop(id, None)

    def _left_empty(self, roster: str, written: int) -> None:
        if len(self._empty) >= _KNOWN_EMPTY:
            self._empty.clear()
        self._empty[roster] = written

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
        place = self._places.get(interest.id)
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


def _is_answer(error: BaseException) -> bool:
    """Whether the server has said no, or nothing was asked: then nothing is on its way."""
    return isinstance(error, TenureError) and not isinstance(error, (OutcomeUnknown, ProtocolError))
