"""The conformance kit on the ZooKeeper driver."""

from __future__ import annotations

from tenure.testing.backends import ZookeeperBackend
from tenure.testing.kit import conformance

TestZookeeper = conformance(ZookeeperBackend)
