"""Tooz's API on the drivers that tests/compat/test_local.py names."""

from __future__ import annotations

from tenure.testing.backends import (
    FileBackend,
    IpcBackend,
    MemoryBackend,
    SqliteBackend,
    ZakeBackend,
)

from .suite import suite

TestMemory = suite(MemoryBackend)
TestFile = suite(FileBackend)
TestIpc = suite(IpcBackend)
TestSqlite = suite(SqliteBackend)
TestZake = suite(ZakeBackend)
