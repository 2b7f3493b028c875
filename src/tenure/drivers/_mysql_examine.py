"""What in the configuration of a MySQL or MariaDB server would break coordination."""

from __future__ import annotations

from .._model import Finding
from ..wires.mysql import Link


async def examine(link: Link, ttl: float, database: str) -> list[Finding]:
    """The findings about one server."""
    return []
