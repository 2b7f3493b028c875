"""The conformance kit on the driver of etcd's HTTP gateway."""

from __future__ import annotations

from tenure.testing.backends import EtcdGatewayBackend
from tenure.testing.kit import conformance

TestEtcdGateway = conformance(EtcdGatewayBackend)
