"""What clients do with names that are no single lease's: many locks, counts and meetings.

A trial is one name of a schedule: its clients' visits in the time of chaos, what it is told
of the store, and what must come true once the faults are over.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import _names
from .._model import Claim
from .._recipes.barrier import BarrierRecipe
from .._recipes.latch import LatchRecipe
from .._recipes.multilock import BaseMultiLease, MultiRecipe
from ..errors import LeaseLost, OutcomeUnknown, Unavailable
from ._sim_lease import SimLease

if TYPE_CHECKING:
    from ._sim_schedule import Process, Schedule


class Trial:
    """One name, and the rules of what it is the name of."""

    def __init__(self, schedule: Schedule, name: str) -> None:
        self.schedule = schedule
        self.world = schedule.world
        self.plan = schedule.plan
        self.judge = schedule.judge
        self.name = name

    def booted(self, process: Process) -> None:
        """A process begins."""

    async def visit(self, process: Process) -> None:
        """What a client does in the time of chaos."""
        raise NotImplementedError

    def entered(self, claim: Claim) -> None:
        """A claim was entered in some roster."""

    def recorded(self, name: str, text: str | None) -> None:
        """Some record was written, or deleted."""

    async def forced(self, process: Process) -> bool:
        """Now and then, delete the trial's group by force instead; say whether that was done."""
        if not self.plan.forces or not self.world.chance(0.15):
            return False
        await self.judge.groups.delete(self.schedule.clients.group(process, self.name), True)
        return True

    def finale(self) -> None:
        """The faults are over, and every client is done."""
        raise NotImplementedError

    # -- for the finale ----------------------------------------------------------

    def alive(self, number: int) -> list[Process]:
        """So many processes that are up; new ones if there are too few."""
        alive = self.schedule.alive()[:number]
        return alive + [self.schedule.boot(0.0, 1.0) for _ in range(number - len(alive))]

    def start(self, process: Process, work: Any, what: str) -> None:
        """Run something as a client of a process."""
        process.clients.append(process.node.start(work, f"{process.node}/{what}"))

    def until(self, ttls: float, what: str, condition: Callable[[], bool] | None = None) -> None:
        """Within so many TTLs it must be so; without a condition, that all clients are done."""
        self.schedule.until(ttls * self.plan.ttl, f"{what} ({self.name})", condition)


class MultiTrial(Trial):
    """Many locks at a time: all or none, and the loss of one is the loss of all."""

    PARTS = ("a", "b", "c")

    async def visit(self, process: Process) -> None:
        world, runtime = self.world, process.node.runtime
        chosen = world.rng.sample(self.PARTS, world.rng.choice((1, 2, 2, 3)))
        wait, until = world.chance(0.8), None
        if wait and world.chance(0.4):
            until = runtime.now() + self.plan.ttl * world.random()
        leases = await self._acquire(process, chosen, wait, until)
        if leases is None:
            return
        told: list[object] = []
        multi = BaseMultiLease(process.session, leases)
        multi.on_lost(told.append)
        try:
            await self._hold(multi, leases, runtime.now() + self.plan.hold * world.random())
        finally:
            if not world.over:
                await self._release(multi, leases, told)

    async def _acquire(
        self, process: Process, parts: list[str], wait: bool, until: float | None
    ) -> list[SimLease] | None:
        names = [f"{self.name}{part}" for part in parts]
        recipe = MultiRecipe(process.session, names, SimLease)
        world, task = self.world, self.world.current
        assert task is not None
        acquire = self.judge.asks(process.node, self.name, "multilock", wait, until, False)
        task.acquire = acquire
        leases: list[SimLease] | None = None
        try:
            leases = await (recipe.acquire(until) if wait else recipe.try_acquire())
        finally:
            task.acquire = None
            if not world.over:
                if leases is None:
                    self.judge.refused(acquire)
                else:
                    self.judge.returned_all(acquire, leases)
                    if sorted(lease.name for lease in leases) != sorted(names):
                        world.fail(f"asked for {names}, and got {leases}")
        return leases

    async def _hold(
        self, multi: BaseMultiLease[SimLease], leases: list[SimLease], until: float
    ) -> None:
        runtime = leases[0].node.runtime
        while self._asked(multi, leases) and runtime.now() < until:
            for lease in leases:
                self.judge.write(lease, known_held=True)
            await runtime.sleep(min(until, runtime.now() + self.plan.hold * 0.3))

    def _asked(self, multi: BaseMultiLease[SimLease], leases: list[SimLease]) -> bool:
        held = multi.held()
        if held != all(lease.asked() for lease in leases):
            self.world.fail(f"{multi!r} is {'' if held else 'not '}held, of {leases}")
        return held

    async def _release(
        self, multi: BaseMultiLease[SimLease], leases: list[SimLease], told: list[object]
    ) -> None:
        lost = False
        try:
            await multi._release()
        except LeaseLost:
            lost = True
            if not any(lease.losses for lease in leases):
                self.world.fail(f"a release says that one of {leases} was lost, and none was")
        finally:
            if not self.world.over:
                losses = any(lease.losses for lease in leases)
                for lease in leases:
                    self.judge.released(lease)
                if lost and not multi.reason:
                    self.world.fail(f"{multi!r} was lost without a reason")
                if told != ([multi] if losses else []):
                    self.world.fail(f"{multi!r}: its loss was told {len(told)} times")

    def finale(self) -> None:
        """All of them, asked for in opposite orders, are had by one after the other."""

        async def take(process: Process, parts: list[str]) -> None:
            leases = await self._acquire(process, parts, True, None)
            assert leases is not None
            await process.node.runtime.sleep(process.node.now() + self.plan.ttl * 0.01)
            multi = BaseMultiLease(process.session, leases)
            await self._release(multi, leases, [])

        for process in self.alive(2):
            for parts in (list(self.PARTS), list(reversed(self.PARTS))):
                self.start(process, take(process, parts), "all")
        self.until((self.schedule.crashed + 4) * 1.5, "all are had by each who wants them")


class BarrierTrial(Trial):
    """Nobody passes before all have come, and nobody both gives up and is counted."""

    PARTIES = 2

    def __init__(self, schedule: Schedule, name: str) -> None:
        super().__init__(schedule, name)
        self._roster = _names.of("barrier", name)
        self._ids: dict[int, str] = {}
        """By token: the claim; one that arrives twice has two."""
        self._trips: dict[int, tuple[int, ...]] = {}
        """By token: those who were let through together."""
        self._gave_up: set[str] = set()
        """The claims of those who were told that they were not let through."""
        self._passed: set[int] = set()
        self._gone: set[str] = set()
        """The claims that are not to be counted if they arrive, as the record says."""

    def entered(self, claim: Claim) -> None:
        if claim.roster == self._roster:
            self._ids[claim.token] = claim.id

    def recorded(self, name: str, text: str | None) -> None:
        if name != self._roster or text is None:
            return
        entry = json.loads(text)
        for _, *tokens in entry["trips"]:
            trip = tuple(tokens)
            if len(set(trip)) != self.PARTIES or not set(trip) <= self._ids.keys():
                self.world.fail(f"let through were {trip}, and not {self.PARTIES} who had come")
            for token in trip:
                if token not in self._trips and self._ids.get(token) in self._gone:
                    self.world.fail(f"{token} has gone, and was let through in {trip}")
                if self._trips.setdefault(token, trip) != trip:
                    self.world.fail(f"{token} was let through twice: {trip}, {self._trips[token]}")
                if self._ids.get(token) in self._gave_up:
                    self.world.fail(f"{token} has given up, and was let through in {trip}")
        self._gone |= set(entry.get("gone", ()))

    async def visit(self, process: Process) -> None:
        now, ttl = process.node.now(), self.plan.ttl
        await self._wait(process, now + ttl * 2 * self.world.random() ** 2)

    async def _wait(self, process: Process, until: float | None) -> int | None:
        recipe = BarrierRecipe(process.session, self.name, self.PARTIES)
        task = self.world.current
        assert task is not None
        call = task.acquire = self.judge.asks(process.node, self._roster, "barrier", False, until,
                                              False)  # fmt: skip
        place: int | None = None
        try:
            place = await recipe.wait(until)
        except OutcomeUnknown:
            raise
        except Unavailable:
            self._over(call.ids, None)
            raise
        else:
            self._over(call.ids, place)
        finally:
            task.acquire = None
            call.over = True
        return place

    def _over(self, ids: set[str], place: int | None) -> None:
        tokens = {token for token, id in self._ids.items() if id in ids}
        counted = sorted(token for token in tokens if token in self._trips)
        if place is None:
            if counted:
                self.world.fail(f"{tokens} gave up, and was let through: {counted}")
            self._gave_up |= ids
            return
        if not counted:
            self.world.fail(f"{tokens} passed, and was never let through")
            return
        for token in counted:  # a late request may have been counted, too
            trip = self._trips[token]
            if trip[place : place + 1] == (token,) and token not in self._passed:
                self._passed.add(token)
                return
        self.world.fail(f"{counted} passed at the place {place}, which is not theirs")

    def finale(self) -> None:
        """So many come, and so many pass."""
        passed: list[int] = []

        async def come(process: Process) -> None:
            place = await self._wait(process, None)
            assert place is not None
            passed.append(place)

        async def look(process: Process) -> None:
            await self._wait(process, process.node.now() + 2.5 * self.plan.ttl)

        # Nobody may have seen that the dead are dead: then one passes with the claim of one.
        (first,) = self.alive(1)
        self.start(first, look(first), "look")
        self.until(4, "a wait with a time-out is over")
        for process in self.alive(self.PARTIES):
            self.start(process, come(process), "come")
        self.until(3, "all who have come pass")
        if len(passed) != self.PARTIES:
            self.world.fail(f"{self.PARTIES} came, and passed were {passed}")


class LatchTrial(Trial):
    """Each count is counted once, even if replies are lost; who waits learns of zero."""

    COUNT = 6

    def __init__(self, schedule: Schedule, name: str) -> None:
        super().__init__(schedule, name)
        self._record = _names.of("latch", name)
        self._count = self.COUNT
        self._zeros: list[tuple[float, float]] = []
        """When it was zero: from, and until."""
        self._calls = 0
        """Calls of `count_down` that have begun."""
        self._sure = 0
        """Of those, the ones that came back and must have taken one off."""
        self._failed = 0
        """And those that have certainly taken off nothing."""
        self._taken = 0

    def recorded(self, name: str, text: str | None) -> None:
        if name != self._record or text is None:
            return
        before, self._count = self._count, json.loads(text)["count"]
        if self._count < before:
            self._taken += before - self._count
        if not self._count and before:
            self._zeros.append((self.world.time, float("inf")))
        elif self._count and not before:
            self._zeros[-1] = (self._zeros[-1][0], self.world.time)
        if self._taken > self._calls - self._failed:
            self.world.fail(f"{self._calls - self._failed} counted, and {self._taken} were taken")

    async def visit(self, process: Process) -> None:
        recipe = LatchRecipe(process.session, self.name, self.COUNT)
        if self.world.chance(0.3):
            await self._await(process, recipe)
        elif not self._count and self.world.chance(0.5):
            await recipe.reset(None)
        else:
            await self._count_down(recipe)

    async def _count_down(self, recipe: LatchRecipe) -> None:
        self._calls += 1
        try:
            left = await recipe.count_down(1)
        except OutcomeUnknown:
            raise
        except Unavailable:
            self._failed += 1
            raise
        # It found zero, perhaps, and then there was nothing to take off.
        self._sure += left > 0
        if self._taken < self._sure:
            self.world.fail(f"{self._sure} have counted, and {self._taken} were taken")

    async def _await(self, process: Process, recipe: LatchRecipe) -> None:
        began, ttl = self.world.time, self.plan.ttl
        came = await recipe.wait(process.node.now() + ttl * self.world.random())
        if came and not any(until >= began for _, until in self._zeros):
            self.world.fail(f"a wait since {began} ended, and it was zero only in {self._zeros}")

    def finale(self) -> None:
        """It is counted down to zero, and who waits is told."""
        waiter, counter = self.alive(2)
        recipe = LatchRecipe(counter.session, self.name, self.COUNT)
        told: list[bool] = []

        async def wait() -> None:
            told.append(await LatchRecipe(waiter.session, self.name, None).wait(None))

        async def count() -> None:
            while await recipe.count():
                await self._count_down(recipe)

        self.start(counter, recipe.reset(None), "reset")
        self.until(2, "the latch is reset")
        self.start(waiter, wait(), "wait")
        self.world.run(self.world.time + 0.1 * self.plan.ttl)
        self.start(counter, count(), "count")
        self.until(10, "who waits for zero is told")
        self.start(waiter, wait(), "wait once more")
        self.until(2, "who comes when it is zero is told")
        if told != [True, True]:
            self.world.fail(f"two waits for zero came to {told}")
