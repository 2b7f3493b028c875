"""A lease that shows itself: a lock, and while it is held a claim with a body in a roster.

Group members and leaders are such leases. The lock keeps a second one away, and is the
backend's own where that has one; the claim, the post, is what everybody can read. Both
die with the session.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from .._lease import BaseLease
from .._model import Claim
from ..errors import BackendError, LeaseLost, SessionLost, Unavailable
from .lock import LockRecipe

AMENDS_MAX = 5
"""Tries at one rewriting, each after a look at what is shown by then."""


class PostedLease(BaseLease):
    """A lease with a post, which is taken down before the lock is released."""

    __slots__ = ("_claim", "_claim_unsure", "_writing")

    def __init__(self, *args: Any) -> None:
        self._claim: Claim | None = None
        self._claim_unsure = False  # whether a request to enter it may yet arrive
        super().__init__(*args)
        self._writing = self._session.runtime.mutex()

    async def _put_up(self, roster: str, body: str) -> None:
        """Show it. If that fails, the lock is released."""
        session, life = self._session, self._life
        driver, id = session.driver, life.next_id()
        if self._claim is not None and self._claim_unsure:
            session.owe(life, roster, self._claim.id)  # what it was before may yet arrive
        try:
            try:
                roll = await driver.claim(life.id, roster, id, body, None)
            except ConnectionError:
                self._claim_unsure = True
                roll = await session.retry(
                    life,
                    lambda: driver.claim(life.id, roster, id, body, None),
                    None,
                    session.ttl / 3,
                )
            if roll.mine is None:
                raise SessionLost("the claim vanished as soon as it was entered")
            self._claim = roll.mine
        except BaseException as error:
            session.owe(life, roster, id)
            if isinstance(error, SessionLost):
                session.lose(life, str(error))
            await session.runtime.finish(self.release_at_close())
            raise

    async def _rewrite(self, body: str) -> None:
        """Show something else. `LeaseLost` if it is not held any more."""
        async with self._writing:
            self.check()
            claim = self._claim
            if claim is None:
                raise self._loss()  # it is being released
            try:
                self._claim = await self._amend(claim, body)
            except SessionLost as error:
                await self._removed(error)
                raise self._loss() from error

    async def _amend(self, claim: Claim, body: str) -> Claim:
        session, life = self._session, self._life
        driver, budget = session.driver, session.ttl / 3
        for _ in range(AMENDS_MAX):
            amend = partial(driver.amend, claim, body)
            try:
                return await session.retry(life, amend, None, budget)
            except SessionLost as error:
                if life.reason is not None:
                    raise
                lost = error
            # Or an earlier rewriting, given up on, was carried out after all: look.
            look = partial(driver.read, life.id, claim.roster, claim.id)
            roll = await session.retry(life, look, None, budget)
            if roll.mine is None:
                raise lost
            claim = roll.mine
        raise Unavailable(f"what {self.name!r} shows is rewritten by somebody else")

    async def _removed(self, error: SessionLost) -> None:
        """It is not shown any more. Nobody else may write it: so the session is dead."""
        self._session.lose(self._life, str(error))

    async def _release(self) -> None:
        try:
            await self._take_down()
        finally:
            claim, self._claim = self._claim, None
            if claim is not None:  # cancelled before it was its turn to take it down
                self._session.owe(self._life, claim.roster, claim.id)
            await super()._release()

    async def _take_down(self) -> None:
        async with self._writing:
            claim, life, session = self._claim, self._life, self._session
            if claim is None or not self.held():
                return
            self._claim = None
            unsure = self._claim_unsure
            withdraw = partial(session.driver.withdraw, life.id, claim.roster, claim.id)
            try:
                try:
                    await withdraw()
                except ConnectionError:
                    # Once the lock is free, what is still shown would be taken for the truth.
                    await session.retry(life, withdraw, None, session.ttl / 3)
            except (BackendError, SessionLost):
                unsure = True  # the lock's own release will tell
            except BaseException:
                unsure = True
                raise
            finally:
                if unsure:
                    session.owe(life, claim.roster, claim.id)


P = TypeVar("P", bound=PostedLease)


class PostRecipe(Generic[P]):
    """A lock to be held, and the roster in which to show that it is."""

    __slots__ = ("lock", "roster")

    def __init__(self, lock: LockRecipe[P], roster: str) -> None:
        self.lock = lock
        self.roster = roster

    async def try_acquire(self, body: Callable[[P], str]) -> P | None:
        """Take it if it is free, and show what `body` makes of it."""
        lease = await self.lock.try_acquire()
        if lease is not None:
            try:
                await lease._put_up(self.roster, body(lease))
            except (SessionLost, LeaseLost) as error:
                raise Unavailable(f"the session was lost at once: {error}") from error
        return lease

    async def acquire(self, until: float | None, body: Callable[[P], str]) -> P | None:
        """Take it in turn, and show what `body` makes of it; None if the time came first."""
        while True:
            lease = await self.lock.acquire(until)
            if lease is None:
                return None
            try:
                await lease._put_up(self.roster, body(lease))
                return lease
            except (SessionLost, LeaseLost):
                continue  # lost before anybody saw it: queue again, in a new session
