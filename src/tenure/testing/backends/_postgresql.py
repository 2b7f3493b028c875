"""The postgresql driver's backend."""

from __future__ import annotations

from ..._model import Traits
from ..._url import Url
from ...drivers import registry
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


class PostgresqlRowBackend(PostgresqlBackend):
    """One PostgreSQL, with locks in rows."""

    name = "postgresql-row"

    @classmethod
    def traits(cls) -> Traits:
        return registry.find(Url(cls.scheme, options={"lock": "row"})).traits

    def make_server(self) -> PostgresServer:
        return PostgresServer(options={"lock": "row"})

    def footprint(self, namespace: str) -> int:
        if not self.server.psql("SELECT to_regclass('tenure_row')"):
            return 0
        claims = "coalesce(sum(json_array_length(document::json -> 'claims')), 0)"
        return int(
            self.server.psql(
                f"SELECT {claims} FROM tenure_row "
                f"WHERE kind = 'roster' AND namespace = '{namespace}'"
            )
        )
