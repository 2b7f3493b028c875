"""The conformance kit on the memory driver."""

from __future__ import annotations

from tenure.testing.backends import MemoryBackend
from tenure.testing.kit import conformance

TestMemory = conformance(MemoryBackend)
