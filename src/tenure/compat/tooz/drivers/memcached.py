"""memcached."""

from __future__ import annotations

from .._driver import TenureDriver


class MemcachedDriver(TenureDriver):
    """Tenure's memcached driver."""

    SCHEME = "memcached"
