"""etcd over the HTTP gateway that each of its servers has built in.

The same keys, transactions and leases as over gRPC, so that clients of both exclude each
other; no client library is needed.
"""

from __future__ import annotations

from .._runtime.base import Runtime
from .._url import Host, Url
from ..wires._etcd_api import Wire
from ..wires.etcd_gateway import connection
from ..wires.http import Settings, Tls
from ._etcd_options import PORT, check
from ._etcd_rosters import EtcdRosters


class EtcdGatewayDriver(EtcdRosters):
    """Tenure over etcd's JSON gateway, version 3.3 or newer."""

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        check(url, tls="etcd3+https")

    async def _make_wire(self) -> Wire:
        url, option = self.url, self.url.options.get
        hosts = url.hosts or (Host("127.0.0.1"),)
        secured = url.scheme == "etcd3+https"
        known = Settings(
            tuple(host.or_port(PORT) for host in hosts),
            url.scheme,
            Tls(option("ca"), option("cert"), option("key")) if secured else None,
            self.patience,
        )
        credentials = None if url.username is None else (url.username, url.password or "")
        return connection(known, self.runtime, credentials)
