"""The ZooKeeper driver over zake, a fake ZooKeeper inside of this process, for tests."""

from __future__ import annotations

from collections.abc import Sequence

from .._model import Finding, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import InvalidURL
from ..wires.zake import ZakeLink, server
from ..wires.zookeeper import Settings, Wire, connection
from ._zookeeper_rosters import ZookeeperRosters


class ZakeDriver(ZookeeperRosters):
    """Tenure over zake: the same driver, the same nodes, and no server."""

    traits = Traits(scope="threads", shared=True, durable_tokens=False, server=False)

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        url.check_options(())
        if url.username is not None or url.path.strip("/") or len(url.hosts) > 1:
            raise InvalidURL(f"{url.scheme}: write zake:// or, for another store, zake://name")
        store = url.hosts[0].name if url.hosts else ""
        self._settings = Settings(store, self.patience, ttl, runtime.now)

    def _make_wire(self) -> Wire:
        return connection(self._settings, self.runtime.flavour, ZakeLink)

    async def server(self) -> Server:
        """Python itself: there is no server."""
        return server()

    async def examine(self) -> Sequence[Finding]:
        text = "It excludes nobody outside of this process, and forgets everything with it."
        return (Finding("note", "zake", text, "Write zookeeper:// where it is more than a test."),)
