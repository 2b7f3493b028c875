"""The redis driver's backend."""

from __future__ import annotations

from ..servers import RedisServer
from ._base import ServerBackend


class RedisBackend(ServerBackend):
    """One Redis without persistence."""

    name = "redis"
    scheme = "redis"
    server: RedisServer

    def make_server(self) -> RedisServer:
        return RedisServer()

    def footprint(self, namespace: str) -> int:
        command, start = self.server.command, f"tenure:{{{namespace}}}:"
        # What is left of a claim in another key counts like the claim.
        listing = {b"r:": ("ZRANGE", 0, -1), b"h:": ("ZRANGE", 0, -1), b"b:": ("HKEYS",)}
        claims: set[tuple[bytes, bytes]] = set()
        for key in command("KEYS", start + "*"):
            kind, name = key[len(start) :][:2], key[len(start) + 2 :]
            if kind in listing:
                verb, *ends = listing[kind]
                claims.update((name, member) for member in command(verb, key.decode(), *ends))
        return len(claims)
