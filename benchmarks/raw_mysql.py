"""The raw clients of MySQL and MariaDB: GET_LOCK and RELEASE_LOCK, and no more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .contestants import AsyncContestant, AsyncLock, Contestant, Lock
from .raw import load

_TRY = "SELECT GET_LOCK(%s, 0)"
_WAIT = "SELECT GET_LOCK(%s, 60)"
_FREE = "SELECT RELEASE_LOCK(%s)"


class _Cursor:
    """A lock on a connection of its own."""

    def __init__(self, cursor: Any, name: str) -> None:
        self._cursor = cursor
        self._values = (name,)

    def acquire(self) -> object:
        return self._cursor.execute(_WAIT, self._values)

    def release(self) -> object:
        return self._cursor.execute(_FREE, self._values)


class Pymysql(Contestant):
    """PyMySQL's cursor."""

    def _cursor(self) -> Any:
        connection = load("pymysql").connect(
            host=self.host, port=self.port, user="tenure", autocommit=True, ssl_disabled=True
        )
        return connection.cursor()

    def lock(self, name: str) -> Lock:
        return _Cursor(self._cursor(), name)

    def cycle(self, name: str) -> Callable[[], object]:
        cursor, values = self._cursor(), (name,)

        def once() -> None:
            cursor.execute(_TRY, values)
            assert cursor.fetchone()[0] == 1
            cursor.execute(_FREE, values)
            assert cursor.fetchone()[0] == 1

        return once


class _Task:
    """The same in a task."""

    def __init__(self, contestant: Aiomysql, name: str) -> None:
        self._contestant = contestant
        self._values = (name,)
        self._connection: Any = None

    async def acquire(self) -> object:
        if self._connection is None:
            self._connection = await self._contestant.connect()
        cursor = await self._connection.cursor()
        return await cursor.execute(_WAIT, self._values)

    async def release(self) -> object:
        cursor = await self._connection.cursor()
        return await cursor.execute(_FREE, self._values)


class Aiomysql(AsyncContestant):
    """aiomysql's cursor."""

    async def start(self) -> None:
        self._made: list[Any] = []
        self._first = await self.connect()

    async def connect(self) -> Any:
        connection = await load("aiomysql").connect(
            host=self.host, port=self.port, user="tenure", autocommit=True
        )
        self._made.append(connection)
        return connection

    def task_lock(self, name: str) -> AsyncLock:
        return _Task(self, name)

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        values, connection = (name,), self._first

        async def once() -> None:
            async with connection.cursor() as cursor:
                await cursor.execute(_TRY, values)
                assert (await cursor.fetchone())[0] == 1
                await cursor.execute(_FREE, values)
                assert (await cursor.fetchone())[0] == 1

        return once

    async def stop(self) -> None:
        for connection in self._made:
            connection.close()
