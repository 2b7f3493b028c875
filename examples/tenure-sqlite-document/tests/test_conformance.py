"""Tenure's conformance kit on this driver."""

from __future__ import annotations

from tenure_sqlite_document.testing import SqliteDocumentBackend

from tenure.testing.kit import conformance

TestConformance = conformance(SqliteDocumentBackend)
