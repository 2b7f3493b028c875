"""What the members of a group share and leave behind: slots that are dealt out, and estates."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from .. import _names
from .._recipes.claims import ClaimsRecipe, Told
from .._recipes.estates import BaseOrphan, Heirs, Vigil
from .._recipes.group import GroupRecipe
from .._recipes.groupwatch import Callbacks
from ..errors import LeaseLost
from ._sim_lease import Reported, SimMember
from ._sim_trials import Trial

if TYPE_CHECKING:
    from ._sim_schedule import Process, Schedule


class GivenUp(Exception):
    """A callback fails, as callbacks do."""


class SimSlot(Reported):
    """The lease of a slot; the claims take it in the background."""

    background = True


class SimOrphan(Reported, BaseOrphan):
    """The lease of an heir."""

    background = True


class SimTestator(SimMember):
    """A member with an estate, which says when it leaves of its own accord."""

    async def _release(self) -> None:
        self.going = True
        await super()._release()


class Dealt:
    """What one member was told of its slots, which must fit, and what it holds."""

    def __init__(self, trial: ClaimsTrial, member: SimMember) -> None:
        self.trial = trial
        self.world = trial.world
        self.member = member
        self.has: dict[str, SimSlot] = {}
        told = Told(self._gain, self._release, self._lost)
        group = trial.group(member)
        self.recipe: ClaimsRecipe[SimSlot] = ClaimsRecipe(
            group, member, trial.SLOTS, SimSlot, told, None, ()
        )

    def held(self) -> dict[str, SimSlot]:
        """What it may work on now."""
        held = self.recipe.held()
        for slot, lease in held.items():
            if not lease.asked():
                self.world.fail(f"{slot} is among those held, and {lease!r} is not held")
        return held

    def _gain(self, slot: str, lease: SimSlot) -> None:
        self.world.note(self.member.node, "gains", slot, lease.token)
        if slot in self.has or not lease.asked():
            self.world.fail(f"{self.member!r} was told of a gain of {slot}: {lease!r}")
        self.has[slot] = lease

    async def _release(self, slot: str, lease: SimSlot) -> None:
        self.world.note(self.member.node, "gives up", slot, lease.token)
        if self.has.get(slot) is not lease or lease.over:
            self.world.fail(f"{self.member!r} was told to give up {slot}: {lease!r}")
        runtime = lease.node.runtime
        await runtime.sleep(runtime.now() + self.trial.plan.ttl * 0.1 * self.world.random())
        if lease.over and not lease.losses and self.trial.is_open(lease.node):
            self.world.fail(f"{lease!r} was released before its work was put away")
        self.has.pop(slot, None)

    def _lost(self, slot: str, lease: SimSlot) -> None:
        self.world.note(self.member.node, "has lost", slot, lease.token)
        # It may be lost while it is released, with its work put away.
        held = self.trial.is_open(lease.node) and (lease.asked() or not lease.losses)
        if self.has.pop(slot, lease) is not lease or held:
            self.world.fail(f"{self.member!r} was told of the loss of {slot}: {lease!r}")


class ClaimsTrial(Trial):
    """No slot has two holders; with faults over, each has one, and nobody more than is due."""

    SLOTS = ("s0", "s1", "s2", "s3", "s4")

    def group(self, member: SimMember) -> GroupRecipe[SimMember]:
        """The member's group."""
        return GroupRecipe(member._session, self.name, SimMember)

    def is_open(self, node: Any) -> bool:
        """Whether a node's session was not closed."""
        return self.judge.sessions[node]._closed is None

    async def visit(self, process: Process) -> None:
        runtime, world = process.node.runtime, self.world
        if await self.forced(process):
            return
        id = f"{process.node}.{world.rng.choice((0, 0, 1))}"
        member = await self._join(process, id)
        until = runtime.now() + self.plan.ttl * 3 * world.random()
        dealt = Dealt(self, member)
        try:
            await dealt.recipe.open()
            while member.asked() and runtime.now() < until:
                for lease in dealt.held().values():
                    self.judge.write(lease, known_held=True)
                await runtime.sleep(runtime.now() + self.plan.ttl * 0.15)
        except LeaseLost:
            pass
        finally:
            if not world.over:
                await runtime.finish(self._leave(dealt))

    async def _join(self, process: Process, id: str) -> SimMember:
        clients, timeout = self.schedule.clients, self.plan.ttl
        group = GroupRecipe(process.session, self.name, SimMember)
        roster = _names.of("member", self.name, id)
        until = process.node.now() + timeout
        member = await clients.judged(
            process, roster, "group", True, until, False,
            lambda: group.join({"n": 0}, id, True, timeout, None),
        )  # fmt: skip
        assert isinstance(member, SimMember)
        return member

    async def _leave(self, dealt: Dealt) -> None:
        await dealt.recipe.close()
        await self.schedule.clients.release(dealt.member)
        jobs_over = not dealt.recipe._taking and not dealt.recipe._slots
        if dealt.has and jobs_over and self.is_open(dealt.member.node):
            self.world.fail(f"{dealt.member!r} has left, and still works on {dealt.has}")

    def finale(self) -> None:
        """All slots are dealt out, also when one of the members dies."""
        ttl, over = self.plan.ttl, [False]
        there: list[Dealt] = []

        async def reside(process: Process) -> None:
            member = await self._join(process, f"{process.node}.last")
            dealt = Dealt(self, member)
            await dealt.recipe.open()
            there.append(dealt)
            while not over[0]:
                await process.node.runtime.sleep(process.node.now() + ttl / 10)
            await self._leave(dealt)

        def all_held() -> bool:
            mine = [each for each in there if not each.member.node.dead]
            slots = [slot for each in mine for slot in each.held() if slot in each.has]
            fair = all(len(each.held()) <= -(-len(self.SLOTS) // wanted) for each in mine)
            return len(mine) == wanted and fair and sorted(slots) == list(self.SLOTS)

        others = self.alive(2)
        victim = self.schedule.boot(0.0, 1.0)
        wanted = 3
        for process in (victim, *others):
            self.start(process, reside(process), "reside")
        self.until((self.schedule.crashed + 4) * 1.5, "each slot is held", all_held)
        victim.node.crash()
        self.schedule.crashed += 1
        wanted = 2
        self.until(4, "each slot of the dead is held again", all_held)
        over[0] = True
        self.until(3, "the members leave")


class EstateTrial(Trial):
    """Of each estate there is one heir at a time, and none is forgotten."""

    def __init__(self, schedule: Schedule, name: str) -> None:
        super().__init__(schedule, name)
        self._prefix = _names.of("estate", name, "")
        self._texts: dict[str, dict[str, Any]] = {}
        """By record: what it says."""
        self._safe: set[int] = set()
        """The estates that may be deleted: handled, or a member's that joins or leaves."""
        self._members: list[SimTestator] = []

    def recorded(self, name: str, text: str | None) -> None:
        if not name.startswith(self._prefix):
            return
        before = self._texts.pop(name, None)
        going = {lease.estate["n"] for lease in self._members if lease.going and lease.estate}
        if text is None:
            forced = self.judge.groups.deletes_by_force(self.name)
            if before and before["estate"]["n"] not in self._safe | going and not forced:
                self.world.fail(f"{name!r} was deleted, and nobody had handled {before}")
            return
        now = self._texts[name] = json.loads(text)
        if before is None:
            return
        if now["token"] < before["token"]:
            self.world.fail(f"{name!r} was written by an earlier one: {now} after {before}")
        if now["token"] != before["token"] and now["estate"] != before["estate"]:
            self.world.fail(f"{name!r} was forgotten: {before}, and now {now}")

    def booted(self, process: Process) -> None:
        if self.world.chance(0.7):
            self._wake_over(process)

    def _wake_over(self, process: Process) -> None:
        session = process.session
        group = GroupRecipe(session, self.name, SimTestator)
        vigil: Vigil[SimOrphan] = Vigil(Heirs(group, SimOrphan), self._inherited)
        process.node.start(self._begin(session, vigil), f"{process.node}/vigil")

    async def _begin(self, session: Any, vigil: Vigil[SimOrphan]) -> None:
        # As a task of the node, since whoever makes jobs must be one.
        Callbacks(session, "inheriting", vigil.next, vigil.handle, vigil.close)

    async def _inherited(self, orphan: SimOrphan) -> None:
        world, runtime = self.world, orphan.node.runtime
        world.note(orphan.node, "inherits", orphan.estate, orphan.token)
        if not orphan.asked():
            world.fail(f"{orphan!r} was handed over, and is not held")
        self.judge.write(orphan, known_held=True)
        if world.time < self.plan.chaos and world.chance(0.1):
            raise GivenUp
        await runtime.sleep(runtime.now() + self.plan.ttl * 0.3 * world.random())
        if orphan.asked():
            self.judge.write(orphan, known_held=True)
            self._safe.add(orphan.estate["n"])

    async def visit(self, process: Process) -> None:
        runtime, world = process.node.runtime, self.world
        if await self.forced(process):
            return
        id = world.rng.choice((str(process.node), "common"))
        member = await self._join(process, id)
        until = runtime.now() + self.plan.hold * world.random()
        try:
            while member.asked() and runtime.now() < until:
                self.judge.write(member, known_held=True)
                if world.chance(0.3):
                    await member._bequeath({"n": world.serial()})
                await runtime.sleep(runtime.now() + self.plan.hold * 0.3)
        except LeaseLost:
            pass
        finally:
            if not world.over:
                await self.schedule.clients.release(member)

    async def _join(self, process: Process, id: str) -> SimTestator:
        clients, timeout, estate = self.schedule.clients, self.plan.ttl, self.world.serial()
        group = GroupRecipe(process.session, self.name, SimTestator)
        roster = _names.of("member", self.name, id)
        until = process.node.now() + timeout
        call: Coroutine[Any, Any, Any] = clients.judged(
            process, roster, "group", True, until, False,
            lambda: group.join({"n": 0}, id, True, timeout, {"n": estate}),
        )  # fmt: skip
        self._safe.add(estate)  # if joining fails, it is taken back
        member = await call
        self._safe.discard(estate)
        assert isinstance(member, SimTestator)
        self._members.append(member)
        return member

    def finale(self) -> None:
        """One dies with an estate, and there is nothing left once the living have looked."""
        joined: list[SimTestator] = []

        async def die(process: Process) -> None:
            joined.append(await self._join(process, "victim"))

        (heir,) = self.alive(1)
        self._wake_over(heir)
        victim = self.schedule.boot(0.0, 1.0)
        self.start(victim, die(victim), "die")
        self.until((self.schedule.crashed + 3) * 1.5, "one joins", lambda: bool(joined))
        victim.node.crash()
        self.schedule.crashed += 1
        self.until(6, f"no estate is left of {self._texts}", lambda: not self._texts)
        world = self.world
        world.run(world.time + 2.5 * self.plan.ttl)  # who looked at the same time leaves again
