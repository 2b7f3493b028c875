"""etcd, over gRPC."""

from __future__ import annotations

from .._driver import TenureDriver


class EtcdDriver(TenureDriver):
    """Tenure's etcd driver."""

    SCHEME = "etcd"
