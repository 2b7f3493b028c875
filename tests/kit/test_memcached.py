"""The conformance kit on the memcached driver."""

from __future__ import annotations

from tenure.testing.backends import MemcachedBackend
from tenure.testing.kit import conformance

TestMemcached = conformance(MemcachedBackend)
