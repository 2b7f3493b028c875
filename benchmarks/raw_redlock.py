"""The raw clients of several Redis masters: a key is set on all of them, and deleted again.

All masters are asked at once, and a majority has to agree. That is the least that the
algorithm takes: no token, no retry, nothing about masters that are slow or away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from .contestants import AsyncContestant, Contestant, Lock
from .raw import DELETE_IF_MINE, MINE, TTL_MS, load


def masters(url: str) -> list[tuple[str, int]]:
    """The addresses in a URL of several."""
    found = []
    for each in urlsplit(url).netloc.split(","):
        host, _, port = each.rpartition(":")
        found.append((host, int(port)))
    return found


class Connections(Contestant):
    """redis-py's connections: the same is sent on all before the first answer is read."""

    def cycle(self, name: str) -> Callable[[], object]:
        connections, shas = [], []
        for host, port in masters(self.url):
            client = load("redis").Redis(host, port)
            shas.append(client.script_load(DELETE_IF_MINE))
            connections.append(client.connection_pool.get_connection())
        sha = shas[0]

        def once() -> None:
            for each in connections:
                each.send_command("SET", name, MINE, "NX", "PX", TTL_MS)
            assert [each.read_response() for each in connections].count(b"OK") > 1
            for each in connections:
                each.send_command("EVALSHA", sha, 1, name, MINE)
            assert [each.read_response() for each in connections].count(1) > 1

        return once


class Clients(AsyncContestant):
    """redis-py's asyncio clients, all at once."""

    async def start(self) -> None:
        kind = load("redis.asyncio").Redis
        self.clients = [
            kind(host=host, port=port, single_connection_client=True)
            for host, port in masters(self.url)
        ]
        shas = [await each.script_load(DELETE_IF_MINE) for each in self.clients]
        self.sha = shas[0]

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        clients, sha = self.clients, self.sha

        async def once() -> None:
            set_all = [each.set(name, MINE, nx=True, px=TTL_MS) for each in clients]
            assert (await asyncio.gather(*set_all)).count(True) > 1
            delete_all = [each.evalsha(sha, 1, name, MINE) for each in clients]
            assert (await asyncio.gather(*delete_all)).count(1) > 1

        return once

    async def stop(self) -> None:
        for each in self.clients:
            await each.aclose()


class Pottery(Contestant):
    """pottery's Redlock."""

    def lock(self, name: str) -> Lock:
        clients = {load("redis").Redis(host, port) for host, port in masters(self.url)}
        lock: Lock = load("pottery").Redlock(
            key=f"pottery-{name}", masters=clients, auto_release_time=TTL_MS / 1000
        )
        return lock
