"""Tooz's API on the drivers that tests/compat/test_consul.py names."""

from __future__ import annotations

from tenure.testing.backends import ConsulBackend

from .suite import suite

TestConsul = suite(ConsulBackend)
