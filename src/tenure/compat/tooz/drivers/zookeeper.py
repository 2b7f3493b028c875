"""ZooKeeper."""

from __future__ import annotations

from .._driver import TenureDriver


class KazooDriver(TenureDriver):
    """Tenure's zookeeper driver."""

    SCHEME = "zookeeper"
