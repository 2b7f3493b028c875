"""The postgresql driver's backend."""

from __future__ import annotations

from ..servers import PostgresServer
from ._base import ServerBackend


class PostgresqlBackend(ServerBackend):
    """One PostgreSQL."""

    name = "postgresql"
    scheme = "postgresql"
    server: PostgresServer

    def make_server(self) -> PostgresServer:
        return PostgresServer()

    def footprint(self, namespace: str) -> int:
        import psycopg

        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
        claims = "SELECT count(*) FROM tenure_claim WHERE namespace = %s"
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(locks).fetchone()
            assert row is not None
            count = int(row[0])
            exists = connection.execute("SELECT to_regclass('tenure_claim')").fetchone()
            if exists is not None and exists[0] is not None:
                row = connection.execute(claims, (namespace,)).fetchone()
                assert row is not None
                count += int(row[0])
        return count
