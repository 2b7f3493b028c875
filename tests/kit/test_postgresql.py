"""The conformance kit on the postgresql driver."""

from __future__ import annotations

from tenure.testing.backends import PostgresqlBackend
from tenure.testing.kit import conformance

TestPostgresql = conformance(PostgresqlBackend)
