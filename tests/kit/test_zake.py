"""The conformance kit on the ZooKeeper driver over zake."""

from __future__ import annotations

from tenure.testing.backends import ZakeBackend
from tenure.testing.kit import conformance

TestZake = conformance(ZakeBackend)
