"""The raw clients of memcached: an item is added, and deleted if it is still that very item."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from .contestants import AsyncContestant, Contestant
from .raw import MINE, TTL_MS, load


def _add(name: str) -> bytes:
    return b"ms raw-%b %d ME c T%d\r\n%b" % (name.encode(), len(MINE), TTL_MS // 1000, MINE)


def _delete(name: str, added: bytes) -> bytes:
    """The deletion of what was added, whose version the answer `HD c12` tells."""
    return b"md raw-%b C%b" % (name.encode(), added[4:])


class Pymemcache(Contestant):
    """pymemcache's client, with meta commands."""

    def cycle(self, name: str) -> Callable[[], object]:
        base: Any = load("pymemcache.client.base")
        command = base.Client((self.host, self.port), no_delay=True).raw_command
        add = _add(name)

        def once() -> None:
            added = command(add)
            assert added[:2] == b"HD"
            assert command(_delete(name, added)) == b"HD"

        return once


class MemcachedSocket(Contestant):
    """The same over a socket, and no more."""

    def cycle(self, name: str) -> Callable[[], object]:
        link = socket.create_connection((self.host, self.port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        add = _add(name) + b"\r\n"

        def once() -> None:
            link.sendall(add)
            added = link.recv(4096)
            assert added[:2] == b"HD"
            link.sendall(_delete(name, added[:-2]) + b"\r\n")
            assert link.recv(4096) == b"HD\r\n"

        return once


class MemcachedStreams(AsyncContestant):
    """The same over asyncio's streams; there is no client that knows the meta commands."""

    async def start(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        reader, writer = self.reader, self.writer
        add = _add(name) + b"\r\n"

        async def once() -> None:
            writer.write(add)
            added = await reader.readline()
            assert added[:2] == b"HD"
            writer.write(_delete(name, added[:-2]) + b"\r\n")
            assert await reader.readline() == b"HD\r\n"

        return once

    async def stop(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()
