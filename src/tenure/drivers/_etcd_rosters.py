"""The roster on etcd: a session is a lease, a claim a key tied to it.

Keys are `/tenure/<namespace>/<roster>/<session>.<slot>`, names percent-encoded, so that
no name reaches into another's; the claim's id is in the value. A roster's order and
its tokens are the keys' creation revisions. To claim is one transaction, which also
reads the head of the roster and one's predecessor; a waiter watches the key of that
predecessor alone, unless more than one may be granted at a time.

A session has a key too, `/tenure/<namespace>//<session>`, and a claim is entered only
if that key was not written since the driver last did. A claim whose answer stayed out
may still be on its way when it is withdrawn; such a withdrawal writes the session's
key anew, so that the claim comes to nothing whenever it arrives.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from .._model import Claim, Finding, Interest, Roll, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import (
    AuthenticationFailed,
    OutcomeUnknown,
    SessionLost,
    StorageError,
    Unavailable,
)
from ..wires._etcd_api import (
    Created,
    Delete,
    Entry,
    Get,
    Operation,
    Put,
    Unchanged,
    Watch,
    Wire,
)
from ._etcd_keys import Keys, Place, Places, Standing, claim, record, value
from ._etcd_lines import Anything, Line, Predecessor, Public, Purpose
from ._etcd_records import KeyRecords
from ._etcd_watches import Watches
from .base import Driver, Lost, Wake

_RACES = 16
"""How often a conditional claim starts over because others claimed in between."""


class _Session(NamedTuple):
    """An own session: its owner, and the revision at which its key was last written."""

    owner: str
    epoch: int


class EtcdRosters(Driver):
    """Tenure over etcd's v3 API, whatever wire carries it."""

    traits = Traits(
        scope="hosts",
        shared=True,
        fair=True,
        frees_on_death=False,
        durable_tokens=True,
        durable_claims=True,
        push=True,
        poll=0.5,
        # By default etcd grants no lease shorter than one and a half election timeouts,
        # rounded up to seconds.
        min_ttl=2.0,
    )

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._keys = Keys(namespace)
        self._places = Places(runtime, self._keys)
        self._sessions: dict[str, _Session] = {}
        self._unsure_lease = 0
        self._wire: Wire | None = None
        self._watches = Watches(runtime, self._connected, self.patience)
        self.records = KeyRecords(self._keys, self._connected)

    # -- the connection ----------------------------------------------------

    @abstractmethod
    async def _make_wire(self) -> Wire:
        """A wire that is not open yet."""

    async def open(self) -> None:
        wire = await self._make_wire()
        try:
            await wire.open()
            await wire.get(Get(*self._keys.beginning_with(""), 1, keys_only=True))
        except BaseException:
            await wire.close()
            raise
        self._wire = wire

    async def close(self) -> None:
        await self._watches.close()
        if self._wire is not None:
            await self._wire.close()

    def abandon(self) -> None:
        self._watches.abandon()
        if self._wire is not None:
            self._wire.abandon()

    async def examine(self) -> Sequence[Finding]:
        from ._etcd_examine import examine

        return await examine(self._connected(), self.url, self.runtime, self.patience)

    async def server(self) -> Server:
        """The member that answers. How many there are, it would take another request to learn."""
        wire = self._connected()
        return Server("etcd", await wire.version(), "", *wire.client)

    def _connected(self) -> Wire:
        if self._wire is None:
            raise Unavailable(f"{self.url.scheme}: the driver is not open")
        return self._wire

    # -- the session -------------------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        # After a lost answer the same lease is asked for again, so that none is left over.
        lease, self._unsure_lease = self._unsure_lease or self._new_lease(), 0
        session = f"{lease:x}"
        wire = self._connected()
        try:
            if not await wire.lease_grant(lease, math.ceil(self.ttl)):
                await self.renew(session)
            key = self._keys.of_session(session)
            outcome = await wire.txn((), (Put(key, owner.encode(), lease),))
        except OutcomeUnknown:
            self._unsure_lease = lease
            raise
        self._sessions[session] = _Session(owner, outcome.revision)
        return session

    async def renew(self, session: str) -> None:
        if await self._connected().lease_keepalive(int(session, 16)) <= 0:
            raise SessionLost(f"etcd: the lease {session} has expired or was revoked")

    async def end(self, session: str) -> None:
        await self._connected().lease_revoke(int(session, 16))
        self._sessions.pop(session, None)
        self._places.end(session)

    async def last_seen(self, session: str) -> float | None:
        try:
            lease = int(session, 16)
        except ValueError:
            return None
        return await self._connected().lease_age(lease) if 0 < lease < 1 << 63 else None

    def _new_lease(self) -> int:
        high = int(self.runtime.random() * (1 << 31))
        low = int(self.runtime.random() * (1 << 32))
        return (high << 32 | low) or 1

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
        place = self._places.take(session, roster, id, shared)
        try:
            if width is None or width == 1:
                newest = None if width is None else 0
                roll = await self._enter(place, id, body, newest)
            else:
                roll = await self._enter_among(place, id, body, width)
        except BaseException as error:
            if not _is_answer(error):
                place.sure = False
            elif place.sure and not place.token:
                self._places.drop(id)
            raise
        if roll.mine is None and place.sure:
            self._places.drop(id)
        return roll

    async def _enter_among(self, place: Place, id: str, body: str, width: int) -> Roll:
        """Claim if fewer than `width` have; etcd compares no counts, so look first."""
        roster = place.roster
        rivals = self._keys.rivals_of(roster, place.shared)
        gets = (
            Get(place.key),
            Get(*self._keys.of_roster(roster), 1, "oldest"),
            Get(*rivals, 1, "newest", keys_only=True),
        )
        for _ in range(_RACES):
            outcome = await self._connected().txn((), gets)
            own, first, last = outcome.found
            if own:
                place.token = own[0].created
                return await self._look(place, id)
            if last.size >= width:
                return Roll((claim(roster, first[0]),), None, last.size)
            roll = await self._enter(place, id, body, last[0].created if last else 0)
            if roll.mine is not None or roll.rank >= width:
                return roll
        raise Unavailable("etcd: too many others claimed at the same time")

    async def _enter(self, place: Place, id: str, body: str, newest: int | None) -> Roll:
        """Put the claim; with `newest`, only if no rival was created after that revision."""
        session, roster, key, shared = place.session, place.roster, place.key, place.shared
        known = self._sessions.get(session)
        if known is None:
            raise SessionLost(f"etcd: the session {session} has ended")
        rivals = self._keys.rivals_of(roster, shared)
        session_key = self._keys.of_session(session)
        free = [] if newest == 0 and not shared else [Created(key)]
        if newest is not None:
            free.append(Created(*rivals, newest))
        head = Get(*self._keys.of_roster(roster), 1, "oldest")
        text = value(id, known.owner, body, round(self.runtime.wall(), 3))
        then: list[Operation] = [Put(key, text, int(session, 16))]
        alone = bool(body) and newest is None  # it is there to be read, and waits for nobody
        if not alone and (newest != 0 or shared):  # else the claim can only be the first
            then += (head, Get(*rivals, 1 if shared else 2, "newest"))
        otherwise = [Get(key), head, Get(session_key)]
        if shared:
            otherwise.append(Get(*rivals, 1, keys_only=True))
        wire = self._connected()
        for _ in range(_RACES):
            outcome = await wire.txn((Unchanged(session_key, known.epoch), *free), then, otherwise)
            if outcome.succeeded:
                break
            own, first, life = outcome.found[:3]
            if own:
                place.token = own[0].created
                return await self._look(place, id)
            if not life:
                raise SessionLost(f"etcd: the lease {session} has expired or was revoked")
            epoch = life[0].modified
            if epoch == known.epoch:
                rank = outcome.found[-1].size if shared else first.size
                return Roll(tuple(claim(roster, each) for each in first), None, rank)
            known = known._replace(epoch=epoch)  # a withdrawal has written it meanwhile
        else:
            raise Unavailable("etcd: too many others withdrew at the same time")
        place.token = outcome.revision
        mine = Claim(roster, id, session, outcome.revision, known.owner, body, shared)
        if alone:
            place.mine = mine
            return Roll((), mine)
        if len(outcome.found) == 1:
            return self._stands(place, mine, mine, outcome.revision, 0, None)
        _, first, last = outcome.found
        rank = last.size if shared else last.size - 1
        before = last[0 if shared else 1] if rank else None
        return self._stands(place, mine, claim(roster, first[0]), outcome.revision, rank, before)

    async def amend(self, claim: Claim, body: str) -> Claim:
        entry = await self._find(claim.roster, claim.id)
        if entry is None or entry.created != claim.token:
            raise SessionLost(f"etcd: the claim {claim.id} is gone")
        found = record(entry.value)
        now = found.get("body")
        if now == body != claim.body:
            return claim._replace(body=body)  # an earlier attempt whose answer was lost
        if now != claim.body:
            raise SessionLost(f"etcd: the claim {claim.id} has another body by now")
        text = value(claim.id, str(found.get("owner", "")), body, found.get("since"))
        outcome = await self._connected().txn(
            (Unchanged(entry.key, entry.modified),), (Put(entry.key, text, entry.lease),)
        )
        if not outcome.succeeded:
            raise SessionLost(f"etcd: the claim {claim.id} was changed meanwhile")
        place = self._places.get(claim.id)
        if place is not None:
            place.mine = claim._replace(body=body)
        return claim._replace(body=body)

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        place = self._places.get(id)
        if place is None:
            await self._withdraw_unknown(session, roster, id)
            return
        known = self._sessions.get(session)
        if place.sure or known is None:
            try:
                await self._connected().delete(place.key)
            except BaseException as error:
                if not _is_answer(error):
                    place.sure = False
                raise
        else:
            put = Put(self._keys.of_session(session), known.owner.encode(), int(session, 16))
            # Without the lease, nothing that is still under way can be put.
            with suppress(SessionLost):
                outcome = await self._connected().txn((), (Delete(place.key), put))
                self._sessions[session] = known._replace(epoch=outcome.revision)
        self._places.drop(id)

    async def _withdraw_unknown(self, session: str, roster: str, id: str) -> None:
        """Withdraw what was withdrawn before, most likely: this driver knows no such claim."""
        entry = await self._find(roster, id)
        if entry is not None and entry.lease == int(session, 16):
            await self._connected().txn(
                (Unchanged(entry.key, entry.modified),), (Delete(entry.key),)
            )

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        place = self._places.get(id)
        if place is None or not place.token:
            return await self._survey(roster, id)
        if place.first and place.mine is not None:
            place.first = False  # what a watch has shown is good for one answer
            return Roll((place.mine,), place.mine)
        return await self._look(place, id)

    async def _look(self, place: Place, id: str) -> Roll:
        """Read the roll from an own claim whose token is known."""
        roster, token = place.roster, place.token
        rivals = self._keys.rivals_of(roster, place.shared)
        outcome = await self._connected().txn(
            (),
            (
                Get(*self._keys.of_roster(roster), 1, "oldest"),
                Get(place.key),
                Get(*rivals, 1, "newest", token - 1),
                # etcd does not count the keys before one's own without sending them.
                Get(*rivals, 0, "", token - 1, keys_only=True),
            ),
        )
        first, own, nearest, ahead = outcome.found
        if not own or own[0].created != token:
            place.forget()
            return Roll(tuple(claim(roster, each) for each in first), None, first.size)
        before = nearest[0] if nearest else None
        mine = claim(roster, own[0])
        head = claim(roster, first[0])
        return self._stands(place, mine, head, outcome.revision, len(ahead), before)

    def _stands(
        self, place: Place, mine: Claim, head: Claim, revision: int, rank: int, before: Entry | None
    ) -> Roll:
        """Keep in mind where a claim was found to stand, and make the roll of it."""
        place.mine = mine
        if before is None:
            place.standing = Standing(revision, rank, None, b"")
        else:
            nearest = claim(place.roster, before).id
            place.standing = Standing(revision, rank, nearest, before.key)
        return Roll((head,), mine, rank, place.standing.before)

    async def _survey(self, roster: str, id: str) -> Roll:
        """Read the roll for nobody, or from a claim that is not this driver's."""
        start, end = self._keys.of_roster(roster)
        found = await self._connected().get(Get(start, end, 0 if id else 1, "oldest"))
        claims = [claim(roster, each) for each in found]
        head = tuple(claims[:1])
        for index, each in enumerate(claims):
            if id and each.id == id:
                ahead = [other for other in claims[:index] if not (each.shared and other.shared)]
                return Roll(head, each, len(ahead), ahead[-1].id if ahead else None)
        return Roll(head, None, found.size)

    async def census(self, roster: str) -> tuple[Claim, ...]:
        found = await self._connected().get(Get(*self._keys.of_roster(roster), 0, "oldest"))
        return tuple(claim(roster, each) for each in found)

    async def _find(self, roster: str, id: str) -> Entry | None:
        """The entry of a claim: by its key if it is known, else by its id."""
        place = self._places.get(id)
        start, end = self._keys.of_roster(roster)
        get = Get(start, end) if place is None else Get(place.key)
        for entry in await self._connected().get(get):
            if claim(roster, entry).id == id:
                return entry
        return None

    async def rosters(self, prefix: str) -> Sequence[str]:
        get = Get(*self._keys.beginning_with(prefix), keys_only=True)
        found = await self._connected().get(get)
        return sorted({name for entry in found if (name := self._keys.roster_of(entry.key))})

    # -- wake-ups ----------------------------------------------------------

    async def listen(self, interest: Interest, wake: Wake) -> None:
        self._watches.add(interest, self._requests(interest), wake)

    def _requests(self, interest: Interest) -> list[tuple[Watch, Purpose]]:
        """The watches that an interest needs, and what for."""
        start, end = self._keys.of_roster(interest.roster)
        if interest.watch:
            record = self._keys.of_record(interest.roster)
            return [
                (Watch(0, record, b"", False), Public(every=True)),
                (Watch(0, start, end, False, before=True), Public()),
            ]
        place = self._places.get(interest.id)
        if place is None or interest.before is None or place.standing.before != interest.before:
            return [(Watch(0, start, end, interest.before is not None), Anything())]
        if interest.width > 1:
            return [(Watch(0, start, end, True, before=True), Line(place, interest.width))]
        before = place.standing.before_key
        if place.standing.rank > 1 or place.shared:
            return [(Watch(0, before, b"", True), Predecessor(place, own=False))]
        # Only one watch tells of both keys in the order in which they were removed: one of
        # all keys from this to that. Nobody but the next in line does so.
        least, most = sorted((before, place.key))
        return [(Watch(0, least, most + b"\0", True), Predecessor(place, own=True))]

    def unlisten(self, interest: Interest) -> None:
        self._watches.remove(interest)


def _is_answer(error: BaseException) -> bool:
    """Whether the request that failed so was certainly not carried out, nor ever will be."""
    if isinstance(error, Unavailable):
        return not isinstance(error, OutcomeUnknown)
    return isinstance(error, (AuthenticationFailed, SessionLost, StorageError))
