"""Cases and the world that they run in.

A case is written once, as `async def`, and uses the public API of either flavour:
`await env(lock.acquire())` awaits what the asyncio API returns, and takes what the
synchronous one has already done. On the thread runtime the case is driven without an
event loop, and its helpers are real threads.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import tenure
import tenure.aio

from ..._model import Traits
from ..._runtime.thread import drive
from ...policy.gate import lifted
from ..backends import Backend
from ..proxy import Proxy
from .actor import Actor

Flavour: TypeAlias = Literal["thread", "asyncio"]
FLAVOURS: tuple[Flavour, ...] = ("thread", "asyncio")
CASE_SECONDS_MAX = 120.0

Work: TypeAlias = Callable[[], Coroutine[Any, Any, Any]]
Body: TypeAlias = Callable[["Env"], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Need:
    """What a driver must claim for a case to make sense."""

    met: Callable[[Traits], bool]
    reason: str
    """What the table says where it is not met."""


SERVER = Need(lambda traits: traits.server, "no server")
EXPIRES = Need(lambda traits: traits.expires, "leases have no deadline")
SHARED = Need(lambda traits: traits.shared, "refused: no shared locks")
ROSTERS = Need(lambda traits: traits.rosters, "locks only: no rosters")
EXCLUSIVE_ONLY = Need(lambda traits: not traits.shared, "has shared locks")
PROCESSES = Need(lambda traits: traits.scope != "threads", "one process only")
THREADS_ONLY = Need(lambda traits: traits.scope == "threads", "works between processes")
FAIR = Need(lambda traits: traits.fair, "no order among clients")
SEES_DEATH = Need(lambda traits: traits.frees_on_death, "frees after the TTL")
ENDS_WITH_CONNECTION = Need(
    lambda traits: traits.frees_on_death and traits.server, "leases outlive a connection"
)
OUTLIVES_CONNECTION = Need(
    lambda traits: traits.server and not traits.frees_on_death, "leases end with a connection"
)


@dataclass(frozen=True)
class Case:
    """One promise, and the code that tries to break it."""

    name: str
    rules: tuple[int, ...]
    text: str
    body: Body
    needs: tuple[Need, ...]
    flavours: tuple[Flavour, ...]
    timed: bool
    """Whether it waits for the TTL, which is short then. With a longer one, the other cases do
    not depend on how busy the machine is."""

    def unmet(self, traits: Traits) -> str | None:
        """Why the case does not apply to a driver; None if it does."""
        for need in self.needs:
            if not need.met(traits):
                return need.reason
        return None


CASES: list[Case] = []


_LOCKS_ONLY = frozenset({"basic", "faults", "processes", "rwlock", "objectlock", "backend"})
"""The modules whose cases take locks at most; those of all others need rosters."""


def case(
    *rules: int,
    needs: tuple[Need, ...] = (),
    flavours: tuple[Flavour, ...] = FLAVOURS,
    timed: bool = False,
) -> Callable[[Body], Body]:
    """Register a case. `rules` are the lease rules that it defends; `timed` if it needs a TTL
    that is over soon."""

    def register(body: Body) -> Body:
        name = getattr(body, "__name__", "")
        text = " ".join((inspect.getdoc(body) or "").split())
        module = body.__module__.rpartition(".")[2]
        wanted = needs if module in _LOCKS_ONLY else (ROSTERS, *needs)
        CASES.append(Case(name, rules, text, body, wanted, flavours, timed))
        return body

    return register


class Task:
    """Work in the background of a case: a thread or an asyncio task."""

    def __init__(self, env: Env, work: Work) -> None:
        self._env = env
        self._future: Future[Any] = Future()
        self.task: asyncio.Task[None] | None = None

        async def run() -> None:
            try:
                self._future.set_result(await work())
            except BaseException as error:
                if not self._future.done():
                    self._future.set_exception(error)
                if isinstance(error, asyncio.CancelledError):
                    raise

        if env.flavour == "asyncio":
            self.task = asyncio.get_running_loop().create_task(run())
        else:
            self._thread = threading.Thread(target=lambda: drive(run()), daemon=True)
            self._thread.start()

    def done(self) -> bool:
        """Say whether the work has ended."""
        return self._future.done()

    async def result(self, timeout: float = 30.0) -> Any:
        """Wait for the work and return what it returned, or raise what it raised."""
        await self._env.until(self._future.done, timeout, "the background work to end")
        if self.task is None:
            self._thread.join(timeout)
        return self._future.result(0)


class Env:
    """The world of one run of one case: a flavour, a backend, and a namespace of its own."""

    def __init__(
        self, backend: Backend, flavour: Flavour, namespace: str, timed: bool = True
    ) -> None:
        self.backend = backend
        self.flavour = flavour
        self.namespace = namespace
        self.traits = backend.traits()
        self.ttl = max(1.0, self.traits.min_ttl) * (1.0 if timed else 4.0)
        self.death = self.ttl * self.traits.linger
        """How long a session that is not renewed may count, in seconds."""
        self.events: list[tenure.Event] = []
        self._names = 0
        self._coordinators: list[Any] = []
        self._closers: list[Callable[[], object]] = []

    async def __call__(self, value: Any) -> Any:
        """The result of a call to either API."""
        return await value if inspect.isawaitable(value) else value

    async def connect(self, url: str | None = None, **options: Any) -> Any:
        """A coordinator of this flavour; it is closed when the case ends."""
        options = {"namespace": self.namespace, "ttl": self.ttl} | options
        module = tenure.aio if self.flavour == "asyncio" else tenure
        coordinator = await self(module.connect(url or self.backend.url, **options))
        self._coordinators.append(coordinator)
        return coordinator

    def name(self) -> str:
        """A lock name that nobody else uses."""
        self._names += 1
        return f"case-{self._names}"

    def spawn(self, work: Work) -> Task:
        """Run work in the background."""
        return Task(self, work)

    def actor(self, **options: Any) -> Actor:
        """Another process with a coordinator of its own; it is ended with the case."""
        options = {"namespace": self.namespace, "ttl": self.ttl} | options
        actor = Actor(self.flavour, str(options.pop("url", self.backend.url)), options)
        self._closers.append(actor.kill)
        return actor

    async def ready_actor(self, **options: Any) -> Actor:
        """The same, once it is connected. Its start may take long, and must not hold up a loop
        that has leases to renew."""
        actor = self.actor(**options)
        await self.until(actor.has_answered, 30, "another process to be connected")
        return actor.ready()

    def proxy(self) -> Proxy:
        """A proxy before the server."""
        proxy = self.backend.proxy().start()
        self._closers.append(proxy.close)
        return proxy

    def url_through(self, proxy: Proxy) -> str:
        """The backend's URL by way of the proxy."""
        return self.backend.url_through(proxy)

    async def pause(self, seconds: float) -> None:
        """Let time pass, where passing time is what the case is about."""
        if self.flavour == "asyncio":
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)

    async def until(self, condition: Callable[[], Any], seconds: float, what: str) -> None:
        """Wait for a condition, and fail if it has not come true in time."""
        give_up = tenure.now() + seconds
        while not condition():
            if tenure.now() > give_up:
                raise AssertionError(f"waited {seconds:g} s in vain for {what}")
            await self.pause(0.002)

    async def footprint(self) -> int:
        """What the backend keeps now, in the backend's unit; the loop is not held up."""
        if self.flavour == "asyncio":
            return await asyncio.to_thread(self.backend.footprint, self.namespace)
        return self.backend.footprint(self.namespace)

    async def until_footprint(self, good: Callable[[int], bool], seconds: float, what: str) -> None:
        """Wait until the backend keeps a number of things that is good."""
        give_up = tenure.now() + seconds
        while not good(count := await self.footprint()):
            if tenure.now() > give_up:
                raise AssertionError(f"waited {seconds:g} s in vain for {what}: {count} things")
            await self.pause(0.01)

    async def until_queued(self, base: int, seconds: float, what: str) -> None:
        """Wait until somebody waits: the backend keeps more than before, if it shows that."""
        if self.backend.shows_waiters:
            await self.until_footprint(lambda count: count > base, seconds, what)
        else:
            await self.pause(0.3)

    async def close(self) -> None:
        """End everything that the case started."""
        for closer in reversed(self._closers):
            closer()
        for coordinator in reversed(self._coordinators):
            await self(coordinator.close())

    def session_of(self, coordinator: Any) -> Any:
        """The session inside of a coordinator, for cases that break it on purpose."""
        return coordinator._session


def run(case: Case, backend: Backend, flavour: Flavour, namespace: str) -> None:
    """Run one case once; raises whatever it finds. What is judged here is not refused before."""
    env = Env(backend, flavour, namespace, case.timed)

    async def whole() -> None:
        try:
            await case.body(env)
        finally:
            await env.close()

    quiet = logging.getLogger("tenure")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # the losses that cases provoke are not news
    try:
        with lifted():
            if flavour == "asyncio":
                asyncio.run(asyncio.wait_for(whole(), CASE_SECONDS_MAX))
            else:
                drive(whole())
    finally:
        quiet.setLevel(level)
