"""The third runtime: signals, timers and jobs of one node, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

from .._runtime.base import Flavour
from ._sim_world import Cancelled, Node, Vanished, Waiter, World

T = TypeVar("T")


def boot(world: World, name: str, offset: float, rate: float) -> Node:
    """A node with a runtime of its own."""
    node = Node(world, name, offset, rate)
    SimRuntime(node)
    return node


class SimSignal:
    """`runtime.base.Signal` in virtual time."""

    __slots__ = ("_flag", "_node", "_serial", "_waiters")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._flag = False
        self._serial = node.world.serial()
        self._waiters: list[Waiter] = []

    def __hash__(self) -> int:
        # Not the address: the order of a set of signals must be the same in every run.
        return self._serial

    def set(self) -> None:
        self._flag = True
        for waiter in self._waiters:
            waiter.fire()

    def clear(self) -> None:
        self._flag = False

    def is_set(self) -> bool:
        return self._flag

    async def wait(self, until: float | None) -> bool:
        if self._flag:
            return True
        node = self._node
        waiter = Waiter(node.world)
        self._waiters.append(waiter)
        if until is not None and until < math.inf:
            node.world.push(node.when(until), node, waiter.fire)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)
        return self._flag


class SimLock(AbstractContextManager[bool]):
    """Excludes nobody, since nothing runs in parallel; finds what would deadlock threads."""

    __slots__ = ("_taken", "_world")

    def __init__(self, world: World) -> None:
        self._world = world
        self._taken = False

    def __enter__(self) -> bool:
        world = self._world
        if self._taken:
            world.fail("a lock that is not reentrant was taken twice: threads would deadlock")
        self._taken = True
        world.locks_held += 1
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._taken = False
        self._world.locks_held -= 1


class SimMutex(AbstractAsyncContextManager[None]):
    """A lock whose holder may wait; handed over in order."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._taken = False
        self._queue: list[Waiter] = []

    async def __aenter__(self) -> None:
        if not self._taken:
            self._taken = True
            return
        waiter = Waiter(self._world)
        self._queue.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter in self._queue:
                self._queue.remove(waiter)
            else:
                self._hand_over()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hand_over()

    def _hand_over(self) -> None:
        if self._queue:
            self._queue.pop(0).fire()
        else:
            self._taken = False


class SimTimer:
    """A call that is due later."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self._call = None

    def fire(self, _: object) -> None:
        """Call it, unless it was cancelled."""
        if self._call is not None:
            self._call()


class SimJob:
    """A task in the background, whose failure is a broken rule."""

    __slots__ = ("_task",)

    def __init__(
        self, node: Node, main: Callable[[], Coroutine[Any, Any, None]], name: str
    ) -> None:
        async def run() -> None:
            try:
                await main()
            except Exception as error:
                node.world.fail(f"the background job {name!r} of {node} died: {error!r}")

        self._task = node.start(run(), f"{node}/{name}")

    def cancel(self) -> None:
        if not self._task.node.world.threads:
            self._task.cancel()

    def ended(self) -> bool:
        """Whether the task has ended."""
        return self._task.done

    async def join(self, until: float) -> bool:
        task = self._task
        node = task.node
        if not task.done:
            waiter = Waiter(node.world)
            task.watchers.append(waiter)
            node.world.push(node.when(until), node, waiter.fire)
            await waiter
        return task.done


class SimRuntime:
    """`runtime.base.Runtime` of one node."""

    flavour: Flavour = "simulated"

    def __init__(self, node: Node) -> None:
        node.runtime = self
        self.node = node
        self.world = node.world
        self.random = node.world.random
        self.now = node.now

    def wall(self) -> float:
        return 1.6e9 + self.node.wall_offset + self.world.time

    def unique(self) -> str:
        return f"u{self.world.serial()}"

    def caller(self) -> object:
        return self.world.current

    def signal(self) -> SimSignal:
        return SimSignal(self.node)

    def lock(self) -> AbstractContextManager[bool]:
        return SimLock(self.world)

    def mutex(self) -> AbstractAsyncContextManager[None]:
        return SimMutex(self.world)

    async def sleep(self, until: float) -> None:
        node = self.node
        waiter = Waiter(node.world)
        node.world.push(node.when(until), node, waiter.fire)
        await waiter

    def call_at(self, when: float, call: Callable[[], None]) -> SimTimer:
        timer = SimTimer(call)
        self.world.push(self.node.when(when), self.node, timer.fire)
        return timer

    def cancelling(self) -> bool:
        """Always: a cancellation comes from the world, and never from a callback."""
        return True

    def spawn(self, main: Callable[[], Coroutine[Any, Any, None]], name: str) -> SimJob:
        return SimJob(self.node, main, name)

    async def blocking(self, call: Callable[[], T]) -> T:
        return call()

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        if self.world.over:
            work.close()
            raise Vanished
        task = self.node.start(work, f"{self.node}/finish")
        if self.world.current is not None:
            task.acquire = self.world.current.acquire
        cancelled: Cancelled | None = None
        while not task.done:
            waiter = Waiter(self.world)
            task.watchers.append(waiter)
            try:
                await waiter
            except Cancelled as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        if task.error is not None:
            raise task.error
        result: T = task.result
        return result
