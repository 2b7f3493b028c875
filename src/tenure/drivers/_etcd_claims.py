"""Claims on etcd: how they are entered, found and withdrawn.

A session has a key too, `/tenure/<namespace>//<session>`, and a claim is entered only
if that key was not written since the driver last did. A claim whose answer stayed out
may still be on its way when it is withdrawn; such a withdrawal writes the session's
key anew, so that the claim comes to nothing whenever it arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from .._model import Claim, Roll
from .._runtime.base import Runtime
from ..errors import (
    AuthenticationFailed,
    OutcomeUnknown,
    SessionLost,
    StorageError,
    Unavailable,
)
from ..wires._etcd_api import Created, Delete, Entry, Get, Operation, Put, Unchanged, Wire
from ._etcd_keys import Keys, Place, Places, Standing, claim, value

_RACES = 16
"""How often a conditional claim starts over because others claimed in between."""


class Session(NamedTuple):
    """An own session: its owner, and the revision at which its key was last written."""

    owner: str
    epoch: int


class Claims:
    """The claims of one driver's sessions, and where they were found to stand."""

    def __init__(self, runtime: Runtime, keys: Keys, wire: Callable[[], Wire]) -> None:
        self._runtime = runtime
        self._keys = keys
        self._wire = wire
        self.places = Places(runtime, keys)
        self.sessions: dict[str, Session] = {}
        """The sessions begun here that have not been ended."""

    async def enter(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool,
    ) -> Roll:
        """See `Driver.claim`."""
        place = self.places.take(session, roster, id, shared)
        try:
            if width is None or width == 1:
                newest = None if width is None else 0
                roll = await self._put(place, id, body, newest)
            else:
                roll = await self._put_among(place, id, body, width)
        except BaseException as error:
            if not _is_answer(error):
                place.sure = False
            elif place.sure and not place.token:
                self.places.drop(id)
            raise
        if roll.mine is None and place.sure:
            self.places.drop(id)
        return roll

    async def _put_among(self, place: Place, id: str, body: str, width: int) -> Roll:
        """Claim if fewer than `width` have; etcd compares no counts, so look first."""
        roster = place.roster
        rivals = self._keys.rivals_of(roster, place.shared)
        gets = (
            Get(place.key),
            Get(*self._keys.of_roster(roster), 1, "oldest"),
            Get(*rivals, 1, "newest", keys_only=True),
        )
        for _ in range(_RACES):
            outcome = await self._wire().txn((), gets)
            own, first, last = outcome.found
            if own:
                place.token = own[0].created
                return await self._look(place, id)
            if last.size >= width:
                return Roll((claim(roster, first[0]),), None, last.size)
            roll = await self._put(place, id, body, last[0].created if last else 0)
            if roll.mine is not None or roll.rank >= width:
                return roll
        raise Unavailable("etcd: too many others claimed at the same time")

    async def _put(self, place: Place, id: str, body: str, newest: int | None) -> Roll:
        """Put the claim; with `newest`, only if no rival was created after that revision."""
        session, roster, key, shared = place.session, place.roster, place.key, place.shared
        known = self.sessions.get(session)
        if known is None:
            raise SessionLost(f"etcd: the session {session} has ended")
        rivals = self._keys.rivals_of(roster, shared)
        session_key = self._keys.of_session(session)
        free = [] if newest == 0 and not shared else [Created(key)]
        if newest is not None:
            free.append(Created(*rivals, newest))
        head = Get(*self._keys.of_roster(roster), 1, "oldest")
        text = value(id, known.owner, body, round(self._runtime.wall(), 3))
        then: list[Operation] = [Put(key, text, int(session, 16))]
        alone = bool(body) and newest is None  # it is there to be read, and waits for nobody
        if not alone and (newest != 0 or shared):  # else the claim can only be the first
            then += (head, Get(*rivals, 1 if shared else 2, "newest"))
        otherwise = [Get(key), head, Get(session_key)]
        if shared:
            otherwise.append(Get(*rivals, 1, keys_only=True))
        wire = self._wire()
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

    async def withdraw(self, session: str, roster: str, id: str) -> None:
        """See `Driver.withdraw`."""
        place = self.places.get(id)
        if place is None:
            await self._withdraw_unknown(session, roster, id)
            return
        known = self.sessions.get(session)
        if place.sure or known is None:
            try:
                await self._wire().delete(place.key)
            except BaseException as error:
                if not _is_answer(error):
                    place.sure = False
                raise
        else:
            put = Put(self._keys.of_session(session), known.owner.encode(), int(session, 16))
            # Without the lease, nothing that is still under way can be put.
            with suppress(SessionLost):
                outcome = await self._wire().txn((), (Delete(place.key), put))
                self.sessions[session] = known._replace(epoch=outcome.revision)
        self.places.drop(id)

    async def _withdraw_unknown(self, session: str, roster: str, id: str) -> None:
        """Withdraw what was withdrawn before, most likely: this driver knows no such claim."""
        entry = await self.find(roster, id)
        if entry is not None and entry.lease == int(session, 16):
            await self._wire().txn((Unchanged(entry.key, entry.modified),), (Delete(entry.key),))

    async def read(self, roster: str, id: str) -> Roll:
        """See `Driver.read`."""
        place = self.places.get(id)
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
        outcome = await self._wire().txn(
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
        found = await self._wire().get(Get(start, end, 0 if id else 1, "oldest"))
        claims = [claim(roster, each) for each in found]
        head = tuple(claims[:1])
        for index, each in enumerate(claims):
            if id and each.id == id:
                ahead = [other for other in claims[:index] if not (each.shared and other.shared)]
                return Roll(head, each, len(ahead), ahead[-1].id if ahead else None)
        return Roll(head, None, found.size)

    async def find(self, roster: str, id: str) -> Entry | None:
        """The entry of a claim: by its key if it is known, else by its id."""
        place = self.places.get(id)
        start, end = self._keys.of_roster(roster)
        get = Get(start, end) if place is None else Get(place.key)
        for entry in await self._wire().get(get):
            if claim(roster, entry).id == id:
                return entry
        return None


def _is_answer(error: BaseException) -> bool:
    """Whether the request that failed so was certainly not carried out, nor ever will be."""
    if isinstance(error, Unavailable):
        return not isinstance(error, OutcomeUnknown)
    return isinstance(error, (AuthenticationFailed, SessionLost, StorageError))
