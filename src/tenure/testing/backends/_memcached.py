"""The memcached driver's backend."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from ...errors import Unavailable
from ..servers import MemcachedServer
from ._base import ServerBackend

TTL_MOST = 5
UP_SECONDS = TTL_MOST + 4
"""How old a server has to be for its statistics to prove that nothing was lost."""


class MemcachedBackend(ServerBackend):
    """One memcached, for short sessions only."""

    name = "memcached"
    scheme = "memcached"
    server: MemcachedServer

    def make_server(self) -> MemcachedServer:
        return MemcachedServer(options={"ttl": str(TTL_MOST), "ttl_max": str(TTL_MOST)})

    def start(self) -> None:
        super().start()
        self._settled = 0

    @property
    def url(self) -> str:
        """The URL, once the server is old enough; it may just have been restarted."""
        if self.server.pid != self._settled:
            give_up = time.monotonic() + 4 * UP_SECONDS
            while int(self.server.stats()["uptime"]) < UP_SECONDS:
                if time.monotonic() > give_up:
                    raise Unavailable("memcached: its clock does not run")
                time.sleep(0.1)
            self._settled = self.server.pid
        return super().url

    def footprint(self, namespace: str) -> int:
        start = f"tenure:{namespace}"
        shards = self._values([f"{start}:i:{number}" for number in range(64)])
        names = [name for shard in shards for name in shard.get("roster", ())]
        keys = [f"{start}:r:{quote(name, safe='@/')}" for name in names]
        return sum(len(roster["claims"]) for roster in self._values(keys))

    def _values(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """The documents behind keys, of those that are there."""
        lines = iter(self.server.request(*(f"mg {key} v".encode() for key in keys)))
        return [json.loads(next(lines).partition(b"\n")[2]) for line in lines if line[:2] == b"VA"]
