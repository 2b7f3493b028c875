"""Waiting for a roster, or the record of the same name, to change.

A wake-up is a hint: whoever is woken reads, and compares with what it knew. So a change
is neither missed nor told twice, whatever became of the connection in between; what
came and went between two readings is not seen.
"""

from __future__ import annotations

from .._model import Interest
from .._session import Session
from ..errors import Unavailable

POLL_SECONDS = 0.5
"""How often to look where the backend sees a death, but tells nobody."""


class RosterWatch:
    """A watcher, from `open` to `close`. Needs no session, and outlives all of them."""

    def __init__(self, session: Session, roster: str) -> None:
        self._session = session
        self._signal = session.runtime.signal()
        self._interest = Interest("", roster, session.runtime.unique(), None, width=1, watch=True)
        self._listening = False
        self.woken = 0
        """How many wake-ups came since the last wait."""

    async def open(self) -> None:
        """Listen: what changes from now on will wake it."""
        self._session.check_open()
        self._session.watchers.add(self._signal)
        await self._listen()

    def close(self) -> None:
        """Listen no more. Never fails and never waits."""
        self._session.watchers.discard(self._signal)
        if self._listening:
            self._listening = False
            self._session.driver.unlisten(self._interest)

    def wake(self) -> None:
        """Have the waiter look now. From any thread."""
        self._signal.set()

    async def wait(self, until: float | None) -> None:
        """Return when something may have changed, or it is time to look, or `until` has come.

        Raises `ClosedError` if the coordinator was closed.
        """
        session = self._session
        session.check_open()
        if not self._listening:
            await self._listen()
        look = session.now() + self._nap()
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

    async def _listen(self) -> None:
        try:
            await self._session.driver.listen(self._interest, self._woken)
        except Unavailable:
            return  # no push for now: the bounded look does, and tries again
        self._listening = True

    def _woken(self) -> None:
        self.woken += 1
        self._signal.set()
