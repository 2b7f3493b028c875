"""Redis: one server, Sentinel, or a cluster."""

from __future__ import annotations

from .._driver import TenureDriver


class RedisDriver(TenureDriver):
    """Tenure's redis driver."""

    SCHEME = "redis"
