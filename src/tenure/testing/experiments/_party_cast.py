"""Who takes part in an experiment: coordinators here, other processes, proxies, waiters.

All of it is gone when the experiment ends, however it ends. No wait is without a bound.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import tenure

from ..kit.actor import Actor
from ..servers import _proc
from ._base import Found, Target, Untestable

SLACK_SECONDS = 3.0
"""How much later than it should a thing may happen on a loaded machine, or with one more look."""
TTL_SECONDS_MIN = 1.0
PATIENCE_SECONDS = 20.0
"""How long a server may refuse connections, or be slow to take them, on a loaded machine."""
TRIES_MAX = 3
CONNECT_SECONDS_MAX = 20.0
"""How long a server may refuse connections after a restart."""


class Cast:
    """The participants of one experiment, which is called `title` in the names of its locks."""

    def __init__(self, target: Target, found: Found, title: str) -> None:
        self.target = target
        traits = target.traits
        # Shorter where a session may count for several TTLs, since that is what is waited for.
        wanted = min(target.ttl, max(TTL_SECONDS_MIN, target.ttl / traits.linger))
        self.ttl = max(wanted, traits.min_ttl)
        self.death = self.ttl * traits.linger
        """How long a session that is not renewed may count, in seconds."""
        self.lapse = 1.25 * self.death + 1.5
        """How long a grant is waited for that may never come; some backends are late to expire."""
        self.chance = random.Random(target.seed ^ zlib.crc32(title.encode()))
        self._title = title
        self._names = 0
        self._closing = contextlib.ExitStack()
        found.parameters |= {"ttl": self.ttl, "linger": traits.linger}

    def name(self) -> str:
        """The name of a lock that nobody else uses."""
        self._names += 1
        return f"{self._title}-{self._names}"

    def connect(self, patience: float | None = None) -> tenure.Coordinator:
        """A coordinator in this process; a server that is slow to take it is waited for."""
        give_up = tenure.now() + (PATIENCE_SECONDS if patience is None else patience)
        while True:
            try:
                coordinator = self.target.connect(ttl=self.ttl)
            except tenure.BackendError:
                if tenure.now() > give_up:
                    raise
                time.sleep(0.1)
            else:
                self._closing.callback(coordinator.close)
                return coordinator

    def actor(self, url: str | None = None, prefix: Sequence[str] = (), **options: Any) -> Actor:
        """Another process with a coordinator; it connects while the caller goes on."""
        target = self.target
        chosen = {"namespace": target.namespace, "ttl": self.ttl, **options}
        actor = Actor("thread", url or target.url, chosen, target.preload, prefix, PATIENCE_SECONDS)
        self._closing.callback(actor.kill)
        return actor

    def actors(self, count: int) -> list[Actor]:
        """So many other processes, connected.

        Two at a time, since a machine that starts many is too busy to connect them in time.
        """
        started: list[Actor] = []
        for number in range(count):
            started.append(self.actor())
            if number:
                started[number - 1].ready()
        started[-1].ready()
        return started

    def bid(self, coordinator: tenure.Coordinator, name: str, seconds: float) -> Bid:
        """Somebody who waits for a lock, in the background."""
        bid = Bid(coordinator, name, seconds)
        self._closing.callback(bid.give_up)
        return bid

    def proxy(self) -> tuple[Any, str]:
        """A proxy before the server, and the URL by way of it."""
        backend = self.target.backend
        assert backend is not None
        proxy = backend.proxy().start()
        self._closing.callback(proxy.close)
        return proxy, backend.url_through(proxy)

    def later(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have something done when the experiment ends."""
        self._closing.callback(call, *arguments)

    @property
    def server(self) -> Any:
        """The server that may be restarted; None if there is none."""
        backend = self.target.backend
        return None if backend is None else backend.server

    def __enter__(self) -> Self:
        quiet = logging.getLogger("tenure")
        self._closing.callback(quiet.setLevel, quiet.level)
        quiet.setLevel(logging.CRITICAL)  # the losses that are provoked are not news
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.close()


class Bid:
    """A wait for a lock in a thread, and when it was granted. Errors are retried till the end."""

    def __init__(self, coordinator: tenure.Coordinator, name: str, seconds: float) -> None:
        self._lock = coordinator.lock(name)
        self._until = tenure.now() + seconds
        self.lease: tenure.Lease | None = None
        self.at: float | None = None
        """When it was granted, or rather when that was known; None as long as it is not."""
        self._thread = threading.Thread(target=self._work, name="tenure-bid", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (left := self._until - tenure.now()) > 0:
            try:
                # In short turns, for the wait to end soon when it is given up.
                lease = self._lock.acquire(timeout=min(left, 1.0))
            except tenure.AcquireTimeout:
                continue
            except tenure.ClosedError:
                return
            except (tenure.BackendError, tenure.LeaseLost):
                time.sleep(0.05)
                continue
            self.lease, self.at = lease, tenure.now()
            return

    def wait(self, seconds: float) -> bool:
        """Wait for the grant so long; say whether it was granted."""
        self._thread.join(seconds)
        return self.at is not None

    def give_up(self) -> None:
        """Wait no longer, and give back what was granted."""
        self._until = 0.0
        self._thread.join(CONNECT_SECONDS_MAX)
        lease, self.lease = self.lease, None
        if lease is not None:
            with contextlib.suppress(tenure.TenureError):
                lease.release()


def paused(actor: Actor) -> str:
    """The proof that every thread of a process is stopped; empty if one is not."""
    # The first thread stops first; the others may take a moment on a loaded machine.
    stopped = _proc.until(lambda: _proc.stopped(actor.pid), SLACK_SECONDS)
    return f"state {_proc.state(actor.pid)} of process {actor.pid}" if stopped else ""


def kill_child(pid: int) -> None:
    """End a process that another one has forked, and that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def answered(answer: dict[str, Any], what: str) -> dict[str, Any]:
    """The answer of another process; `Untestable` if it is an error."""
    if "error" in answer:
        raise Untestable(f"{what}: {answer['error']}: {answer['text']}")
    return answer


def still_holds(actor: Actor, name: str) -> None:
    """Refuse to judge what another was granted if the holder has lost its lease, and knows it."""
    if not answered(actor.do("state", name=name), "the holder, asked for its lease")["held"]:
        raise Untestable("the machine was too slow to renew a lease")


def excludes_processes(cast: Cast, here: tenure.Coordinator) -> bool:
    """Whether a lock that is held here is kept from another process at all."""
    actor = cast.actor().ready()
    for _ in range(TRIES_MAX):
        name = cast.name()
        lease = here.lock(name).acquire(timeout=CONNECT_SECONDS_MAX)
        taken = answered(actor.do("try", name=name), "another process tried to acquire")
        if lease.held():
            lease.release()
            actor.kill()
            return taken["token"] is None
    raise Untestable("the machine is too slow to renew a lease that it holds for a moment")


class Withheld:
    """A session whose renewals do not reach the backend any more, and neither does its end.

    That is what a pause or a cut looks like for who shares a process with everybody else.
    """

    def __init__(self, coordinator: tenure.Coordinator) -> None:
        self.count = 0
        self._verbs = vars(coordinator._session.driver)
        self._verbs |= {"renew": self._withhold, "end": self._withhold}

    async def _withhold(self, session: str) -> None:
        self.count += 1
        raise tenure.Unavailable("withheld by an experiment")

    def heal(self) -> None:
        """Let everything through again."""
        del self._verbs["renew"], self._verbs["end"]

    @property
    def proof(self) -> str:
        """What was counted; empty if nothing was."""
        return f"{self.count} renewals were withheld" if self.count else ""
