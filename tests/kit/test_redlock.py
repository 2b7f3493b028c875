"""The conformance kit on the redis driver with lock=redlock."""

from __future__ import annotations

from tenure.testing.backends import RedlockBackend
from tenure.testing.kit import conformance

TestRedlock = conformance(RedlockBackend)
