"""A virtual world: time, nodes with clocks of their own, and tasks; one seed decides it all.

Nothing here waits: the scheduler takes the next event from a heap
and jumps to its time. What is due at the same moment happens in a random order. A
node is one process on one machine: it can be paused, as by SIGSTOP or a suspend (its
clock goes on, nothing of it runs), and it can crash (nothing of it ever runs again).
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import random
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from .._runtime.base import Runtime

STEPS_MAX = 60_000
"""More events than this in one schedule, and something goes round in circles."""

INSTANT = 1e-9
"""Later by so much that a clock which was converted to and fro has surely reached its time."""


class Violation(AssertionError):
    """A rule was broken; the message says which, and how to see it again."""


class Cancelled(BaseException):
    """A task was cancelled at the point where it waits."""


class Vanished(BaseException):
    """The world is over, or the process crashed: what still runs must unwind, without effect."""


class World:
    """The scheduler, and the only source of time and chance."""

    def __init__(self, seed: object, *, traced: bool = False) -> None:
        self.seed = str(seed)
        self.rng = random.Random(self.seed)
        self.random = self.rng.random
        self.time = 0.0
        self.steps = 0
        self.over = False
        self.judge: Any = None
        self.threads = False
        """Whether jobs are like threads, which cannot be cancelled."""
        self.current: Task | None = None
        self.locks_held = 0
        self.serial = itertools.count(1).__next__
        self.failure: str | None = None
        self.watch: Callable[[], None] | None = None
        """Called after every event while it is set: the judge looks at what is in dispute."""
        self.trace: list[str] | None = [] if traced else None
        self.tasks: list[Task] = []
        self._heap: list[tuple[float, float, int, Node | None, Callable[[Any], object], Any]] = []

    def push(
        self, when: float, node: Node | None, call: Callable[[Any], object], arg: Any = None
    ) -> None:
        """Have `call(arg)` happen at that time; on a node, only while the node runs."""
        heapq.heappush(self._heap, (when, self.random(), self.serial(), node, call, arg))

    def between(self, low: float, high: float) -> float:
        """A number between the two."""
        return low + (high - low) * self.random()

    def chance(self, probability: float) -> bool:
        """True as often as the probability says."""
        return self.random() < probability

    def fail(self, rule: str) -> None:
        """A rule is broken. Noted rather than raised: the core must not get to handle it."""
        if self.failure is None and not self.over:
            self.failure = f"at {self.time:.6f} s: {rule}"
            self.note("VIOLATION", rule)

    def note(self, *what: object) -> None:
        """Write a line into the trace, if there is one; a dot marks a mere event."""
        if self.trace is not None:
            self.trace.append(f"{self.time:12.6f}  {' '.join(map(str, what))}")

    def story(self, lines: int) -> list[str]:
        """The end of the trace, without the mere events."""
        return [line for line in self.trace or () if not line.startswith(".", 14)][-lines:]

    def run(self, until: float) -> None:
        """Let happen what is due until then."""
        heap, pop, traced = self._heap, heapq.heappop, self.trace is not None
        while heap and heap[0][0] <= until:
            when, _, _, node, call, arg = pop(heap)
            self.time = when
            if node is not None and node.stopped:
                if not node.dead:
                    node.deferred.append((call, arg))
                continue
            if traced:
                self.note(".", node.name if node else "-", getattr(call, "__qualname__", "call"))
            call(arg)
            if self.watch is not None:
                self.watch()
            if self.failure is not None:
                raise Violation(self.failure)
            self.steps += 1
            if self.steps > STEPS_MAX:
                raise Violation(f"at {when:.6f} s: no end after {STEPS_MAX} events")
        self.time = max(self.time, until)

    def end(self) -> None:
        """Unwind what still runs, so that no coroutine is left for the garbage collector."""
        self.over = True
        for task in self.tasks:
            task.unwind()
        self.tasks.clear()
        self._heap.clear()


class Node:
    """One process: a clock that is off and drifts, its tasks, and whether it runs."""

    __slots__ = (
        "ambushed", "cut_in", "cut_out", "dead", "deferred", "name", "offset", "passes", "pauses",
        "rate", "resumed_at", "runtime", "stalled_until", "stopped", "wall_offset", "world",
    )  # fmt: skip

    runtime: Runtime

    def __init__(self, world: World, name: str, offset: float, rate: float) -> None:
        self.world = world
        self.name = name
        self.offset = offset
        self.rate = rate
        self.wall_offset = 0.0
        self.stopped = False
        self.dead = False
        self.resumed_at = -math.inf
        self.pauses = 0
        self.cut_in = False
        self.cut_out = False
        self.stalled_until = -math.inf
        """Until then its requests are on their way, and then they all arrive."""
        self.ambushed = False
        """Its next renewal passes, with a late reply, and then nothing passes."""
        self.passes: int | None = None
        """How many more requests pass; None means that no limit is set."""
        self.deferred: list[tuple[Callable[[Any], object], Any]] = []

    def now(self) -> float:
        """The node's own monotonic clock."""
        return self.offset + self.rate * self.world.time

    def when(self, local: float) -> float:
        """The world's time at which the node's clock shows `local`, or now if that is past."""
        world = self.world
        return max(world.time, (local - self.offset) / self.rate + INSTANT)

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> Task:
        """Run a coroutine as a task of this node."""
        task = Task(self, work, name)
        self.world.push(self.world.time, self, task.step)
        return task

    def pause(self) -> None:
        """Like SIGSTOP or a suspend: nothing of the node runs, and its clock goes on."""
        if not self.stopped:
            self.world.note(self.name, "paused")
            self.stopped = True
            self.pauses += 1

    def resume(self) -> None:
        """What was due meanwhile happens now, in any order."""
        if self.stopped and not self.dead:
            world = self.world
            world.note(self.name, "goes on")
            self.stopped = False
            self.resumed_at = world.time
            deferred, self.deferred = self.deferred, []
            for call, arg in deferred:
                world.push(world.time, self, call, arg)

    def crash(self) -> None:
        """Like SIGKILL: nothing of the node ever runs again."""
        self.world.note(self.name, "crashed")
        self.stopped = self.dead = True
        self.deferred.clear()

    def __repr__(self) -> str:
        return self.name


class Task:
    """A coroutine that the scheduler carries on whenever what it waits for has come."""

    __slots__ = (
        "acquire", "cancelling", "done", "error", "name", "node", "result", "waiter", "watchers",
        "work",
    )  # fmt: skip

    def __init__(self, node: Node, work: Coroutine[Any, Any, Any], name: str) -> None:
        self.node = node
        self.work = work
        self.name = name
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.acquire: Any = None
        """What the harness notes about the acquire that this task is in."""
        self.cancelling = False
        self.waiter: Waiter | None = None
        self.watchers: list[Waiter] = []
        node.world.tasks.append(self)

    def step(self, value: Any) -> None:
        """Carry on until it waits again, or ends."""
        world = self.node.world
        world.current = self
        self.waiter = None
        try:
            if self.cancelling:
                self.cancelling = False
                self.work.throw(Cancelled())
            else:
                self.work.send(value)
        except StopIteration as stop:
            self._end(stop.value, None)
        except (Exception, Cancelled) as error:
            self._end(None, error)
        world.current = None
        if world.locks_held:
            world.fail(f"{self.name} waited while it held a lock that must not be held so long")

    def _end(self, result: Any, error: BaseException | None) -> None:
        self.done = True
        self.result = result
        self.error = error
        self.node.world.tasks.remove(self)
        for watcher in self.watchers:
            watcher.fire()

    def cancel(self) -> None:
        """Throw `Cancelled` into it at the point where it waits, even if that has come true."""
        if self.done:
            return
        self.cancelling = True
        waiter = self.waiter
        if waiter is not None and not waiter.fired:
            waiter.fire()

    def unwind(self) -> None:
        """End it without effect on anything."""
        # It may try to wait while it unwinds.
        with contextlib.suppress(Vanished, RuntimeError, Cancelled):
            self.work.close()

    def __repr__(self) -> str:
        return self.name


class Waiter:
    """One wait of one task, which ends once."""

    __slots__ = ("fired", "task")

    def __init__(self, world: World) -> None:
        task = world.current
        if world.over or task is None:
            raise Vanished
        self.task = task
        self.fired = False

    def fire(self, value: Any = None) -> None:
        """The wait is over. Idempotent."""
        if not self.fired:
            self.fired = True
            node = self.task.node
            node.world.push(node.world.time, node, self.task.step, value)

    def __await__(self) -> Generator[None, Any, Any]:
        self.task.waiter = self
        try:
            value = yield
        finally:
            self.fired = True
        return value
