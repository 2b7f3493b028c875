"""The conformance kit on the sql driver, over PostgreSQL."""

from __future__ import annotations

from tenure.testing.backends import SqlPostgresqlBackend
from tenure.testing.kit import conformance

TestSqlPostgresql = conformance(SqlPostgresqlBackend)
