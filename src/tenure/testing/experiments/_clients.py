"""The clients of a history: each is a process of its own, and writes down what it was told."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import tenure

from ... import errors
from ..._model import Record
from ..._runtime._clock import unique
from ..._runtime.thread import drive
from ...errors import OutcomeUnknown, SessionLost, TenureError, Unavailable
from ..histories import Operation, Outcome
from ..kit.actor import Actor
from ._clusters import Cluster

PACE_SECONDS = 0.02
"""About how long a client of a crowd waits between two calls."""
HOLDS_SECONDS = 0.02
"""How often who holds a lock asks whether it does."""


class Scene:
    """What the clients of one history share. As a context manager it disconnects them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.target = cluster.target
        self.history: list[Operation] = []
        self.prefix = f"{unique()}-"
        """What the names of its records and locks begin with; the history leaves it out."""
        self.clients: list[Client] = []

    def client(self, process: str, node: int | None = None, url: str = "") -> Client:
        """A client of one node alone, of all of them, or of another URL."""
        if self.cluster.size == 1:
            node = None
        if node is not None:
            url = self.cluster.endpoint(node)
        # Where there is no server, what keeps the data may be in the process: so each second
        # one is another process in truth.
        apart = self._apart and len(self.clients) % 2 == 1
        made = Client(self, process, node, url or self.cluster.url, apart)
        self.clients.append(made)
        return made

    @property
    def _apart(self) -> bool:
        traits = self.target.traits
        return not traits.server and traits.scope != "threads" and traits.rosters

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self.clients:
            client.close()


class Client:
    """A coordinator at one endpoint, whose calls go into a history.

    Records are read and written with the driver's own verbs, since all else rests on them.
    Several clients may be one process of the history, each at another endpoint.
    """

    def __init__(
        self, scene: Scene, process: str, node: int | None, url: str, apart: bool = False
    ) -> None:
        self.process = process
        self.endpoint = "" if node is None else f"node {node}"
        self._node = node
        self._scene = scene
        self._url = url
        self._apart = apart
        self._actor: Actor | None = None
        self._coordinator: tenure.Coordinator | None = None
        self.only_reads = False
        self._known: dict[str, Record | None] = {}
        """What each key was when it was read or written last; absent if that is not known."""

    def reach(self) -> tenure.Coordinator:
        """The coordinator; connects if that has not been possible yet."""
        if self._coordinator is None:
            self._coordinator = self._scene.target.connect(self._url, owner=self.process)
        return self._coordinator

    def move_in(self) -> None:
        """Have this thread work on the node's own host, and share its fate."""
        network = self._scene.cluster.network
        if self._node is not None and network is not None:
            network.move_in(self._node)

    def close(self) -> None:
        """Disconnect."""
        if self._coordinator is not None:
            self._coordinator.close()
            self._coordinator = None
        if self._actor is not None:
            self._actor.kill()
            self._actor = None

    def read(self, key: str, parse: Callable[[str], Any] = str) -> Operation:
        """Read a record; what it holds is taken apart for the history."""
        self._known.pop(key, None)

        def read() -> Any:
            record = self._recall(key)
            self._known[key] = record
            return None if record is None else parse(record.text)

        return self._call("read", key, None, read)

    def knows(self, key: str) -> bool:
        """Whether it may swap without reading anew."""
        return key in self._known

    def swap(self, key: str, new: str, old: Record | None = None) -> Operation:
        """Replace what it saw last, or an older record that it was given."""
        expected = old or self._known.pop(key)

        def swap() -> bool:
            version = self._record(key, new, expected)
            if version is not None:
                self._known[key] = Record(new, version)
            return version is not None

        return self._call("swap", key, (expected and expected.text, new), swap)

    def write(self, key: str, number: int) -> Operation:
        """Write a greater number, as the only one who writes this key."""

        def write() -> None:
            text = str(number)
            if key not in self._known:
                self._known[key] = self._recall(key)
            version = self._record(key, text, self._known.pop(key))
            if version is None:
                # Only a write of its own, of which nothing was heard, can have come between.
                raise Unavailable("another write of its own came first")
            self._known[key] = Record(text, version)

        return self._call("write", key, number, write)

    def known(self, key: str) -> Record | None:
        """What it saw last."""
        return self._known.get(key)

    def hold(self, key: str, seconds: float) -> None:
        """Take a lock if it is free, hold it for a while, and free it."""
        called = tenure.now()
        try:
            lease = self.lock(key).try_acquire()
        except TenureError:
            return  # nothing is held; what the backend may keep for a while grants nothing
        if lease is None:
            return
        acquired = self.note("acquire", key, called, returned=tenure.now(), result=lease.token)
        until = tenure.now() + seconds
        while lease.held() and tenure.now() < until:
            asked = tenure.now()
            if lease.held():
                self.note("holds", key, asked, returned=tenure.now(), value=lease.token)
            lease.lost.wait(HOLDS_SECONDS)
        called = tenure.now()
        outcome: Outcome = "ok"
        try:
            lease.release()
        except TenureError:
            outcome = "unknown"
        if outcome == "unknown":
            called = acquired.called  # it may have ended at any time since it was granted
        self.note("release", key, called, returned=tenure.now(), value=lease.token, outcome=outcome)

    def lock(self, key: str) -> tenure.Lock:
        """A lock, for calls that are not written down."""
        return self.reach().lock(self._name(key))

    def operations(self) -> list[Operation]:
        """What its process has written down."""
        return [each for each in self._scene.history if each.process == self.process]

    def note(self, kind: str, key: str, called: float, **more: Any) -> Operation:
        """Write down what was seen otherwise."""
        each = Operation(self.process, kind, key, called, endpoint=self.endpoint, **more)
        self._scene.history.append(each)
        return each

    def _recall(self, key: str) -> Record | None:
        if not self._apart:
            return drive(self.reach()._session.driver.recall(self._name(key)))
        found = self._told("recall", name=self._name(key))
        return None if found["version"] is None else Record(found["text"], found["version"])

    def _record(self, key: str, text: str, old: Record | None) -> Any:
        version = None if old is None else old.version
        if not self._apart:
            return drive(self.reach()._session.driver.record(self._name(key), text, version))
        return self._told("record", name=self._name(key), text=text, version=version)["version"]

    def settle(self) -> None:
        """Be there, if it is another process: to start one takes longer than much that follows."""
        if self._apart:
            self._other()

    def _other(self) -> Actor:
        if self._actor is None:
            target = self._scene.target
            options = {"namespace": target.namespace, "ttl": target.ttl, "owner": self.process}
            self._actor = Actor("thread", self._url, options, target.preload, patience=10.0).ready()
        return self._actor

    def _told(self, order: str, **more: Any) -> dict[str, Any]:
        """What the other process answers; what it raised is raised here."""
        answer = self._other().do(order, **more)
        if "error" in answer:
            raise getattr(errors, answer["error"], TenureError)(answer["text"])
        return answer

    def _name(self, key: str) -> str:
        return f"{self._scene.prefix}{key}"

    def _call(self, kind: str, key: str, value: Any, work: Callable[[], Any]) -> Operation:
        called, result = tenure.now(), None
        outcome: Outcome = "ok"
        try:
            result = work()
        except (OutcomeUnknown, SessionLost):
            outcome = "unknown"
        except Unavailable:
            outcome = "failed"
        except TenureError:
            outcome = "unknown"  # whatever it was, it promises nothing
        returned = tenure.now()
        return self.note(
            kind, key, called, returned=returned, value=value, result=result, outcome=outcome
        )


class Crowd:
    """Clients that are at work, each in a thread, until they are told to stop."""

    def __init__(
        self, clients: Sequence[Client], step: Callable[[Client, random.Random], None], seed: int
    ) -> None:
        self._stop = threading.Event()
        self._step = step
        for client in clients:
            client.settle()
        self._problems: list[BaseException] = []
        self._threads = [
            threading.Thread(
                target=self._work, args=(client, random.Random(seed + at)), daemon=True
            )
            for at, client in enumerate(clients)
        ]

    def start(self) -> None:
        """Let them begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Have them end, each after the call that it is in; what went wrong in one is raised."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._problems:
            raise self._problems[0]

    def last(self, seconds: float) -> None:
        """Let them work on for so long."""
        self._stop.wait(seconds)

    def _work(self, client: Client, chance: random.Random) -> None:
        try:
            client.move_in()
            while not self._stop.is_set():
                self._step(client, chance)
                self._stop.wait(chance.uniform(0, 2 * PACE_SECONDS))
        except Exception as error:
            self._problems.append(error)
            self._stop.set()
