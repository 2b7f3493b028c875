"""The conformance kit on the mysql driver."""

from __future__ import annotations

from tenure.testing.backends import MysqlBackend
from tenure.testing.kit import conformance

TestMysql = conformance(MysqlBackend)
