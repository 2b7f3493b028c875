"""The conformance kit on the sql driver, over MariaDB."""

from __future__ import annotations

from tenure.testing.backends import SqlMariadbBackend
from tenure.testing.kit import conformance

TestSqlMariadb = conformance(SqlMariadbBackend)
