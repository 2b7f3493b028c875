"""The redis driver's backend with lock=redlock."""

from __future__ import annotations

from typing import Any

from ..._model import Traits
from ..._url import Url
from ...drivers import registry
from ..servers import Proxies, RedisMasters
from ._base import Backend


class RedlockBackend(Backend):
    """Three Redis masters without persistence."""

    name = "redis, redlock"
    scheme = "redis"
    shows_waiters = False
    server: Any = None

    @classmethod
    def traits(cls) -> Traits:
        return registry.find(Url(cls.scheme, options={"lock": "redlock"})).traits

    def start(self) -> None:
        self.server = RedisMasters().start()

    def stop(self) -> None:
        self.server.close()

    @property
    def url(self) -> str:
        return str(self.server.url)

    def proxy(self) -> Any:
        return Proxies(self.server)

    def url_through(self, proxy: Any) -> str:
        return str(self.server.url_at(proxy.ports))

    def footprint(self, namespace: str) -> int:
        start = f"tenure:{{{namespace}}}:m:"
        found: set[bytes] = set()
        for server in self.server.servers:
            found.update(server.command("KEYS", start + "*"))
        return len(found)
