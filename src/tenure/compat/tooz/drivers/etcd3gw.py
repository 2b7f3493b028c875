"""etcd, over its HTTP gateway."""

from __future__ import annotations

from .._driver import TenureDriver


class Etcd3Driver(TenureDriver):
    """Tenure's etcd3+http driver."""

    SCHEME = "etcd3+http"
