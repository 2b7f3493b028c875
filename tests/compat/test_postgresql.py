"""Tooz's API on the drivers that tests/compat/test_postgresql.py names."""

from __future__ import annotations

from tenure.testing.backends import PostgresqlBackend, PostgresqlRowBackend, SqlPostgresqlBackend

from .suite import suite

TestPostgresql = suite(PostgresqlBackend)
TestPostgresqlRow = suite(PostgresqlRowBackend)
TestSqlPostgresql = suite(SqlPostgresqlBackend)
