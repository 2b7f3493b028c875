"""The conformance kit on the postgresql driver with locks in rows."""

from __future__ import annotations

from tenure.testing.backends import PostgresqlRowBackend
from tenure.testing.kit import conformance

TestPostgresqlRow = conformance(PostgresqlRowBackend)
