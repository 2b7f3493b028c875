"""Consul."""

from __future__ import annotations

from .._driver import TenureDriver


class ConsulDriver(TenureDriver):
    """Tenure's consul driver."""

    SCHEME = "consul"
