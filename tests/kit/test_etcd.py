"""The conformance kit on the etcd driver."""

from __future__ import annotations

from tenure.testing.backends import EtcdBackend
from tenure.testing.kit import conformance

TestEtcd = conformance(EtcdBackend)
