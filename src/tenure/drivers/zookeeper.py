"""Tenure over ZooKeeper: what the driver says of itself, and what its URL says."""

from __future__ import annotations

from collections.abc import Sequence

from .._model import Finding, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import Unavailable
from ..wires.zookeeper import Wire, connection
from ._zookeeper_rosters import ZookeeperRosters
from ._zookeeper_url import settings


class ZookeeperDriver(ZookeeperRosters):
    """Tenure over ZooKeeper, version 3.5 or newer."""

    traits = Traits(
        scope="hosts",
        shared=True,
        fair=True,
        frees_on_death=False,
        durable_tokens=True,
        durable_claims=True,
        push=True,
        poll=0.5,
        # The server's own least is two ticks, which by default are 4 s. With less than this,
        # a restart of a server costs every lease.
        min_ttl=2.0,
    )

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._settings = settings(url, ttl, self.patience, runtime.now)

    def _make_wire(self) -> Wire:
        return connection(self._settings, self.runtime.flavour)

    async def server(self) -> Server:
        """What the server says, to which the session is connected, to the word srvr.

        The protocol itself does not tell, so that is a connection of its own. `Unsupported` if
        the server does not allow the word.
        """
        from ._zookeeper_examine import server

        link = await self._any()
        wire = self._wire
        assert wire is not None
        return await self.runtime.blocking(lambda: server(wire, link))

    async def examine(self) -> Sequence[Finding]:
        from ._zookeeper_examine import examine  # only an operator needs it

        wire = self._wire
        if wire is None:
            raise Unavailable(f"{self.url.scheme}: the driver is not open")
        given = self.given()
        return await self.runtime.blocking(lambda: examine(wire, self.ttl, given))
