"""Clients of the driver contract: what a case needs to call the verbs themselves."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import tenure

from ..._model import Claim, Interest, Roll
from ...drivers.base import Driver
from ._base import Env

PUSH_SECONDS_MAX = 5.0
"""How long a wake-up may take on a loaded machine, which is far more than it takes."""


class Party:
    """A session and its driver, without the recipes in between."""

    def __init__(self, env: Env, driver: Driver, session: str, owner: str) -> None:
        self._env = env
        self._serial = 0
        self.driver = driver
        self.session = session
        self.owner = owner

    @classmethod
    async def join(cls, env: Env, **options: Any) -> Party:
        """A session that is renewed until the case ends."""
        coordinator = await env.connect(**options)
        session = env.session_of(coordinator)
        life = await session.life()
        return cls(env, session.driver, life.id, coordinator.owner)

    async def ghost(self) -> Party:
        """Another session, on a connection of its own, that nobody ever renews."""
        known = self.driver
        driver = type(known)(known.url, known.runtime, known.namespace, known.ttl)
        await driver.open()
        session = await driver.start("ghost", lambda reason: None)
        return Party(self._env, driver, session, "ghost")

    async def die(self) -> None:
        """End a ghost as the end of its process would: without a word, but for its connections."""
        await self.driver.close()

    def id(self) -> str:
        """A claim id that nobody has used."""
        self._serial += 1
        return f"{self.session}.kit{self._serial}"

    async def enter(
        self,
        roster: str,
        body: str = "",
        width: int | None = None,
        shared: bool = False,
        id: str | None = None,
    ) -> Roll:
        """Enter a claim."""
        chosen = self.id() if id is None else id
        return await self.driver.claim(self.session, roster, chosen, body, width, shared)

    async def entered(
        self, roster: str, body: str = "", width: int | None = None, shared: bool = False
    ) -> Claim:
        """Enter a claim, which must be there then."""
        roll = await self.enter(roster, body, width, shared)
        assert roll.mine is not None, "the claim was not entered"
        return roll.mine

    async def read(self, claim: Claim, width: int = 1) -> Roll:
        """The roll as seen from one's claim."""
        return await self.driver.read(self.session, claim.roster, claim.id, width)

    async def leave(self, claim: Claim, width: int = 1) -> None:
        """Withdraw one's claim."""
        await self.driver.withdraw(self.session, claim.roster, claim.id, width)

    async def census(self, roster: str) -> tuple[str, ...]:
        """The ids of the census."""
        return tuple(claim.id for claim in await self.driver.census(roster))

    async def watch(self, roster: str) -> Bell:
        """A bell that rings when the roster, or the record of its name, changes."""
        interest = Interest("", roster, self.driver.runtime.unique(), None, watch=True)
        bell = Bell(self._env, self.driver, interest)
        await self.driver.listen(interest, bell.ring)
        return bell

    async def wait_for(self, claim: Claim, width: int = 1) -> Waiter:
        """A waiter for a claim of one's own that is not granted yet."""
        waiter = Waiter(self._env, self, claim, width)
        assert not await waiter.looks(), "the claim is granted already"
        return waiter


class Bell:
    """Counts the wake-ups of one interest. What wakes it may be a thread of the driver's."""

    def __init__(self, env: Env, driver: Driver, interest: Interest) -> None:
        self._env = env
        self._driver = driver
        self._heard = 0
        self.interest = interest
        self.rung = 0

    def ring(self) -> None:
        """For the driver to call."""
        self.rung += 1

    async def heard(self, what: str) -> None:
        """Wait until it has rung since it was heard last; at once where nothing is pushed."""
        if self._env.traits.push:
            waiting = f"{what} to wake {self.interest}"
            await self._env.until(lambda: self.rung > self._heard, PUSH_SECONDS_MAX, waiting)
        self._heard = self.rung

    def reset(self) -> None:
        """Take what it has rung until now as heard."""
        self._heard = self.rung

    def stop(self) -> None:
        """Ring no more."""
        self._driver.unlisten(self.interest)


class Waiter:
    """Waits for a claim to be granted as the lock recipe does, but for wake-ups alone."""

    def __init__(self, env: Env, party: Party, claim: Claim, width: int) -> None:
        self._env = env
        self._party = party
        self._claim = claim
        self._width = width
        self.bell: Bell | None = None

    async def looks(self) -> bool:
        """Say whether it is granted; if it is not, listen to the claim before it."""
        driver, width = self._party.driver, self._width
        while True:
            if self.bell is not None:
                self.bell.reset()  # what rings from now on may be news that the read has missed
            roll = await self._party.read(self._claim, width)
            assert roll.mine == self._claim, f"{self._claim} is gone"
            if roll.rank < width:
                return True
            interest = Interest(
                self._party.session, roll.mine.roster, roll.mine.id, roll.before, width
            )
            if self.bell is not None and interest == self.bell.interest:
                return False
            self.stop()
            self.bell = Bell(self._env, driver, interest)
            await driver.listen(interest, self.bell.ring)

    async def granted(self, what: str) -> None:
        """Wait for the wake-ups that lead to its grant."""
        give_up = tenure.now() + PUSH_SECONDS_MAX
        while True:
            assert self.bell is not None
            await self.bell.heard(what)
            if await self.looks():
                break
            assert tenure.now() < give_up, f"{what} did not grant {self._claim}"
        self.stop()

    def stop(self) -> None:
        """Listen no more."""
        if self.bell is not None:
            self.bell.stop()
            self.bell = None


async def refused(work: Awaitable[object], error: type[tenure.TenureError]) -> None:
    """The work fails, and in this way."""
    try:
        result = await work
    except error:
        return
    raise AssertionError(f"{error.__name__} was due, and the result is {result!r}")
