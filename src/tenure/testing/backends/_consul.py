"""The consul driver's backend."""

from __future__ import annotations

from ..servers import ConsulServer
from ._base import ServerBackend


class ConsulBackend(ServerBackend):
    """One Consul server."""

    name = "consul"
    scheme = "consul"
    server: ConsulServer

    def make_server(self) -> ConsulServer:
        return ConsulServer()

    def footprint(self, namespace: str) -> int:
        # What a name's gate, a session's key and a record are is no claim.
        path = f"kv/tenure/{namespace}/claim/?keys&consistent"
        return len(self.server.call("GET", path) or ())
