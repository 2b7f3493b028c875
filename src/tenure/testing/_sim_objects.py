"""Object locks in a schedule: each caller's own, as often as it asked, until they are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .._recipes.lock import LockRecipe
from ..aio import Coordinator
from ..aio.objectlock import LockService
from ..errors import AcquireTimeout, LeaseLost, NotHeld
from ._sim_lease import SimLease
from ._sim_trials import Trial
from ._sim_world import Node, Task

if TYPE_CHECKING:
    from ._sim_schedule import Process


class _Coordinator:
    """What a lock service needs of a coordinator, on the session of a process."""

    def __init__(self, trial: ObjectTrial, process: Process) -> None:
        self._trial = trial
        self._process = process
        self._session = process.session

    def lock(self, name: str, *, timeout: float | None) -> _Lock:
        """The lock of a name, whose `timeout` is the one that a call may replace."""
        return _Lock(self._trial, self._process, name, timeout)


class _Lock:
    """`aio.Lock`, with the judge at its side."""

    def __init__(
        self, trial: ObjectTrial, process: Process, name: str, timeout: float | None
    ) -> None:
        self._trial = trial
        self._process = process
        self._name = name
        self._timeout = timeout

    async def acquire(self, timeout: float | None = None) -> SimLease:
        seconds = self._timeout if timeout is None else timeout
        until = None if seconds is None else self._process.node.now() + seconds
        lease = await self._trial.acquire(self._process, self._name, True, until)
        if lease is None:
            raise AcquireTimeout(self._name)
        return lease

    async def try_acquire(self) -> SimLease | None:
        return await self._trial.acquire(self._process, self._name, False, None)


class _Hold:
    """What a caller has, as it must be."""

    def __init__(self, lease: SimLease) -> None:
        self.lease = lease
        self.depth = 1

    def __repr__(self) -> str:
        return f"{self.depth} times {self.lease!r}"


class ObjectTrial(Trial):
    """A caller that holds an object holds it again at once, and unlocks it as often."""

    OBJECTS = ("a", "b")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._services: dict[Node, LockService] = {}
        self._holds: dict[tuple[Task, str], _Hold] = {}
        self._made: dict[Task, SimLease] = {}
        """By caller: the lease that was granted, and that the service has not returned yet."""

    def _service(self, process: Process) -> LockService:
        """The one service of a process, which all its clients share."""
        service = self._services.get(process.node)
        if service is None:
            service = self._services[process.node] = LockService()
            service._coordinator = cast("Coordinator", _Coordinator(self, process))
        return service

    async def acquire(
        self, process: Process, name: str, wait: bool, until: float | None
    ) -> SimLease | None:
        """What the service asks of its coordinator."""
        lock = LockRecipe(process.session, name, False, SimLease)
        lease = await self.schedule.clients.judged(
            process, name, "lock", wait, until, False,
            (lambda: lock.acquire(until)) if wait else lock.try_acquire,
        )  # fmt: skip
        assert lease is None or isinstance(lease, SimLease)
        if lease is not None:
            self._made[self._me()] = lease
        return lease

    # -- one call, and whether it did what it must -------------------------------------

    def _me(self) -> Task:
        assert self.world.current is not None
        return self.world.current

    async def _lock(
        self, process: Process, object: str, block: bool, timeout: float | None
    ) -> bool:
        """Lock it; False if it is locked by another, or was lost."""
        world, key = self.world, (self._me(), object)
        hold, steps = self._holds.get(key), world.steps
        try:
            token = await self._service(process).lock(object, block, timeout=timeout)
        except AcquireTimeout:
            if hold is not None:
                world.fail(f"{key} holds {hold.lease!r}, and had to wait for it")
            return False
        except LeaseLost:
            if hold is None or hold.lease.asked():
                world.fail(f"{key} was told of a loss, and has {hold and hold.lease!r}")
            return False
        if hold is None:
            lease = self._made.pop(self._me(), None)
            if lease is None:
                world.fail(f"{key} was granted an object without a lease")
                return False
            hold = self._holds[key] = _Hold(lease)
        else:
            hold.depth += 1
            if world.steps != steps:
                world.fail(f"{key} waited for {hold.lease!r}, which it holds")
            if not hold.lease.asked():
                world.fail(f"{key} was granted {hold.lease!r}, which is lost, once more")
        if token != hold.lease.token:
            world.fail(f"{key} has {hold.lease!r}, and was given the token {token}")
        return True

    async def _unlock(self, process: Process, object: str) -> None:
        """Unlock it; if it was lost, that must be said."""
        world, key = self.world, (self._me(), object)
        hold = self._holds[key]
        lease = hold.lease
        hold.depth -= 1
        last = not hold.depth
        if last:
            del self._holds[key]
            lease.leaving = True
        held, closed = lease.asked(), process.session._closed is not None
        try:
            await self._service(process).unlock(object)
        except LeaseLost:
            if lease.asked() or not (lease.losses or closed):
                world.fail(f"{key} was told that {lease!r} was lost, and it was not")
        else:
            if not held and lease.losses:
                world.fail(f"{key} unlocked {lease!r}, and was not told that it was lost")
        finally:
            if last and not world.over:
                self.judge.released(lease)
        if not last and held and not lease.asked():
            world.fail(f"{key} unlocked {lease!r} once too few, and does not hold it")

    async def _unlock_what_is_not_held(self, process: Process, object: str) -> None:
        """Refused, whoever else holds it."""
        held = [each.lease for (_, id), each in self._holds.items() if id == object]
        before = [lease.over for lease in held]
        try:
            await self._service(process).unlock(object)
        except NotHeld:
            if [lease.over for lease in held] != before:
                self.world.fail(f"an unlocking of {object} was refused, and took effect: {held}")
        else:
            self.world.fail(f"{self._me()} has unlocked {object}, which it does not hold")

    def _ask(self, process: Process, object: str) -> None:
        """What the service says of an object is what its lease says."""
        service, hold = self._service(process), self._holds.get((self._me(), object))
        try:
            token = service.token(object)
        except NotHeld:
            fits = hold is None
        except LeaseLost:
            fits = hold is not None and not hold.lease.asked()
        else:
            fits = hold is not None and hold.lease.asked() and hold.lease.token == token
        if not fits:
            self.world.fail(f"{self._me()} was told wrongly of {object}: {hold}")

    # -- what clients do ---------------------------------------------------------

    async def visit(self, process: Process) -> None:
        world, runtime = self.world, process.node.runtime
        objects = [self.name + each for each in world.rng.sample(self.OBJECTS, 2)]
        until = runtime.now() + self.plan.hold * world.random()
        timeout = self.plan.ttl * world.random() ** 2 if world.chance(0.5) else None
        try:
            if not await self._lock(process, objects[0], world.chance(0.8), None):
                return
            while runtime.now() < until:
                await self._step(process, objects[0])
                if world.chance(0.2):
                    # Never without a bound: who holds the other may want this one.
                    seconds = 0.0 if timeout is None else timeout
                    await self._lock(process, objects[1], timeout is not None, seconds or None)
                await runtime.sleep(min(until, runtime.now() + self.plan.hold * 0.2))
        finally:
            if not world.over:
                await self._unlock_all(process)

    async def _step(self, process: Process, object: str) -> None:
        world, me = self.world, self._me()
        for each in (object, f"{self.name}{world.rng.choice(self.OBJECTS)}"):
            self._ask(process, each)
            if (me, each) not in self._holds and world.chance(0.3):
                await self._unlock_what_is_not_held(process, each)
        hold = self._holds.get((me, object))
        if hold is not None and hold.lease.asked():
            self.judge.write(hold.lease, known_held=True)
        if world.chance(0.5) and hold is not None:
            await self._lock(process, object, world.chance(0.5), None)
        elif hold is not None and (hold.depth > 1 or not hold.lease.asked()):
            await self._unlock(process, object)

    async def _unlock_all(self, process: Process) -> None:
        me = self._me()
        mine = [(object, hold.depth) for (task, object), hold in self._holds.items() if task is me]
        errors: list[BaseException] = []
        for object, depth in mine:
            try:
                for _ in range(depth):
                    await self._unlock(process, object)
            except BaseException as error:
                errors.append(error)
            if not self.world.over:
                await self._unlock_what_is_not_held(process, object)
        if errors:
            raise errors[0]

    def finale(self) -> None:
        """Two callers of one process and one of another have it in turn, twice over."""
        had: list[str] = []
        object = self.name + self.OBJECTS[0]

        async def take(process: Process) -> None:
            for _ in range(2):
                if not await self._lock(process, object, True, None):
                    self.world.fail(f"{self._me()} waited for ever, and has nothing")
            await process.node.runtime.sleep(process.node.now() + self.plan.ttl * 0.05)
            await self._unlock_all(process)
            had.append(self._me().name)

        first, second = self.alive(2)
        for process in (first, first, second):
            self.start(process, take(process), "take")
        self.until((self.schedule.crashed + 4) * 1.5, "all have it", lambda: len(had) == 3)
        for node, service in self._services.items():
            if not node.dead and service._held:
                self.world.fail(f"all is unlocked, and {service!r} of {node} has something")
