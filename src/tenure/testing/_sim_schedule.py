"""One schedule: processes with their clients, until the chaos is over; then the end."""

from __future__ import annotations

from .._session import Session
from ..errors import BackendError, ClosedError, LeaseLost
from ._sim_faults import Faults
from ._sim_judge import Judge
from ._sim_lease import Acquire, Recipe, SimLease
from ._sim_net import Network, Weather
from ._sim_plan import DRIVERS, draw_plan
from ._sim_runtime import boot
from ._sim_stores import DocumentStore, RosterStore
from ._sim_world import Cancelled, Node, Task, Violation, World


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
        self.faults = Faults(self)
        world.note(plan)

    def run(self) -> None:
        """From the first client to the last trace of anything."""
        plan, world = self.plan, self.world
        for _ in range(plan.nodes):
            self.boot(world.between(0, 1000), self._rate())
        self.faults.plan_all()
        world.run(plan.chaos)
        self._calm()
        self._finish_clients()
        self._probe()
        self._settle()
        self._close()

    def _rate(self) -> float:
        drift = self.plan.drift
        return self.world.rng.choice((1 - drift, 1.0, 1 + drift))

    def boot(self, offset: float, rate: float) -> Process:
        """Start a process with its clients, as long as the chaos goes on."""
        world = self.world
        process = Process(self, boot(world, f"node{len(self.processes)}", offset, rate))
        self.processes.append(process)
        if self.plan.ambushes and world.time < self.plan.chaos and world.chance(0.3):
            # Waylaid at once: its session begins, perhaps it is granted, and is cut off.
            process.node.passes = world.rng.randrange(1, 8)
            world.push(
                world.time + self.plan.ttl * world.between(1, 2), None, self.faults.mend, process
            )
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

    # -- the end -----------------------------------------------------------------

    def _calm(self) -> None:
        self.world.note("the faults are over")
        self.network.heal()
        for process in self.processes:
            self.faults.mend(process)
            self.faults.resume(process)

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
        prober = alive[0] if alive else self.boot(0.0, 1.0)
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

    async def closing(self, victim: Process) -> None:
        """Close one session, and see that nothing is held any more."""
        life = victim.session._life
        await victim.session.close()
        if life is not None:
            self.judge.closed_sessions.add(life.id)
            if life.leases:
                self.world.fail(f"{victim.node} was closed with leases {life.leases}")

    def _close(self) -> None:
        """After a close, nothing runs, and the store knows nothing of the session."""
        alive = [each for each in self.processes if not each.node.dead]
        for process in alive:
            if not process.closed:
                process.closed = True
                task = process.node.start(self.closing(process), f"{process.node}/close")
                process.clients.append(task)
        self._until(2 * self.plan.ttl, "every session was closed")
        self.world.run(self.world.time + self.plan.ttl)
        running = [task.name for task in self.world.tasks if not task.node.dead]
        if running:
            raise Violation(f"after everything was closed, {running} still run")
        errors = [client.error for process in alive for client in process.clients if client.error]
        if errors:
            raise Violation(f"clients ended with {errors!r}")
