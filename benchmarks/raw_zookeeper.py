"""The raw clients of ZooKeeper: an ephemeral node that is created and deleted, by kazoo.

That is the fewest calls. They make no queue, and give no token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .contestants import AsyncContestant, Contestant, Lock
from .grouping import Grouping
from .grouping_kazoo import KazooGrouping
from .raw import load

_FOLDER = "/bench-raw"


class Kazoo(Contestant):
    """kazoo's client with its default settings."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._client = self._connect()
        self._client.ensure_path(_FOLDER)

    def _connect(self) -> Any:
        timeout = float(self.options.get("ttl", 15))
        client = load("kazoo.client").KazooClient(f"{self.host}:{self.port}", timeout=timeout)
        client.start()
        return client

    def cycle(self, name: str) -> Callable[[], object]:
        client, path = self._client, f"{_FOLDER}/{name}"

        def once() -> None:
            client.create(path, b"", ephemeral=True)
            client.delete(path)

        return once

    def close(self) -> None:
        self._client.stop()
        self._client.close()


class KazooQueue(Kazoo):
    """The same with a queue: a numbered node, and a look at the others, asked for at once."""

    def cycle(self, name: str) -> Callable[[], object]:
        client, folder = self._client, f"{_FOLDER}/queue-{name}"
        client.ensure_path(folder)

        def once() -> None:
            made = client.create_async(f"{folder}/", b"", ephemeral=True, sequence=True)
            client.get_children(folder)
            client.delete(made.get())

        return once


class KazooLock(Kazoo):
    """kazoo's own recipes: the lock, and for groups the party."""

    def grouping(self) -> Grouping:
        return KazooGrouping(self._connect)

    def cycle(self, name: str) -> Callable[[], object]:
        return Contestant.cycle(self, name)

    def lock(self, name: str) -> Lock:
        lock: Lock = self._client.Lock(f"/kazoo-{name}", "bench")
        return lock


class KazooTasks(AsyncContestant):
    """kazoo's calls that do not wait, and a loop that is told of their answers."""

    async def start(self) -> None:
        self._kazoo = await asyncio.to_thread(Kazoo, self.url)

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        client, path = self._kazoo._client, f"{_FOLDER}/task-{name}"
        loop = asyncio.get_running_loop()

        async def answer(reply: Any) -> None:
            done = asyncio.Event()
            reply.rawlink(lambda _: loop.call_soon_threadsafe(done.set))
            await done.wait()
            reply.get_nowait()

        async def once() -> None:
            await answer(client.create_async(path, b"", ephemeral=True))
            await answer(client.delete_async(path))

        return once

    async def stop(self) -> None:
        await asyncio.to_thread(self._kazoo.close)
