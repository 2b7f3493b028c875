"""The roster on etcd: a session is a lease, a claim a key tied to it.

Keys are `/tenure/<namespace>/<roster>/<session>.<slot>`, names percent-encoded, so that
no name reaches into another's; the claim's id is in the value. A roster's order and
its tokens are the keys' creation revisions. To claim is one transaction, which also
reads the head of the roster and one's predecessor; a waiter watches the key of that
predecessor alone, unless more than one may be granted at a time.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

from .._model import Claim, Finding, Interest, Roll, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import (
    OutcomeUnknown,
    SessionLost,
    Unavailable,
)
from ..wires._etcd_api import (
    Get,
    Put,
    Unchanged,
    Watch,
    Wire,
)
from ._etcd_claims import Claims, Session
from ._etcd_keys import Keys, claim, record, value
from ._etcd_lines import Anything, Line, Predecessor, Public, Purpose
from ._etcd_records import KeyRecords
from ._etcd_watches import Watches
from .base import Driver, Lost, Wake


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
        self._claims = Claims(runtime, self._keys, self._connected)
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
        self._claims.sessions[session] = Session(owner, outcome.revision)
        return session

    async def renew(self, session: str) -> None:
        if await self._connected().lease_keepalive(int(session, 16)) <= 0:
            raise SessionLost(f"etcd: the lease {session} has expired or was revoked")

    async def end(self, session: str) -> None:
        await self._connected().lease_revoke(int(session, 16))
        self._claims.sessions.pop(session, None)
        self._claims.places.end(session)

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
        return await self._claims.enter(session, roster, id, body, width, shared)

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        await self._claims.withdraw(session, roster, id)

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        return await self._claims.read(roster, id)

    async def amend(self, claim: Claim, body: str) -> Claim:
        entry = await self._claims.find(claim.roster, claim.id)
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
        place = self._claims.places.get(claim.id)
        if place is not None:
            place.mine = claim._replace(body=body)
        return claim._replace(body=body)

    async def census(self, roster: str) -> tuple[Claim, ...]:
        found = await self._connected().get(Get(*self._keys.of_roster(roster), 0, "oldest"))
        return tuple(claim(roster, each) for each in found)

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
        place = self._claims.places.get(interest.id)
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
