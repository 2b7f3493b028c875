"""Memory of this process, for tests; Tooz has no such driver."""

from __future__ import annotations

from .._driver import TenureDriver


class MemoryDriver(TenureDriver):
    """Tenure's memory driver."""

    SCHEME = "memory"
