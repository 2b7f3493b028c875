"""Tooz's API on the drivers that tests/compat/test_etcd.py names."""

from __future__ import annotations

from tenure.testing.backends import EtcdBackend, EtcdGatewayBackend

from .suite import suite

TestEtcd = suite(EtcdBackend)
TestEtcdGateway = suite(EtcdGatewayBackend)
