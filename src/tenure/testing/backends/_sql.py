"""The backends of the drivers over tables: SQLite, and two servers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from typing import Any

from ..servers import MysqlServer, PostgresServer
from ._base import Backend, ServerBackend

_BODIES = "SELECT body FROM tenure_document WHERE kind = 'roster' AND namespace = '{}'"


def _claims(bodies: list[Any]) -> int:
    return sum(len(json.loads(body)["claims"]) for (body,) in bodies)


class SqliteBackend(Backend):
    """A file in a folder of its own."""

    name = "sqlite"
    scheme = "sqlite"
    _folder = ""

    def start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="tenure-kit-")

    def stop(self) -> None:
        shutil.rmtree(self._folder)

    @property
    def _path(self) -> str:
        return os.path.join(self._folder, "locks.db")

    @property
    def url(self) -> str:
        return f"sqlite://{self._path}"

    def footprint(self, namespace: str) -> int:
        with contextlib.closing(sqlite3.connect(self._path, timeout=10)) as database:
            return _claims(database.execute(_BODIES.format(namespace)).fetchall())


class SqlPostgresqlBackend(ServerBackend):
    """Tables on one PostgreSQL."""

    name = "sql+postgresql"
    scheme = "sql+postgresql+psycopg"
    server: PostgresServer

    def make_server(self) -> PostgresServer:
        return _TablesOnPostgres()

    def footprint(self, namespace: str) -> int:
        bodies = self.server.psql(_BODIES.format(namespace)).splitlines()
        return _claims([(body,) for body in bodies])


class SqlMariadbBackend(ServerBackend):
    """Tables on one MariaDB."""

    name = "sql+mariadb"
    scheme = "sql+mariadb+pymysql"
    server: MysqlServer

    def make_server(self) -> MysqlServer:
        return _TablesOnMariadb()

    def footprint(self, namespace: str) -> int:
        # In hexadecimal, since the program escapes what it prints.
        question = _BODIES.format(namespace).replace("body", "hex(body)", 1)
        bodies = self.server.sql(f"USE tenure; {question}").splitlines()
        return _claims([(bytes.fromhex(body),) for body in bodies])


class _TablesOnMariadb(MysqlServer):
    """The same server, under the other driver's URL."""

    def url_at(self, port: int) -> str:
        return "sql+mariadb+pymysql" + super().url_at(port).removeprefix("mysql")


class _TablesOnPostgres(PostgresServer):
    """The same server, under the other driver's URL."""

    def url_at(self, port: int) -> str:
        return "sql+postgresql+psycopg" + super().url_at(port).removeprefix("postgresql")
