"""The ZooKeeper driver's backend."""

from __future__ import annotations

import logging
from typing import Any

from ..servers import ZookeeperServer
from ._base import Backend, ServerBackend

_QUIET = logging.getLogger("tenure.testing.kazoo")


class ZookeeperBackend(ServerBackend):
    """One ZooKeeper."""

    name = "zookeeper"
    scheme = "zookeeper"
    server: ZookeeperServer
    _client: Any = None

    def make_server(self) -> ZookeeperServer:
        return ZookeeperServer()

    def stop(self) -> None:
        if self._client is not None:
            self._client.stop()
            self._client.close()
            self._client = None
        super().stop()

    def footprint(self, namespace: str) -> int:
        from kazoo.client import KazooClient

        if self._client is None:
            _QUIET.setLevel(logging.CRITICAL)  # it tells of every restart of the server
            retry = {"max_tries": 20, "delay": 0.1, "backoff": 1}
            hosts = f"{self.server.host}:{self.server.port}"
            self._client = KazooClient(hosts, timeout=4.0, command_retry=retry, logger=_QUIET)
            self._client.start()
        client = self._client
        children: list[int] = client.retry(self._count, client, f"/tenure/{namespace}/rosters")
        return sum(children)

    @staticmethod
    def _count(client: Any, root: str) -> list[int]:
        from kazoo.exceptions import NoNodeError

        found = []
        client.sync("/")
        try:
            for roster in client.get_children(root):
                stat = client.exists(f"{root}/{roster}")
                found.append(0 if stat is None else stat.numChildren)
        except NoNodeError:
            pass
        return found


class ZakeBackend(Backend):
    """ZooKeeper's fake, in this very process."""

    name = "zake"
    scheme = "zake"
    url = "zake://kit"

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """It ends with the process."""

    def footprint(self, namespace: str) -> int:
        from ...wires.zake import names_in

        rosters = f"/tenure/{namespace}/rosters"
        return sum(len(names_in("kit", f"{rosters}/{each}")) for each in names_in("kit", rosters))
