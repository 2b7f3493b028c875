"""The conformance kit on the file driver."""

from __future__ import annotations

from tenure.testing.backends import FileBackend
from tenure.testing.kit import conformance

TestFile = conformance(FileBackend)
