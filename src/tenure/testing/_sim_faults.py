"""What goes wrong in a schedule, and when: each fault happens to a process that is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._sim_schedule import Process, Schedule


class Faults:
    """Pauses, cuts, crashes and the rest, as many as the plan says."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.plan = schedule.plan
        self.world = schedule.world
        self.judge = schedule.judge
        self.network = schedule.network

    def plan_all(self) -> None:
        """Put each fault of the plan somewhere into the time of chaos."""
        plan, world = self.plan, self.world
        for count, fault in (
            (plan.pauses, self._pause),
            (plan.cuts, self._cut),
            (plan.ambushes, self._ambush),
            (plan.stalls, self._stall),
            (plan.restarts, self._restart),
            (plan.crashes, self._crash),
            (plan.closes, self._close_one),
            (plan.cancels, self._cancel),
            (plan.jumps, self._jump),
        ):
            for _ in range(count):
                world.push(world.between(0, plan.chaos), None, fault)

    def _victim(self) -> Process | None:
        running = [
            each for each in self.schedule.processes if not each.node.dead and not each.closed
        ]
        holding = [each for each in running if self.judge.holds(each.node)]
        if holding and self.world.chance(0.6):
            return self.world.rng.choice(holding)
        return self.world.rng.choice(running) if running else None

    def _length(self) -> float:
        return (
            self.plan.ttl * self.world.rng.choice((0.05, 0.5, 1.0, 1.5, 3.0)) * self.world.random()
        )

    def _pause(self, _: object) -> None:
        victim = self._victim()
        if victim is not None and not victim.node.stopped:
            victim.node.pause()
            self.world.push(self.world.time + self._length(), None, self.resume, victim)

    def resume(self, victim: Process) -> None:
        """A paused node goes on."""
        if victim.node.stopped and not victim.node.dead:
            victim.node.resume()
            self.judge.resumed(victim.node)

    def _cut(self, _: object) -> None:
        victim = self._victim()
        if victim is not None:
            node = victim.node
            node.cut_in, node.cut_out = self.world.rng.choice(
                ((True, True), (True, False), (False, True))
            )
            self.world.note(node, "cut off", node.cut_in, node.cut_out)
            self.world.push(self.world.time + self._length(), None, self.mend, victim)

    def _ambush(self, _: object) -> None:
        """Let the next renewal pass, hold back its reply, and let nothing pass for a TTL."""
        victim = self._victim()
        if victim is not None:
            self.world.note(victim.node, "is waylaid at its next renewal")
            victim.node.ambushed = True
            length = self.plan.ttl * self.world.between(1.0, 2.0)
            self.world.push(self.world.time + length, None, self.mend, victim)

    def _stall(self, _: object) -> None:
        """Hold back what a node sends, and deliver it all at once."""
        victim = self._victim()
        if victim is not None:
            self.world.note(victim.node, "is stalled")
            length = self.plan.ttl * self.world.between(0.3, 0.8)
            victim.node.stalled_until = self.world.time + length

    def mend(self, victim: Process) -> None:
        """A node is connected again."""
        self.world.note(victim.node, "connected again")
        victim.node.cut_in = victim.node.cut_out = victim.node.ambushed = False
        victim.node.passes = None

    def _restart(self, _: object) -> None:
        if self.network.up:
            self.network.stop_store()
            self.world.push(self.world.time + self._length(), None, self._back)

    def _back(self, _: object) -> None:
        if not self.network.up:
            self.network.start_store()

    def _crash(self, _: object) -> None:
        victim = self._victim()
        if victim is not None:
            victim.node.crash()
            self.schedule.crashed += 1
            if self.world.chance(0.6):
                self.world.push(self.world.time + self._length(), None, self._reboot, victim)

    def _reboot(self, victim: Process) -> None:
        if self.world.time < self.plan.chaos:
            self.schedule.boot(victim.node.offset, victim.node.rate)

    def _close_one(self, _: object) -> None:
        victim = self._victim()
        if victim is not None:
            victim.closed = True
            victim.node.start(self.schedule.closing(victim), f"{victim.node}/close")

    def _cancel(self, _: object) -> None:
        victim = self._victim()
        if victim is not None:
            client = self.world.rng.choice(victim.clients)
            self.world.note("cancelled:", client.name)
            client.cancel()

    def _jump(self, _: object) -> None:
        victim = self._victim()
        if victim is not None:
            victim.node.wall_offset += self.world.between(-1e6, 1e6)
