"""Tooz's API on the drivers that tests/compat/test_mysql.py names."""

from __future__ import annotations

from tenure.testing.backends import MysqlBackend, SqlMariadbBackend

from .suite import suite

TestMysql = suite(MysqlBackend)
TestSqlMariadb = suite(SqlMariadbBackend)
