"""Coordination between the threads and tasks of one process: `memory://` or `memory://name`.

All coordinators with one name share one store, across both APIs. It is the document
rung over a dictionary, so what the tests of a program see here is what the contract
says, not a shortcut beside it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from math import inf
from typing import Any

from .._model import Claim, Finding, Interest, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import InvalidURL
from .base import Wake
from .document import Document, DocumentDriver

TURN_SECONDS = 0.01
"""For so long a task of a loop may have one answer after the other."""


class _Store:
    """The documents of one name, and who wants to be woken."""

    def __init__(self, runtime: Runtime) -> None:
        self.lock = runtime.lock()
        self.documents: dict[tuple[str, str, str], tuple[Document, int]] = {}
        self.version = 0
        self.wakes: dict[tuple[str, str], Wake] = {}
        self.watchers: dict[tuple[str, str], dict[str, Wake]] = {}


_stores: dict[str, _Store] = {}

if hasattr(os, "register_at_fork"):
    # A child begins with stores of its own: a thread that the fork left behind may have
    # held the lock of one.
    os.register_at_fork(after_in_child=_stores.clear)


def stored_claims(name: str, namespace: str) -> int:
    """How many claims a namespace of a store holds, for tests that look for leftovers."""
    store = _stores.get(name)
    if store is None:
        return 0
    return sum(
        len(document.get("claims", ()))
        for key, (document, _) in store.documents.items()
        if key[0] == namespace
    )


class MemoryDriver(DocumentDriver):
    """The document rung over a dictionary in this process."""

    traits = Traits(scope="threads", shared=True, durable_tokens=False, server=False, poll=0.5)

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        url.check_options(())
        if url.path.strip("/") or url.username or len(url.hosts) > 1:
            raise InvalidURL("memory: the URL is memory:// or memory://name")
        name = str(url.hosts[0]) if url.hosts else ""
        self._store = _stores.setdefault(name, _Store(runtime))
        self._way = 0.0 if runtime.flavour == "asyncio" else inf
        """When the loop's other tasks are given their turn next."""

    async def _give_way(self) -> None:
        # Nothing here waits for anything: a task that takes one lock after another would keep
        # the loop from renewing what it holds.
        now = self.runtime.now()
        if now >= self._way:
            self._way = now + TURN_SECONDS
            await self.runtime.sleep(now)

    async def open(self) -> None:
        """Nothing to connect to."""

    async def examine(self) -> Sequence[Finding]:
        text = "It excludes the threads and tasks of this process, and no other process."
        advice = "For the processes of one machine use file://, for several hosts a server."
        return (Finding("note", "memory://", text, advice),)

    async def server(self) -> Server:
        """Python itself."""
        return Server("python", sys.version.partition(" ")[0])

    async def close(self) -> None:
        """Nothing to disconnect from."""

    async def load(self, kind: str, name: str) -> tuple[Document | None, Any]:
        await self._give_way()
        return self._store.documents.get((self.namespace, kind, name), (None, 0))

    async def save(self, kind: str, name: str, document: Document | None, version: Any) -> Any:
        await self._give_way()
        store, key = self._store, (self.namespace, kind, name)
        with store.lock:
            if store.documents.get(key, (None, 0))[1] != version:
                return None
            store.version += 1
            if document is None:
                store.documents.pop(key, None)
            else:
                store.documents[key] = (document, store.version)
            return store.version

    async def names(self, kind: str) -> Sequence[str]:
        with self._store.lock:
            return [key[2] for key in self._store.documents if key[:2] == (self.namespace, kind)]

    async def moved_up(self, claim: Claim) -> None:
        wake = self._store.wakes.get((self.namespace, claim.id))
        if wake is not None:
            wake()

    async def changed(self, name: str) -> None:
        with self._store.lock:
            wakes = list(self._store.watchers.get((self.namespace, name), {}).values())
        for wake in wakes:
            wake()

    async def listen(self, interest: Interest, wake: Wake) -> None:
        if not interest.watch:
            self._store.wakes[self.namespace, interest.id] = wake
            return
        with self._store.lock:
            key = (self.namespace, interest.roster)
            self._store.watchers.setdefault(key, {})[interest.id] = wake

    def unlisten(self, interest: Interest) -> None:
        if not interest.watch:
            self._store.wakes.pop((self.namespace, interest.id), None)
            return
        with self._store.lock:
            key = (self.namespace, interest.roster)
            watchers = self._store.watchers.get(key, {})
            watchers.pop(interest.id, None)
            if not watchers:
                self._store.watchers.pop(key, None)
