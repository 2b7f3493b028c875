"""Waiting for a roster, or the record of the same name, to change.

A wake-up is a hint: whoever is woken reads, and compares with what it knew. So a change
is neither missed nor told twice, whatever became of the connection in between; what
came and went between two readings is not seen.
"""

from __future__ import annotations

from .._model import Interest
from .._session import Session
from ..errors import Unavailable
from .census import enter, leave

POLL_SECONDS = 0.5
"""How often to look where the backend sees a death, but tells nobody."""


class RosterWatch:
    """A watcher, from `open` to `close`. Needs no session, and outlives all of them."""

    def __init__(self, session: Session, roster: str) -> None:
        self._session = session
        self._roster = roster
        self._signal = session.runtime.signal()
        self._ear: _Ear | None = None
        self.woken = 0
        """How many wake-ups came since the last wait."""
        self.since: int | None = None
        """How many readings of the roster had begun at the last wake-up; None without one."""

    async def open(self) -> None:
        """Listen: what changes from now on will wake it."""
        session = self._session
        session.check_open()
        session.watchers.add(self._signal)
        with session.shared:
            ear: _Ear | None = session.ears.get(self._roster)
            if ear is None:
                ear = session.ears[self._roster] = _Ear(session, self._roster)
            ear.watches[self] = None
        self._ear = ear
        await ear.listen()

    def close(self) -> None:
        """Listen no more. Never fails and never waits."""
        session, ear = self._session, self._ear
        session.watchers.discard(self._signal)
        if ear is None:
            return
        self._ear = None
        with session.shared:
            ear.watches.pop(self, None)
            if not ear.watches:
                session.ears.pop(self._roster, None)
                ear.end()
        ear.rest()

    def wake(self) -> None:
        """Have the waiter look now. From any thread."""
        self._signal.set()

    def told(self, since: int) -> None:
        """A wake-up has come."""
        self.since = since
        self.woken += 1
        self._signal.set()

    async def wait(self, until: float | None) -> None:
        """Return when something may have changed, or it is time to look, or `until` has come.

        Raises `ClosedError` if the coordinator was closed.
        """
        session, ear = self._session, self._ear
        session.check_open()
        if ear is not None and not ear.listening:
            await ear.listen()
        look = session.now() + self._nap()
        self.since = None
        await self._signal.wait(look if until is None else min(look, until))
        self._signal.clear()
        self.woken = 0
        session.check_open()

    def _nap(self) -> float:
        # A session that dies by its TTL wakes nobody on most backends, so somebody must look;
        # a quarter of the TTL is little against the TTL that it took to die.
        session, traits = self._session, self._session.driver.traits
        least = POLL_SECONDS if traits.frees_on_death else session.ttl / 4
        if not traits.push:
            least = 0.0
        return max(traits.poll, least) * (0.75 + session.runtime.random() / 2)


class _Ear:
    """What all watchers of one roster in one coordinator share: the backend is asked once."""

    __slots__ = ("_ended", "_interest", "_reading", "_session", "_turn", "listening", "watches")

    def __init__(self, session: Session, roster: str) -> None:
        self._session = session
        self._interest = Interest("", roster, session.runtime.unique(), None, watch=True)
        self._turn = session.runtime.mutex()
        self._reading = enter(session, roster)
        self._ended = 0
        self.listening = False
        self.watches: dict[RosterWatch, None] = {}

    async def listen(self) -> None:
        """Listen, unless it does. Of those who try at the same time, one does, for all."""
        ended = self._ended
        async with self._turn:
            if self.listening or self._ended > ended:
                return
            try:
                await self._session.driver.listen(self._interest, self._woken)
                self.listening = True
            except Unavailable:
                pass  # no push for now: the bounded look does, and tries again
            finally:
                self._ended += 1
        self.rest()

    def rest(self) -> None:
        """Listen no more if nobody is left."""
        with self._session.shared:
            over = self.listening and not self.watches
            if over:
                self.listening = False
        if over:
            self._session.driver.unlisten(self._interest)

    def end(self) -> None:
        """Nobody is left. The caller has `session.shared`."""
        leave(self._session, self._interest.roster, self._reading)

    def _woken(self) -> None:
        since = self._reading.begun
        for watch in tuple(self.watches):
            watch.told(since)
