"""A session at zake, the fake ZooKeeper: the same requests, answered in this process at once.

zake was last released in 2018. What of it does not fit is left out or replaced here: its
threads and queues, since its clients may wait for one another's locks; its version numbers,
which it also gives out for transactions; and its transactions, which tell a version of -1
from any. All clients of one name share one store, and one lock.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
from collections import deque
from collections.abc import Callable
from importlib import metadata
from typing import Any

from kazoo.exceptions import KazooException, SessionExpiredError
from kazoo.protocol.states import EventType
from zake.fake_client import FakeClient
from zake.fake_storage import FakeStorage

from .._model import Server
from ._zookeeper_api import Place, Reply, Settings, Stat, Watcher
from ._zookeeper_kazoo import first_error

_lock = threading.RLock()
"""For every store: a client of zake's that ends takes the locks of others."""
_numbers = itertools.count(1)


class _Handler:
    """What zake wants of kazoo's handler; callbacks wait until the lock is free."""

    running = True

    def __init__(self) -> None:
        self.calls: deque[Callable[[], object]] = deque()

    def rlock_object(self) -> Any:
        return threading.RLock()

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def dispatch_callback(self, callback: Any) -> None:
        self.calls.append(lambda: callback.func(*callback.args))


class _Storage(FakeStorage):  # type: ignore[misc]
    """zake's own takes every path apart to find those below or above another."""

    def get_children(self, path: str, only_direct: bool = True) -> dict[str, Any]:
        start = path.rstrip("/") + "/"
        size = len(start)
        return {
            each: node
            for each, node in self._paths.items()
            if each.startswith(start)
            and len(each) > size
            and not (only_direct and "/" in each[size:])
        }

    def get_parents(self, path: str) -> dict[str, Any]:
        pieces = path.split("/")
        above = ["/".join(pieces[:size]) or "/" for size in range(1, len(pieces))]
        return {each: self._paths[each] for each in above if each in self._paths}


class _Ensemble:
    """A store that clients of the same name share."""

    def __init__(self) -> None:
        self.handler = _Handler()
        self.storage = _Storage(self.handler)


_ensembles: dict[str, _Ensemble] = {}


def _ensemble(name: str) -> _Ensemble:
    with _lock:
        return _ensembles.setdefault(name, _Ensemble())


def names_in(ensemble: str, path: str) -> list[str]:
    """The names of a node's children; for tests to count."""
    with _lock:
        found = _ensemble(ensemble).storage.get_children(path)
    return [each.rpartition("/")[2] for each in found]


def server() -> Server:
    """Python itself, in which the store is."""
    python = sys.version.partition(" ")[0]
    return Server("python", python, "", "zake", metadata.version("zake"))


class ZakeLink:
    """`Link` over one of zake's clients."""

    def __init__(self, settings: Settings, context: object = None) -> None:
        self._ensemble = _ensemble(settings.hosts)
        self._now = settings.now
        self._client = FakeClient(handler=self._ensemble.handler, storage=self._ensemble.storage)
        self._reason: str | None = None
        self._until = math.inf
        self._timer: threading.Timer | None = None
        self._lost: Callable[[str], None] | None = None
        self._listeners: list[Callable[[], None]] = []
        self.id = f"{next(_numbers):x}"
        self.timeout = 0.0
        self.place = Place("", "", 0)

    # -- the session -------------------------------------------------------

    def over(self) -> str | None:
        return self._reason

    def connected(self) -> bool:
        return self._reason is None

    def problem(self) -> str:
        return ""

    def open(self) -> Reply:
        return self._do(self._client.start)

    def close(self) -> Reply:
        return self._stop("the session was ended")

    discard = close
    """A fake session that nobody renews need not be waited for."""

    def drop(self) -> None:
        """There is no connection."""

    def _stop(self, reason: str) -> Reply:
        self._reason = self._reason or reason
        if self._timer is not None:
            self._timer.cancel()
        done = self._do(self._client.close)
        for call in self._listeners:
            call()
        return done

    def end(self, reason: str) -> None:
        if self._reason is None:
            self._stop(reason)
            if self._lost is not None:
                self._lost(f"zake: {reason}")

    def abandon(self) -> None:
        self._reason = "the process was forked"

    def adopt(self, until: float, lost: Callable[[str], None]) -> None:
        self._until, self._lost = until, lost
        self._look()

    def alive_until(self, until: float) -> None:
        self._until = until

    def _look(self) -> None:
        """End the session when its time is over."""
        left = self._until - self._now()
        if left <= 0:
            self.end("the session was not renewed in time")
        elif self._reason is None:
            self._timer = threading.Timer(left, self._look)
            self._timer.daemon = True
            self._timer.start()

    def on_connection(self, call: Callable[[], None]) -> None:
        self._listeners.append(call)

    # -- requests ----------------------------------------------------------

    def _do(self, call: Callable[..., Any], *args: Any, **options: Any) -> Reply:
        reply = Reply()
        with _lock:
            try:
                reply.set(call(*args, **options))
            except KazooException as error:
                if self._reason is not None:
                    reply = Reply()
                    reply.set_exception(SessionExpiredError(self._reason))
                else:
                    reply.set_exception(error)
        calls = self._ensemble.handler.calls
        while calls:
            try:
                due = calls.popleft()
            except IndexError:
                break  # another thread was faster
            due()
        return reply

    def create(self, path: str, data: bytes, *, own: bool = False, numbered: bool = False) -> Reply:
        return self._do(self._client.create, path, data, ephemeral=own, sequence=numbered)

    def folder(self, path: str) -> Reply:
        return self._do(self._client.create, path)

    ground = folder

    def children(self, path: str, watch: Watcher | None = None) -> Reply:
        def read() -> tuple[list[str], Stat]:
            names = self._client.get_children(path, watch=_heard(watch))
            # zake tells who watches a node's children nothing of the node's own end.
            return names, self._stat(self._client.exists(path, watch=_heard(watch)))

        return self._do(read)

    def get(self, path: str, watch: Watcher | None = None) -> Reply:
        def read() -> tuple[bytes, Stat]:
            data, stat = self._client.get(path, watch=_heard(watch))
            return data, self._stat(stat)

        return self._do(read)

    def exists(self, path: str, watch: Watcher | None = None) -> Reply:
        def read() -> Stat | None:
            found = self._client.exists(path, watch=_heard(watch))
            return None if found is None else self._stat(found)

        return self._do(read)

    def set(self, path: str, data: bytes, version: int = -1) -> Reply:
        return self._do(self._client.set, path, data, version)

    def delete(self, path: str) -> Reply:
        return self._do(self._client.delete, path)

    def sync(self, path: str) -> Reply:
        return self._do(self._client.sync, path)

    def all(self, *steps: tuple[Any, ...]) -> Reply:
        def commit() -> list[Any]:
            whole = self._client.transaction()
            for verb, *details in steps:
                getattr(whole, "set_data" if verb == "set" else verb)(*details)
            return first_error(whole.commit())

        return self._do(commit)

    @staticmethod
    def _stat(found: Any) -> Stat:
        # The birth counts for nothing: zake goes on numbering where a folder of that name was.
        return Stat(0, found.version, found.numChildren, found.mtime)


def _heard(watch: Watcher | None) -> Callable[[Any], None] | None:
    return None if watch is None else lambda event: watch(event.type == EventType.DELETED)
