"""The etcd driver's backend."""

from __future__ import annotations

import base64

from ..servers import EtcdGatewayServer, EtcdServer
from ._base import ServerBackend


class EtcdBackend(ServerBackend):
    """One etcd."""

    name = "etcd"
    scheme = "etcd"
    server: EtcdServer

    def make_server(self) -> EtcdServer:
        return EtcdServer()

    def footprint(self, namespace: str) -> int:
        encode = self.server.encode
        start = f"/tenure/{namespace}/"
        body = {"key": encode(start), "range_end": encode(start[:-1] + "0"), "keys_only": True}
        found = self.server.call("kv/range", body).get("kvs", [])
        keys = [base64.b64decode(each["key"]) for each in found]
        # A session's own key and a record are no claims.
        return len([key for key in keys if b"//" not in key and b"/!/" not in key])


class EtcdGatewayBackend(EtcdBackend):
    """One etcd, over its HTTP gateway."""

    name = "etcd-gateway"
    scheme = "etcd3+http"

    def make_server(self) -> EtcdServer:
        return EtcdGatewayServer()
