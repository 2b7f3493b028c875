"""Tooz's API on the drivers that tests/compat/test_redis.py names."""

from __future__ import annotations

from tenure.testing.backends import RedisBackend, RedlockBackend

from .suite import suite

TestRedis = suite(RedisBackend)
TestRedlock = suite(RedlockBackend)
