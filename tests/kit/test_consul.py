"""The conformance kit on the consul driver."""

from __future__ import annotations

from tenure.testing.backends import ConsulBackend
from tenure.testing.kit import conformance

TestConsul = conformance(ConsulBackend)
