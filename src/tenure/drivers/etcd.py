"""etcd over gRPC. The data model is in `_etcd_rosters`."""

from __future__ import annotations

from .._runtime.base import Runtime
from .._url import Url
from ..wires._etcd_api import Wire
from ..wires.etcd import connection
from ._etcd_rosters import EtcdRosters
from ._etcd_url import check, settings


class EtcdDriver(EtcdRosters):
    """Tenure over etcd's gRPC API, version 3.4 or newer."""

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        check(url, tls="etcds")

    async def _make_wire(self) -> Wire:
        known = await self.runtime.blocking(lambda: settings(self.url, self.patience))
        return connection(known, self.runtime.flavour)
