"""Tooz's API on the drivers that tests/compat/test_memcached.py names."""

from __future__ import annotations

from tenure.testing.backends import MemcachedBackend

from .suite import suite

TestMemcached = suite(MemcachedBackend)
