"""The conformance kit on the sqlite driver."""

from __future__ import annotations

from tenure.testing.backends import SqliteBackend
from tenure.testing.kit import conformance

TestSqlite = conformance(SqliteBackend)
