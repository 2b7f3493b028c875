"""Claims on Consul: how they are entered, found and withdrawn.

Whoever enters a claim writes the roster's gate, a key that says nothing but when it was
written. A conditional claim is entered only if the gate was not written since its driver looked,
or since a claim of its own was alone there.

A claim whose answer stayed out may still be on its way when it is withdrawn. Such a withdrawal
writes the session's key, and claims are entered only if that was not written since the driver
last did; so the late one comes to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from .._model import Claim, Roll
from .._runtime.base import Runtime
from ..errors import (
    BackendError,
    OutcomeUnknown,
    ProtocolError,
    SessionLost,
    TenureError,
    Unavailable,
)
from ..wires import consul as wires
from ..wires.consul import ConsulWire, Entry, Refused
from ._consul_keys import SHARED, Keys, Place, Session, Stand, ahead, claim_id, find, roll, value

_RACES = 16
"""How often a conditional claim starts over because others claimed in between."""
_KNOWN_EMPTY = 4096


class Claims:
    """The claims of one driver's sessions, and where they were found to stand."""

    def __init__(self, keys: Keys, wire: Callable[[], ConsulWire], runtime: Runtime) -> None:
        self._keys = keys
        self._wire = wire
        self._runtime = runtime
        self.sessions: dict[str, Session] = {}
        """The sessions begun here that have not been ended."""
        self.places: dict[str, Place] = {}
        """By the claims' ids."""
        self._empty: dict[str, int] = {}
        """Of rosters where an own claim was alone that has left: when the gate was written."""

    def of_session(self, session: str) -> list[str]:
        """The keys of a session's claims."""
        return [each.key for each in self.places.values() if each.session == session]

    def forget(self, session: str) -> None:
        """The session was ended."""
        self.sessions.pop(session, None)
        for id in [id for id, place in self.places.items() if place.session == session]:
            self.places.pop(id, None)

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
        place = self.places.get(id)
        if place is None:
            key = self._keys.of_claim(roster, id, bool(body))
            place = self.places[id] = Place(session, roster, key, shared)
        try:
            if width is None:
                found = await self._put(place, body, None)
                assert found is not None
            else:
                found = await self._put_among(place, body, width)
        except BaseException as error:
            if not _is_answer(error):
                place.sure = False
            elif place.sure and not place.token:
                self.places.pop(id, None)
            raise
        if found.mine is None and place.sure:
            self.places.pop(id, None)
        return found

    async def _put_among(self, place: Place, body: str, width: int) -> Roll:
        """Claim if fewer than `width` have: by what is known, or after a look."""
        roster, wire = place.roster, self._wire()
        gate, prefix = self._keys.of_gate(roster), self._keys.of_roster(roster)
        guess = self._empty.pop(roster, None)
        if guess is not None:
            entered = await self._put(place, body, guess)
            if entered is not None:
                return entered
        for _ in range(_RACES):
            found = await wire.trees(gate, prefix)
            written = next((each.modified for each in found if each.key == gate), 0)
            claims = wires.in_order([each for each in found if each.key != gate])
            entries = await self.without_dead(place.session, claims)
            stand = find(entries, place.key)
            if stand.entry is not None:
                place.token = stand.entry.created
                return self.stands(place, entries, stand, 0)
            if len(ahead(entries, place.shared)) >= width:
                if place.session not in self.sessions:
                    raise SessionLost(f"consul: the session {place.session} has ended")
                return roll(roster, entries, stand, place.shared)
            entered = await self._put(place, body, written, entries)
            if entered is not None:
                return entered
        raise Unavailable("consul: too many others claimed at the same time")

    async def _put(
        self, place: Place, body: str, written: int | None, others: Sequence[Entry] = ()
    ) -> Roll | None:
        """Put the claim; with `written`, only if the gate was last written then, else None.

        Then the `others` are those that were there at that time.
        """
        session, roster, key = place.session, place.roster, place.key
        gate = self._keys.of_gate(roster)
        session_key = self._keys.of_session(session)
        public = bool(body) and written is None  # it is there to be read, and waits for nobody
        known = self.sessions.get(session)
        if known is None:
            raise SessionLost(f"consul: the session {session} has ended")
        text, mark = value(known.owner, body, round(self._runtime.wall(), 3)), key.encode()
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
            outcome = await self._wire().txn(operations)
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
            entries = await self.without_dead(session, wires.in_order(outcome[at + 1 :]))
        else:
            entries = [*others, entered._replace(value=wires.encoded(text))]
        place.alone = len(entries) == 1
        if place.alone:
            return Roll((mine,), mine)
        return self.stands(place, entries, find(entries, key), token)

    async def _learn_epoch(self, session: str, known: Session) -> None:
        entry = await self._wire().get(self._keys.of_session(session))
        if entry is None:
            raise SessionLost(f"consul: the session {session} has expired or was destroyed")
        known.epoch = max(known.epoch, entry.modified)

    async def _found(self, place: Place) -> Roll:
        """The roll as seen from an own claim that turned out to be there already."""
        found = await self._wire().tree(self._keys.of_roster(place.roster))
        entries = await self.without_dead(place.session, found.entries)
        stand = find(entries, place.key)
        if stand.entry is not None:
            place.token = stand.entry.created
        return self.stands(place, entries, stand, found.version)

    def stands(self, place: Place, entries: Sequence[Entry], stand: Stand, index: int) -> Roll:
        """Keep in mind where a claim was found to stand, and make the roll of it."""
        place.index = index
        place.before = stand.ahead[-1] if stand.ahead else None
        place.ahead = frozenset(each.key for each in stand.ahead)
        return roll(place.roster, entries, stand, place.shared)

    async def without_dead(self, session: str, entries: Sequence[Entry]) -> Sequence[Entry]:
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
                if not isinstance(await self._wire().txn(operations), Refused):
                    continue
            left.append(each)
        return left

    async def withdraw(self, session: str, roster: str, id: str) -> None:
        """See `Driver.withdraw`."""
        place, wire = self.places.get(id), self._wire()
        if place is None:  # somebody else's, or it was withdrawn before, most likely
            keys = [self._keys.of_claim(roster, id, public) for public in (True, False)]
            await wire.txn([wires.delete(key) for key in keys])
            return
        known = self.sessions.get(session)
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
            unique = self._runtime.unique().encode()
            epoch = wires.lock(self._keys.of_session(session), session, unique)
            # Without the session, nothing that is still under way can be entered.
            with suppress(SessionLost):
                outcome = await wire.txn([wires.delete(place.key), epoch])
                if isinstance(outcome, Refused):
                    raise BackendError(f"consul: a withdrawal was refused: {outcome.reasons}")
                known.epoch = max(known.epoch, outcome[-1].modified)
        self.places.pop(id, None)

    def _left_empty(self, roster: str, written: int) -> None:
        if len(self._empty) >= _KNOWN_EMPTY:
            self._empty.clear()
        self._empty[roster] = written


def _is_answer(error: BaseException) -> bool:
    """Whether the server has said no, or nothing was asked: then nothing is on its way."""
    return isinstance(error, TenureError) and not isinstance(error, (OutcomeUnknown, ProtocolError))
