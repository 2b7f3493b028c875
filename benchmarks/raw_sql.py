"""The raw clients of a database: a row is compared and set, twice, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from .contestants import AsyncContestant, Contestant
from .raw import load

_TABLE = "CREATE TABLE IF NOT EXISTS raw_lock (id TEXT PRIMARY KEY, version TEXT, body TEXT)"
_INSERT = "INSERT INTO raw_lock VALUES ({0}, '0', '') ON CONFLICT DO NOTHING"
_SET = "UPDATE raw_lock SET version = {0}, body = {0} WHERE id = {0} AND version = {0}"
_RESET = "UPDATE raw_lock SET version = '0' WHERE id = {0}"


def _cycle(execute: Callable[..., Any], mark: str, name: str) -> Callable[[], object]:
    for statement in (_TABLE, _INSERT, _RESET):
        text = statement.format(mark)
        execute(text, (name,) if mark in text else ())
    change = _SET.format(mark)

    def once() -> None:
        assert execute(change, ("1", "taken", name, "0")).rowcount == 1
        assert execute(change, ("0", "free", name, "1")).rowcount == 1

    return once


class Sqlite(Contestant):
    """sqlite3, with the settings of the driver."""

    def cycle(self, name: str) -> Callable[[], object]:
        connection = load("sqlite3").connect(
            self.path, timeout=10, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA synchronous=NORMAL")
        return _cycle(connection.cursor().execute, "?", name)


class SqliteThread(AsyncContestant):
    """The same statements by way of `asyncio.to_thread`, which is all there is for a file."""

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        connection = load("sqlite3").connect(
            self.path, timeout=10, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA synchronous=NORMAL")
        execute = connection.cursor().execute
        _cycle(execute, "?", name)
        change = _SET.format("?")

        async def once() -> None:
            await asyncio.to_thread(execute, change, ("1", "taken", name, "0"))
            await asyncio.to_thread(execute, change, ("0", "free", name, "1"))

        return once


def _plain(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(scheme=parts.scheme.split("+")[1]).geturl()


class Psycopg(Contestant):
    """psycopg's cursor, in autocommit mode."""

    def cycle(self, name: str) -> Callable[[], object]:
        connection = load("psycopg").connect(_plain(self.url), autocommit=True)
        return _cycle(connection.cursor().execute, "%s", name)


class Core(Contestant):
    """A connection of SQLAlchemy's Core, in autocommit mode."""

    def cycle(self, name: str) -> Callable[[], object]:
        make = load("sqlalchemy").create_engine
        url = self.url.removeprefix("sql+")
        connection = make(url, isolation_level="AUTOCOMMIT").connect()
        return _cycle(connection.exec_driver_sql, "%s", name)


class PsycopgAsyncio(AsyncContestant):
    """psycopg's asyncio connection."""

    async def start(self) -> None:
        kind = load("psycopg").AsyncConnection
        self.connection = await kind.connect(_plain(self.url), autocommit=True)
        for statement in (_TABLE,):
            await self.connection.execute(statement)

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        change, cursor = _SET.format("%s"), self.connection.cursor()
        begun: list[bool] = []

        async def once() -> None:
            if not begun:
                begun.append(True)
                for statement in (_INSERT, _RESET):
                    await cursor.execute(statement.format("%s"), (name,))
            await cursor.execute(change, ("1", "taken", name, "0"))
            await cursor.execute(change, ("0", "free", name, "1"))

        return once

    async def stop(self) -> None:
        await self.connection.close()
