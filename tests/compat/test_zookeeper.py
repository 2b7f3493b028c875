"""Tooz's API on the drivers that tests/compat/test_zookeeper.py names."""

from __future__ import annotations

from tenure.testing.backends import ZookeeperBackend

from .suite import suite

TestZookeeper = suite(ZookeeperBackend)
