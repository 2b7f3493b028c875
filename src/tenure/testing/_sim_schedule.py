"""One schedule: processes with their clients, until the chaos is over; then the end."""

from __future__ import annotations

from collections.abc import Callable

from .. import _names
from .._session import Session
from ._sim_clients import Clients
from ._sim_faults import Faults
from ._sim_groups import Expulsion
from ._sim_judge import Judge
from ._sim_lease import Kind, Reported
from ._sim_net import Network, Weather
from ._sim_objects import ObjectTrial
from ._sim_plan import DRIVERS, draw_plan
from ._sim_runtime import boot
from ._sim_shares import ClaimsTrial, EstateTrial
from ._sim_stores import DocumentStore, RosterStore
from ._sim_trials import BarrierTrial, LatchTrial, MultiTrial, Trial
from ._sim_views import GroupView, LeaderView, View
from ._sim_world import Node, Task, Violation, World

TRIALS: dict[Kind, type[Trial]] = {
    "barrier": BarrierTrial,
    "claims": ClaimsTrial,
    "estate": EstateTrial,
    "latch": LatchTrial,
    "multilock": MultiTrial,
    "object": ObjectTrial,
}


class Process:
    """A node, its session and its clients."""

    def __init__(self, schedule: Schedule, node: Node) -> None:
        self.node = node
        self.clients: list[Task] = []
        self.views: list[View] = []
        self.closed = False
        plan, store, network = schedule.plan, schedule.store, schedule.network
        kind = DRIVERS[plan.backend]
        driver = kind(node, network, store, plan.ttl)
        self.session = Session(node.runtime, driver, node.name, plan.ttl)
        schedule.judge.sessions[node] = self.session
        driver.renewed = schedule.judge.renewing(node, self.session)
        driver.withdrawing = schedule.judge.withdrawing

    def busy(self) -> bool:
        """Whether a client of it has not ended, and will."""
        return not self.node.dead and not all(client.done for client in self.clients)


class Schedule:
    """One run of one plan."""

    def __init__(
        self, seed: int, number: int, *, traced: bool = False, kind: Kind | None = None
    ) -> None:
        self.world = world = World(f"{seed}/{number}", traced=traced)
        self.plan = plan = draw_plan(world, kind)
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
        self.clients = Clients(self)
        self.trials = {
            name: TRIALS[kind](self, name)
            for name, kind in self.clients.kinds.items()
            if kind in TRIALS
        }
        self.judge.trials = tuple(self.trials.values())
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
        self._steady()
        for trial in self.trials.values():
            trial.finale()
        for name, kind in self.clients.kinds.items():
            if kind == "group" and plan.forces:
                Expulsion(self, name).finale()
        self._probe()
        self._settle()
        self._bury()
        self._converge()
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
        self._watch(process)
        for trial in self.trials.values():
            trial.booted(process)
        if world.time < self.plan.chaos:
            for number in range(self.plan.clients):
                name = f"{process.node}/client{number}"
                process.clients.append(process.node.start(self.clients.client(process), name))
        return process

    def _watch(self, process: Process) -> None:
        for name, kind in self.clients.kinds.items():
            if kind in ("group", "election") and self.world.chance(0.6):
                view = (GroupView if kind == "group" else LeaderView)(self, process, name)
                process.views.append(view)
                view.start()

    # -- the end -----------------------------------------------------------------

    def _calm(self) -> None:
        self.world.note("the faults are over")
        self.network.heal()
        for process in self.processes:
            self.faults.mend(process)
            self.faults.resume(process)
            process.node.stalled_until = self.world.time

    def until(self, seconds: float, what: str, condition: Callable[[], bool] | None = None) -> None:
        """Let the world go on until the condition holds, at most for that long."""
        end = self.world.time + seconds
        while not (condition or self._quiet)():
            if self.world.time >= end:
                raise Violation(f"at {self.world.time:.6f} s: not within {seconds:g} s: {what}")
            self.world.run(min(end, self.world.time + self.plan.ttl * 0.2))

    def _quiet(self) -> bool:
        return not any(process.busy() for process in self.processes)

    def _finish_clients(self) -> None:
        """Whoever waits is granted: nobody holds for ever, and the dead are buried."""
        plan = self.plan
        waiting = sum(len(each.clients) for each in self.processes if not each.node.dead)
        # Who was chosen in an election has a TTL to come, and the others wait for it.
        each = plan.hold + plan.ttl * (3 if "election" in plan.kinds else 1)
        seconds = waiting * each + (self.crashed + 4) * 1.5 * plan.ttl
        self.until(seconds, "every acquire came to its end")

    def _steady(self) -> None:
        """A session that a fault has doomed is lost by now: the others go on to the end."""
        ttl, world = self.plan.ttl, self.world
        world.run(max(world.time, self.plan.chaos + ttl / 2))  # what was lost is given up on

        def renewed(process: Process) -> bool:
            life = process.session._life
            if life is None or life.reason is not None:
                return True
            return life.deadline - process.node.now() > ttl * 0.4

        self.until(2 * ttl, "sessions are renewed", lambda: all(map(renewed, self.alive())))

    def alive(self) -> list[Process]:
        return [each for each in self.processes if not each.node.dead and not each.closed]

    def _probe(self) -> None:
        """Whatever the dead left behind, it is out of the way when somebody comes."""
        if not any(self.judge.standing.values()):
            return
        prober = (self.alive() or [self.boot(0.0, 1.0)])[0]
        prober.clients.append(prober.node.start(self._probing(prober), f"{prober.node}/probe"))
        self.until((self.crashed + 3) * 1.5 * self.plan.ttl, "a last acquire of every name")

    async def _probing(self, process: Process) -> None:
        for name in sorted(self.clients.kinds.keys() - self.trials):
            lease = await self.clients.acquire(process, name, True, None)
            assert lease is not None
            await self.clients.release(lease)

    def _settle(self) -> None:
        """When the network holds no request any more and debts are paid, nothing is left."""
        world = self.world
        alive = self.alive()
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

    def _bury(self) -> None:
        """One dies in the middle, behind one that holds: whoever comes behind both is let in."""
        for name, kind in self.clients.kinds.items():
            if kind == "rwlock" and self.alive():
                self._bury_between(name, name, 2, True)
            if kind == "semaphore" and self.alive():
                roster = _names.of("semaphore", name)
                places = self.judge.limits.get(roster, [(0.0, 0)])[-1][1]
                if places > 1:
                    self._bury_between(name, roster, places, False)

    def _bury_between(self, name: str, roster: str, places: int, reader: bool) -> None:
        ttl, standing = self.plan.ttl, self.judge.standing
        holder, victim, prober = self.alive()[0], self.boot(0.0, 1.0), self.boot(0.0, 1.0)
        leases: list[tuple[Process, Reported]] = []

        async def hold(process: Process, shared: bool) -> None:
            lease = await self.clients.acquire(process, name, True, None, shared)
            assert lease is not None
            leases.append((process, lease))

        def start(process: Process, shared: bool) -> None:
            process.clients.append(process.node.start(hold(process, shared), "hold"))

        start(holder, reader)
        self.until(2 * ttl, "an idle name is had", lambda: len(leases) == 1)
        start(victim, False)
        self.until(2 * ttl, "a second claim", lambda: len(standing[roster]) > 1)
        victim.node.crash()
        self.crashed += 1
        for _ in range(places - 1):
            start(prober, reader)
        self.until(3 * ttl, "the dead make way", lambda: leases[-1][0] is prober and self._quiet())
        for process, lease in leases:
            if process is not victim:
                process.clients.append(process.node.start(self.clients.release(lease), "leave"))
        self.until(2 * ttl, "all is released")

    def _converge(self) -> None:
        """What watchers know becomes the truth: of who is there, and then of nobody."""
        alive = self.alive()
        if not any(process.views for process in alive):
            return
        ttl, world = self.plan.ttl, self.world
        began, over = [0], [False]
        residents = [(process, name) for process in alive[:2] for name in self._shown()]

        async def reside(process: Process, name: str) -> None:
            election = self.clients.kinds[name] == "election"
            lease = await self.clients.acquire(process, name, not election, None)
            began[0] += 1
            if lease is not None:
                while not over[0]:
                    await process.node.runtime.sleep(process.node.now() + ttl / 10)
                await self.clients.release(lease)

        for process, name in residents:
            task = process.node.start(reside(process, name), f"{process.node}/resident")
            process.clients.append(task)
        # A name that is both of theirs is had by one, and the other waits for it.
        self.until(3 * ttl, "somebody is there", lambda: began[0] > 0)
        world.run(world.time + ttl)
        self.until(2.5 * ttl, f"watchers know who is there: {residents}", self._true)
        over[0] = True
        self.until(3 * ttl, "the residents leave")
        self.until(2.5 * ttl, "watchers know that nobody is there", self._true)

    def _shown(self) -> list[str]:
        return [name for name, kind in self.clients.kinds.items() if kind in ("group", "election")]

    def _true(self) -> bool:
        return all(view.true() for process in self.alive() for view in process.views)

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
        self.until(2 * self.plan.ttl, "every session was closed")
        self.world.run(self.world.time + self.plan.ttl)
        running = [task.name for task in self.world.tasks if not task.node.dead]
        if running:
            raise Violation(f"after everything was closed, {running} still run")
        errors = [client.error for process in alive for client in process.clients if client.error]
        if errors:
            raise Violation(f"clients ended with {errors!r}")
