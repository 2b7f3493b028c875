"""The conformance kit on the ipc driver."""

from __future__ import annotations

from tenure.testing.backends import IpcBackend
from tenure.testing.kit import conformance

TestIpc = conformance(IpcBackend)
