"""The raw clients of a database: a row is compared and set, twice, and no more.

The raw client proper runs the very statements of the driver, on its tables and with its values:
what a free lock costs there at the least. For reference, the same with a bare row, which has no
session that must live.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .contestants import AsyncContestant, Contestant
from .raw import load

_TABLE = "CREATE TABLE IF NOT EXISTS raw_lock (id TEXT PRIMARY KEY, version TEXT, body TEXT)"
_INSERT = "INSERT INTO raw_lock VALUES ({0}, '0', '') ON CONFLICT DO NOTHING"
_SET = "UPDATE raw_lock SET version = {0}, body = {0} WHERE id = {0} AND version = {0}"
_RESET = "UPDATE raw_lock SET version = '0' WHERE id = {0}"


class _Turn(NamedTuple):
    """What takes a free lock, and what gives it back: statements with their values."""

    take: tuple[Any, ...]
    give: tuple[Any, ...]


class _Statements:
    """The driver's own statements, in a session of Tenure's that is renewed meanwhile."""

    def __init__(self, url: str) -> None:
        import tenure

        # Apart from what the others lock, who run in between.
        self._coordinator: Any = tenure.connect(url, namespace=f"raw-{os.getpid()}")

    def turn(self, name: str) -> _Turn:
        """A lock that exists, is free, and is nobody else's."""
        with self._coordinator.lock(name).acquire():
            life = self._coordinator._session.alive
        driver = self._coordinator._session.driver
        document, version = driver._known[name]  # as it was released
        key, sql = driver._key("roster", name), driver._sql
        claim = [f"{life.id}.1", life.id, document["token"] + 1, self._coordinator.owner, "", False]
        taken = load("json").dumps({"token": claim[2], "claims": [claim]}, separators=(",", ":"))
        free = load("json").dumps(document, separators=(",", ":"))
        other = f"{version}.taken"
        return _Turn(
            (sql.update_for, (other, taken, key, version, life.id)),
            (sql.update, (version, free, key, other)),
        )

    def close(self) -> None:
        self._coordinator.close()


def _twice(execute: Callable[..., Any], turn: _Turn) -> Callable[[], object]:
    take, give = turn

    def once() -> None:
        assert execute(*take).rowcount == 1
        assert execute(*give).rowcount == 1

    return once


def _bare(execute: Callable[..., Any], mark: str, name: str) -> _Turn:
    """A bare row of that name."""
    for statement in (_TABLE, _INSERT, _RESET):
        text = statement.format(mark)
        execute(text, (name,) if mark in text else ())
    change = _SET.format(mark)
    return _Turn((change, ("1", "taken", name, "0")), (change, ("0", "free", name, "1")))


def _sqlite(path: str) -> Any:
    """A connection with the settings and functions of the driver."""
    from tenure import now
    from tenure.wires.sqlite import BOOT

    connection = load("sqlite3").connect(
        path, timeout=10, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.create_function("tenure_now", 0, lambda: int(now() * 1e6))
    connection.create_function("tenure_boot", 0, lambda: BOOT)
    return connection


class Sqlite(Contestant):
    """sqlite3, with the driver's statements."""

    def cycle(self, name: str) -> Callable[[], object]:
        self._statements = _Statements(self.url)
        return _twice(_sqlite(self.path).cursor().execute, self._statements.turn(name))

    def close(self) -> None:
        self._statements.close()


class SqliteBare(Contestant):
    """sqlite3, with a bare row."""

    def cycle(self, name: str) -> Callable[[], object]:
        execute = _sqlite(self.path).cursor().execute
        return _twice(execute, _bare(execute, "?", name))


class SqliteThread(AsyncContestant):
    """The driver's statements by way of `asyncio.to_thread`, which is all there is for a file."""

    async def start(self) -> None:
        self._statements = _Statements(self.url)

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        execute = _sqlite(self.path).cursor().execute
        take, give = self._statements.turn(name)

        async def once() -> None:
            await asyncio.to_thread(execute, *take)
            await asyncio.to_thread(execute, *give)

        return once

    async def stop(self) -> None:
        self._statements.close()


def _plain(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(scheme=parts.scheme.split("+")[1]).geturl()


class Psycopg(Contestant):
    """psycopg's cursor in autocommit mode, with the driver's statements."""

    def cycle(self, name: str) -> Callable[[], object]:
        self._statements = _Statements(self.url)
        connection = load("psycopg").connect(_plain(self.url), autocommit=True)
        return _twice(connection.cursor().execute, self._statements.turn(name))

    def close(self) -> None:
        self._statements.close()


class PsycopgBare(Contestant):
    """The same with a bare row."""

    def cycle(self, name: str) -> Callable[[], object]:
        execute = load("psycopg").connect(_plain(self.url), autocommit=True).cursor().execute
        return _twice(execute, _bare(execute, "%s", name))


class Core(Contestant):
    """A connection of SQLAlchemy's Core in autocommit mode, with a bare row."""

    def cycle(self, name: str) -> Callable[[], object]:
        make = load("sqlalchemy").create_engine
        url = self.url.removeprefix("sql+")
        execute = make(url, isolation_level="AUTOCOMMIT").connect().exec_driver_sql
        return _twice(execute, _bare(execute, "%s", name))


class PsycopgAsyncio(AsyncContestant):
    """psycopg's asyncio connection, with the driver's statements."""

    async def start(self) -> None:
        self._statements = _Statements(self.url)
        kind = load("psycopg").AsyncConnection
        self.connection = await kind.connect(_plain(self.url), autocommit=True)

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        cursor = self.connection.cursor()
        take, give = self._statements.turn(name)

        async def once() -> None:
            await cursor.execute(*take)
            await cursor.execute(*give)

        return once

    async def stop(self) -> None:
        await self.connection.close()
        self._statements.close()
