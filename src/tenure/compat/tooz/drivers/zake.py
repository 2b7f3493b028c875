"""A fake ZooKeeper inside of this process, for tests."""

from __future__ import annotations

from .._driver import TenureDriver


class ZakeDriver(TenureDriver):
    """Tenure's zake driver."""

    SCHEME = "zake"
