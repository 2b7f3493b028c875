"""What the clients of a schedule do: take a lock, a permit, a term or a membership, and use it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from .. import _names
from .._recipes.election import ElectionRecipe
from .._recipes.group import GroupRecipe
from .._recipes.lock import LockRecipe
from .._recipes.semaphore import SemaphoreRecipe
from ..errors import (
    AlreadyJoined,
    BackendError,
    CandidateNotFound,
    ClosedError,
    GroupNotEmpty,
    GroupNotFound,
    LeaseLost,
    LimitMismatch,
    MemberExists,
)
from ._sim_lease import Kind, Reported, SimLease, SimMember, SimPermit, SimTerm
from ._sim_world import Cancelled

if TYPE_CHECKING:
    from ._sim_schedule import Process, Schedule

LIMIT = 2
"""The limit of a semaphore, to begin with."""

REFUSALS = (
    AlreadyJoined,
    CandidateNotFound,
    GroupNotEmpty,
    GroupNotFound,
    LimitMismatch,
    MemberExists,
)
"""What is no fault of anybody's."""

Call = Callable[[], Coroutine[Any, Any, Any]]


class Clients:
    """The clients of one schedule; each visits one name after another."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.world = schedule.world
        self.plan = schedule.plan
        self.judge = schedule.judge
        self.kinds = {f"name{number}": kind for number, kind in enumerate(self.plan.kinds)}

    async def client(self, process: Process) -> None:
        """Visit as long as the chaos goes on."""
        world, plan, runtime = self.world, self.plan, process.node.runtime
        while world.time < plan.chaos:
            try:
                await runtime.sleep(runtime.now() + plan.think * 2 * world.random())
                await self._visit(process)
            except (Cancelled, BackendError, *REFUSALS):
                continue
            except ClosedError:
                return
            except Exception as error:
                world.fail(f"a client of {process.node} got {error!r}")
                return

    async def _visit(self, process: Process) -> None:
        world, runtime, plan = self.world, process.node.runtime, self.plan
        name = world.rng.choice(list(self.kinds))
        kind = self.kinds[name]
        if name in self.schedule.trials:
            await self.schedule.trials[name].visit(process)
            return
        if kind == "semaphore" and plan.resizes and world.chance(0.1):
            await self.semaphore(process, name).resize(world.rng.choice((1, 2, 3)))
            return
        if kind == "group" and plan.deletes and world.chance(0.2):
            await self.judge.groups.delete(self.group(process, name), False)
            return
        if kind == "group" and plan.forces and world.chance(0.15):
            await self.judge.groups.delete(self.group(process, name), True)
            return
        wait, until = world.chance(0.8), None
        if wait and world.chance(0.4):
            until = runtime.now() + plan.ttl * world.random() * world.random()
        shared = kind == "rwlock" and world.chance(0.6)
        lease = await self.acquire(process, name, wait, until, shared)
        if lease is None:
            return
        try:
            await self._hold(lease, runtime.now() + plan.hold * world.random())
        finally:
            if not world.over:
                await self.release(lease)

    # -- the recipes -------------------------------------------------------------

    def semaphore(self, process: Process, name: str) -> SemaphoreRecipe[SimPermit]:
        """A semaphore, whose users take its limit to be what it was at first, or take any."""
        plain = not self.plan.resizes and self.world.chance(0.5)
        hint = None if _names.of("semaphore", name) in self.judge.limits and not plain else LIMIT
        return SemaphoreRecipe(process.session, name, hint, SimPermit)

    def election(self, process: Process, name: str) -> ElectionRecipe[SimTerm]:
        """An election."""
        return ElectionRecipe(process.session, name, SimTerm)

    def group(self, process: Process, name: str) -> GroupRecipe[SimMember]:
        """A group."""
        return GroupRecipe(process.session, name, SimMember)

    async def acquire(
        self, process: Process, name: str, wait: bool, until: float | None, shared: bool = False
    ) -> Reported | None:
        """Acquire what the name is the name of; the judge sees to it."""
        session, kind, world = process.session, self.kinds[name], self.world
        call: Call
        if kind == "semaphore":
            roster, semaphore = _names.of("semaphore", name), self.semaphore(process, name)
            call = (lambda: semaphore.acquire(until)) if wait else semaphore.try_acquire
        elif kind == "election":
            roster, election = _names.of("election", name), self.election(process, name)
            value = {"by": world.serial()}
            if wait:
                call = lambda: election.campaign(until, value)  # noqa: E731
            else:
                call = lambda: election.try_campaign(value)  # noqa: E731
        elif kind == "group":
            group = self.group(process, name)
            id = world.rng.choice((str(process.node), "common"))
            roster = _names.of("member", name, id)
            timeout = (None if until is None else until - process.node.now()) if wait else 0
            call = lambda: group.join({"n": world.serial()}, id, True, timeout, None)  # noqa: E731
        else:
            roster, lock = name, LockRecipe(session, name, shared, SimLease)
            call = (lambda: lock.acquire(until)) if wait else lock.try_acquire
        return await self.judged(process, roster, kind, wait, until, shared, call)

    async def judged(
        self,
        process: Process,
        roster: str,
        kind: Kind,
        wait: bool,
        until: float | None,
        shared: bool,
        call: Call,
    ) -> Reported | None:
        """One acquire, from the call to what comes of it."""
        world, judge = self.world, self.judge
        task = world.current
        assert task is not None
        acquire = task.acquire = judge.asks(process.node, roster, kind, wait, until, shared)
        lease: Reported | None = None
        try:
            lease = await call()
        finally:
            task.acquire = None
            if not world.over:
                if lease is None:
                    judge.refused(acquire)
                else:
                    judge.returned(acquire, lease)
        return lease

    # -- while it is held --------------------------------------------------------

    async def _hold(self, lease: Reported, until: float) -> None:
        world, runtime, plan = self.world, lease.node.runtime, self.plan
        while lease.asked() and runtime.now() < until:
            if not lease.shared and not isinstance(lease, SimPermit):
                self.judge.write(lease, known_held=True)
                if world.chance(0.2):
                    delay = self.schedule.network.weather.delay * 10 + plan.ttl * world.random()
                    world.push(world.time + delay, None, self._late_write, lease)
            try:
                await self._show(lease)
            except LeaseLost:
                if lease.asked() and lease._session._closed is None:
                    world.fail(f"showing something says that {lease!r} is lost, and it is held")
                return
            await runtime.sleep(min(until, runtime.now() + plan.hold * 0.3))

    async def _show(self, lease: Reported) -> None:
        """Publish something else, or stand down in favour of somebody."""
        if isinstance(lease, SimMember) and self.world.chance(0.3):
            await self.judge.groups.update(lease, {"n": self.world.serial()})
        if isinstance(lease, SimTerm) and self.world.chance(0.3):
            await lease._publish({"by": self.world.serial()})
        if isinstance(lease, SimTerm) and self.world.chance(0.1):
            recipe = ElectionRecipe(lease._session, lease.name, SimTerm)
            waiting = await recipe.candidates()
            if waiting:
                await lease._stand_down(waiting[-1].id, self.plan.ttl)

    def _late_write(self, lease: Reported) -> None:
        self.judge.write(lease, known_held=False)

    async def release(self, lease: Reported) -> None:
        """Release; the judge sees to that as well."""
        try:
            await lease.release()
        except LeaseLost:
            self.judge.releasing_failed(lease)
        finally:
            if not self.world.over:
                self.judge.released(lease)
