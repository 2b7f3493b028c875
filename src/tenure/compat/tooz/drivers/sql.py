"""Tables of a SQL database; Tooz has no such drivers."""

from __future__ import annotations

from .._driver import TenureDriver


class SqlDriver(TenureDriver):
    """Tenure's sql driver: tables on a server."""

    SCHEME = "sql"


class SqliteDriver(TenureDriver):
    """Tenure's sqlite driver: tables in one file."""

    SCHEME = "sqlite"
