"""The conformance kit on the redis driver."""

from __future__ import annotations

from tenure.testing.backends import RedisBackend
from tenure.testing.kit import conformance

TestRedis = conformance(RedisBackend)
