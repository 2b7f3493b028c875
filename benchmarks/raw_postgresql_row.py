"""The raw client for locks in rows: a row is taken if it is free, and freed again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .contestants import AsyncContestant, Contestant
from .raw import load

_MAKE = (
    "CREATE TABLE IF NOT EXISTS raw_lock (name text PRIMARY KEY, owner text)",
    "INSERT INTO raw_lock VALUES (%s, NULL) ON CONFLICT (name) DO UPDATE SET owner = NULL",
)
_TAKE = "UPDATE raw_lock SET owner = 'me' WHERE name = %s AND owner IS NULL"
_GIVE = "UPDATE raw_lock SET owner = NULL WHERE name = %s AND owner = 'me'"


def _plain(url: str) -> str:
    return url.partition("?")[0]


class Psycopg(Contestant):
    """psycopg without prepared statements, as behind a pooler."""

    def cycle(self, name: str) -> Callable[[], object]:
        connection = load("psycopg").connect(
            _plain(self.url), autocommit=True, prepare_threshold=None
        )
        cursor, values = connection.cursor(), (name,)
        cursor.execute(_MAKE[0])
        cursor.execute(_MAKE[1], values)

        def once() -> None:
            assert cursor.execute(_TAKE, values).rowcount == 1
            assert cursor.execute(_GIVE, values).rowcount == 1

        return once


class PsycopgAsyncio(AsyncContestant):
    """The same with psycopg's asyncio connection."""

    connection: Any

    async def start(self) -> None:
        self.connection = await load("psycopg").AsyncConnection.connect(
            _plain(self.url), autocommit=True, prepare_threshold=None
        )
        await self.connection.execute(_MAKE[0])

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        execute, values = self.connection.execute, (name,)
        made = False

        async def once() -> None:
            nonlocal made
            if not made:
                await execute(_MAKE[1], values)
                made = True
            assert (await execute(_TAKE, values)).rowcount == 1
            assert (await execute(_GIVE, values)).rowcount == 1

        return once

    async def stop(self) -> None:
        await self.connection.close()
