"""One schedule: a plan drawn from the seed, the clients and the faults, and the end."""

from __future__ import annotations

from dataclasses import dataclass

from .._session import Session
from ..errors import BackendError, ClosedError, LeaseLost
from ._sim_drivers import (
    SimDocumentDriver,
    SimMutexDriver,
    SimPushingDocumentDriver,
    SimRosterDriver,
)
from ._sim_judge import Acquire, Judge, Recipe, SimLease
from ._sim_net import Network, Weather
from ._sim_stores import DocumentStore, RosterStore
from ._sim_world import Cancelled, Node, Task, Violation, World

DRIFT_MOST = 0.005
"""How much faster or slower than true time a clock may run."""

DRIVERS = {
    "document": SimDocumentDriver,
    "document with hints": SimPushingDocumentDriver,
    "roster": SimRosterDriver,
    "roster without hints of death": SimRosterDriver,
    "mutex": SimMutexDriver,
}


@dataclass(slots=True)
class Plan:
    """What a schedule is like. Times are in seconds; faults are how often they happen."""

    backend: str
    ttl: float
    nodes: int
    clients: int
    names: int
    threads: bool
    chaos: float
    hold: float
    think: float
    delay: float
    late: float = 0.0
    late_most: float = 0.0
    lost: float = 0.0
    pushes_lost: float = 0.0
    drift: float = 0.0
    pauses: int = 0
    cuts: int = 0
    ambushes: int = 0
    stalls: int = 0
    restarts: int = 0
    crashes: int = 0
    closes: int = 0
    cancels: int = 0
    jumps: int = 0


def draw_plan(world: World) -> Plan:
    """A plan with some of the faults, so that each is also seen without the others."""
    pick, chance, between = world.rng.choice, world.chance, world.between
    ttl = pick((4.0, 10.0, 15.0))
    plan = Plan(
        backend=pick(("document", *DRIVERS)) if chance(0.8) else "roster",
        ttl=ttl,
        nodes=pick((2, 2, 3, 3, 4, 5)),
        clients=pick((1, 1, 2, 3)),
        names=pick((1, 1, 1, 2)),
        threads=chance(0.3),
        chaos=ttl * between(1, 3.5),
        hold=ttl * pick((0.05, 0.3, 0.8, 2.0)),
        think=ttl * pick((0.05, 0.3)),
        delay=ttl * pick((0.0001, 0.001, 0.01)),
    )
    if chance(0.1):
        return plan  # a calm day
    if not plan.backend.startswith("document") and chance(0.2):
        plan.delay = ttl * 0.06
    if chance(0.35):
        plan.late = pick((0.01, 0.05, 0.2))
    if chance(0.35):
        plan.lost = between(0.005, 0.1)
    plan.late_most = ttl * pick((0.3, 0.8))
    plan.pushes_lost = pick((0.0, 0.2, 1.0))
    plan.drift = pick((0.0, DRIFT_MOST, DRIFT_MOST))
    if chance(0.4):
        plan.pauses = pick((1, 2, 3))
    if chance(0.4):
        plan.cuts = pick((1, 2, 3))
    if chance(0.4):
        plan.ambushes = pick((1, 2, 3))
    if chance(0.4):
        plan.stalls = pick((1, 2, 3))
    if chance(0.25):
        plan.restarts = pick((1, 2))
    if chance(0.3):
        plan.crashes = pick((1, 2))
    if chance(0.15):
        plan.closes = 1
    if chance(0.7) and not plan.threads:
        plan.cancels = pick((2, 5, 10))
    if chance(0.2):
        plan.jumps = 2
    return plan


class Process:
    """A node, its session and its clients."""

    def __init__(self, schedule: Schedule, node: Node) -> None:
        self.node = node
        self.clients: list[Task] = []
        self.closed = False
        plan, store, network = schedule.plan, schedule.store, schedule.network
        kind = DRIVERS[plan.backend]
        driver = kind(node, network, store, plan.ttl)
        self.session = Session(node.runtime, driver, node.name, plan.ttl)
        schedule.judge.sessions[node] = self.session
        driver.renewed = schedule.judge.renewing(node, self.session)
        driver.withdrawing = schedule.judge.withdrawing

    def recipe(self, name: str) -> Recipe:
        return Recipe(self.session, name, False, SimLease)

    def busy(self) -> bool:
        """Whether a client of it has not ended, and will."""
        return not self.node.dead and not all(client.done for client in self.clients)


class Schedule:
    """One run of one plan."""

    def __init__(self, seed: int, number: int, *, traced: bool = False) -> None:
        self.world = world = World(f"{seed}/{number}", traced=traced)
        self.plan = plan = draw_plan(world)
        world.threads = plan.threads
        weather = Weather(plan.delay, plan.late, plan.late_most, plan.lost, plan.pushes_lost)
        self.judge = world.judge = Judge(world, plan.ttl)
        self.network = network = Network(world, weather)
        self.store: DocumentStore | RosterStore
        if plan.backend.startswith("document"):
            self.store = DocumentStore(world, network, self.judge)
        else:
            tells = plan.backend != "roster without hints of death"
            self.store = RosterStore(world, network, self.judge, self._rate(), tells)
        network.restarted = self.store.mailboxes.forget
        self.names = [f"name{number}" for number in range(plan.names)]
        self.processes: list[Process] = []
        self.crashed = 0
        world.note(plan)

    def run(self) -> None:
        """From the first client to the last trace of anything."""
        plan, world = self.plan, self.world
        for _ in range(plan.nodes):
            self._boot(world.between(0, 1000), self._rate())
        self._schedule_faults()
        world.run(plan.chaos)
        self._calm()
        self._finish_clients()
        self._probe()
        self._settle()
        self._close()

    def _rate(self) -> float:
        drift = self.plan.drift
        return self.world.rng.choice((1 - drift, 1.0, 1 + drift))

    def _boot(self, offset: float, rate: float) -> Process:
        world = self.world
        process = Process(self, Node(world, f"node{len(self.processes)}", offset, rate))
        self.processes.append(process)
        if self.plan.ambushes and world.time < self.plan.chaos and world.chance(0.3):
            # Waylaid at once: its session begins, perhaps it is granted, and is cut off.
            process.node.passes = world.rng.randrange(1, 8)
            world.push(world.time + self.plan.ttl * world.between(1, 2), None, self._mend, process)
        if world.time < self.plan.chaos:
            for number in range(self.plan.clients):
                name = f"{process.node}/client{number}"
                process.clients.append(process.node.start(self._client(process), name))
        return process

    # -- a client ----------------------------------------------------------------

    async def _client(self, process: Process) -> None:
        world, plan, runtime = self.world, self.plan, process.node.runtime
        while world.time < plan.chaos:
            try:
                await runtime.sleep(runtime.now() + plan.think * 2 * world.random())
                await self._visit(process)
            except (Cancelled, BackendError):
                continue
            except ClosedError:
                return
            except Exception as error:
                world.fail(f"a client of {process.node} got {error!r}")
                return

    async def _visit(self, process: Process) -> None:
        world, runtime = self.world, process.node.runtime
        wait, until = world.chance(0.8), None
        if wait and world.chance(0.4):
            until = runtime.now() + self.plan.ttl * world.random() * world.random()
        lease = await self._acquire(process, world.rng.choice(self.names), wait, until)
        if lease is None:
            return
        try:
            await self._hold(lease, runtime.now() + self.plan.hold * world.random())
        finally:
            if not world.over:
                await self._release(lease)

    async def _acquire(
        self, process: Process, name: str, wait: bool, until: float | None
    ) -> SimLease | None:
        world, judge = self.world, self.judge
        task = world.current
        assert task is not None
        recipe = process.recipe(name)
        acquire = task.acquire = judge.asks(process.node, name, wait, until)
        lease: SimLease | None = None
        try:
            lease = await (recipe.acquire(until) if wait else recipe.try_acquire())
        finally:
            task.acquire = None
            self._judge_acquire(acquire, lease)
        return lease

    def _judge_acquire(self, acquire: Acquire, lease: SimLease | None) -> None:
        if self.world.over:
            return
        if lease is None:
            self.judge.refused(acquire)
        else:
            self.judge.returned(acquire, lease)

    async def _hold(self, lease: SimLease, until: float) -> None:
        world, runtime = self.world, lease.node.runtime
        while lease.asked() and runtime.now() < until:
            self.judge.write(lease, known_held=True)
            if world.chance(0.2):
                delay = self.network.weather.delay * 10 + self.plan.ttl * world.random()
                world.push(world.time + delay, None, self._late_write, lease)
            await runtime.sleep(min(until, runtime.now() + self.plan.hold * 0.3))

    def _late_write(self, lease: SimLease) -> None:
        self.judge.write(lease, known_held=False)

    async def _release(self, lease: SimLease) -> None:
        try:
            await lease.release()
        except LeaseLost:
            self.judge.releasing_failed(lease)
        finally:
            if not self.world.over:
                self.judge.released(lease)

    # -- faults ------------------------------------------------------------------

    def _schedule_faults(self) -> None:
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
        running = [each for each in self.processes if not each.node.dead and not each.closed]
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
            self.world.push(self.world.time + self._length(), None, self._resume, victim)

    def _resume(self, victim: Process) -> None:
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
            self.world.push(self.world.time + self._length(), None, self._mend, victim)

    def _ambush(self, _: object) -> None:
        """Let the next renewal pass, hold back its reply, and let nothing pass for a TTL."""
        victim = self._victim()
        if victim is not None:
            self.world.note(victim.node, "is waylaid at its next renewal")
            victim.node.ambushed = True
            length = self.plan.ttl * self.world.between(1.0, 2.0)
            self.world.push(self.world.time + length, None, self._mend, victim)

    def _stall(self, _: object) -> None:
        """Hold back what a node sends, and deliver it all at once."""
        victim = self._victim()
        if victim is not None:
            self.world.note(victim.node, "is stalled")
            length = self.plan.ttl * self.world.between(0.3, 0.8)
            victim.node.stalled_until = self.world.time + length

    def _mend(self, victim: Process) -> None:
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
            self.crashed += 1
            if self.world.chance(0.6):
                self.world.push(self.world.time + self._length(), None, self._reboot, victim)

    def _reboot(self, victim: Process) -> None:
        if self.world.time < self.plan.chaos:
            self._boot(victim.node.offset, victim.node.rate)

    def _close_one(self, _: object) -> None:
        victim = self._victim()
        if victim is not None:
            victim.closed = True
            victim.node.start(self._closing(victim), f"{victim.node}/close")

    async def _closing(self, victim: Process) -> None:
        life = victim.session._life
        await victim.session.close()
        if life is not None:
            self.judge.closed_sessions.add(life.id)
            if life.leases:
                self.world.fail(f"{victim.node} was closed with leases {life.leases}")

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

    # -- the end -----------------------------------------------------------------

    def _calm(self) -> None:
        self.world.note("the faults are over")
        self.network.heal()
        for process in self.processes:
            self._mend(process)
            self._resume(process)

    def _until(self, seconds: float, what: str) -> None:
        """Let the world go on until `_quiet` says so, at most for that long."""
        end = self.world.time + seconds
        while not self._quiet():
            if self.world.time >= end:
                raise Violation(f"at {self.world.time:.6f} s: not within {seconds:g} s: {what}")
            self.world.run(min(end, self.world.time + self.plan.ttl * 0.2))

    def _quiet(self) -> bool:
        return not any(process.busy() for process in self.processes)

    def _finish_clients(self) -> None:
        """Whoever waits is granted: nobody holds for ever, and the dead are buried."""
        plan = self.plan
        waiting = sum(len(each.clients) for each in self.processes if not each.node.dead)
        seconds = waiting * (plan.hold + plan.ttl) + (self.crashed + 4) * 1.5 * plan.ttl
        self._until(seconds, "every acquire came to its end")

    def _probe(self) -> None:
        """Whatever the dead left behind, it is out of the way when somebody comes."""
        if not any(self.judge.standing.values()):
            return
        alive = [each for each in self.processes if not each.node.dead and not each.closed]
        prober = alive[0] if alive else self._boot(0.0, 1.0)
        prober.clients.append(prober.node.start(self._probing(prober), f"{prober.node}/probe"))
        self._until((self.crashed + 3) * 1.5 * self.plan.ttl, "a last acquire of every name")

    async def _probing(self, process: Process) -> None:
        for name in self.names:
            lease = await self._acquire(process, name, True, None)
            assert lease is not None
            await self._release(lease)

    def _settle(self) -> None:
        """When the network holds no request any more and debts are paid, nothing is left."""
        world = self.world
        alive = [each for each in self.processes if not each.node.dead and not each.closed]
        end = world.time + 2.5 * self.plan.ttl
        while world.time < end and (
            self.network.flying or any(self._owes(each.session) for each in alive)
        ):
            world.run(world.time + self.plan.ttl * 0.1)
        for process in alive:
            if self._owes(process.session):
                raise Violation(f"{process.node} still owes {process.session._debts}")
            left = self.judge.leftovers(process.node, process.session)
            if left:
                raise Violation(f"at {world.time:.6f} s, with all work done: {left}")

    def _owes(self, session: Session) -> bool:
        return any(debt[0].reason is None for debt in session._debts)

    def _close(self) -> None:
        """After a close, nothing runs, and the store knows nothing of the session."""
        alive = [each for each in self.processes if not each.node.dead]
        for process in alive:
            if not process.closed:
                process.closed = True
                task = process.node.start(self._closing(process), f"{process.node}/close")
                process.clients.append(task)
        self._until(2 * self.plan.ttl, "every session was closed")
        self.world.run(self.world.time + self.plan.ttl)
        running = [task.name for task in self.world.tasks if not task.node.dead]
        if running:
            raise Violation(f"after everything was closed, {running} still run")
        errors = [client.error for process in alive for client in process.clients if client.error]
        if errors:
            raise Violation(f"clients ended with {errors!r}")
