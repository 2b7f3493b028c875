"""What `tenure doctor` finds on a PostgreSQL that is really misconfigured."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tenure._model import Finding
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers.registry import find
from tenure.testing.servers import PgBouncer, PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server as an administrator should not leave it."""
    settings = {
        "max_connections": "40",
        "max_locks_per_transaction": "10",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "statement_timeout": "30s",
        "tcp_keepalives_idle": "300",
    }
    with PostgresServer(settings=settings) as server:
        yield server


async def look(url: str, runtime: Runtime, ttl: float) -> list[Finding]:
    """The findings of a driver that was opened for that."""
    parsed = Url.parse(url)
    driver = find(parsed)(parsed, runtime, "doctor", ttl)
    await driver.open()
    try:
        return list(await driver.examine())
    finally:
        await driver.close()


def examine(url: str, ttl: float = 15.0) -> dict[str, Finding]:
    """The findings by their subject."""
    return {each.subject: each for each in drive(look(url, ThreadRuntime(), ttl))}


def test_a_server_in_order_has_nothing_to_fear() -> None:
    """Nothing worse than notes, where nothing is wrong; the same on both runtimes."""
    with PostgresServer(settings={"fsync": "on"}) as server:
        found = examine(server.url)

        async def on_loop() -> list[Finding]:
            return await look(server.url, AsyncioRuntime(), 15.0)

        assert {each.subject for each in asyncio.run(on_loop())} == found.keys()
    assert {each.severity for each in found.values()} <= {"note"}


def test_what_is_misconfigured_is_found(server: PostgresServer) -> None:
    """Each setting is named with its value, and graver ones are errors."""
    found = examine(server.url)
    assert found["fsync off"].severity == "error"
    assert found["synchronous_commit off"].severity == "warning"
    assert found["full_page_writes off"].severity == "warning"
    assert "about 400" in found["max_locks_per_transaction 10"].text
    assert "after 30 s" in found["statement_timeout 30 s"].text
    assert found["tcp_keepalives_idle 300 s"].severity == "note"


def test_what_the_role_sets_is_found(server: PostgresServer) -> None:
    """Though the driver's own connections have switched it off."""
    server.psql(
        "ALTER ROLE tenure SET lock_timeout = '700ms';"
        "ALTER ROLE tenure SET idle_session_timeout = '1min';"
        "ALTER ROLE tenure SET idle_in_transaction_session_timeout = '200ms';"
    )
    try:
        found = examine(server.url)
    finally:
        server.psql("ALTER ROLE tenure RESET ALL")
    assert "ends a wait" in found["lock_timeout 0.7 s"].text
    assert "ends the connection" in found["idle_session_timeout 60 s"].text
    assert found["idle_in_transaction_session_timeout 0.2 s"].severity == "warning"


def test_a_lock_table_that_is_nearly_full(server: PostgresServer) -> None:
    """It is an error before it is full, since then every client fails."""
    import psycopg

    with psycopg.connect(server.url, autocommit=True) as connection:
        # The table has room for some more than is reckoned.
        connection.execute("SELECT count(pg_advisory_lock(n)) FROM generate_series(1, 350) n")
        finding = examine(server.url)["max_locks_per_transaction 10"]
    assert finding.severity == "error"
    assert "are in it" in finding.text


def test_connections_that_are_nearly_used_up(server: PostgresServer) -> None:
    """Of the server, and of the role."""
    import psycopg

    server.psql("ALTER ROLE tenure CONNECTION LIMIT 36")
    held = [psycopg.connect(server.url) for _ in range(31)]
    try:
        found = examine(server.url)
    finally:
        for connection in held:
            connection.close()
        server.psql("ALTER ROLE tenure CONNECTION LIMIT -1")
    assert found["max_connections 37"].severity == "warning"
    assert "of 36" in found["CONNECTION LIMIT 36"].text


def test_a_pooler_is_named(server: PostgresServer) -> None:
    """In session mode it is a warning for advisory locks, and a note for rows."""
    with PgBouncer(server, mode="session") as pooler:
        assert examine(pooler.url)["a pooler"].severity == "warning"
    with PgBouncer(server, mode="transaction") as pooler:
        found = examine(f"{pooler.url}?lock=row")
    assert found["a pooler"].severity == "note"
    assert found["fsync off"].severity == "error"
    assert not any("timeout" in subject or "locks" in subject for subject in found)


def test_what_may_not_be_read_is_a_note(server: PostgresServer) -> None:
    """Without the right to look, that is what is found."""
    server.psql("REVOKE SELECT ON pg_settings FROM PUBLIC")
    try:
        (finding,) = examine(server.url).values()
    finally:
        server.psql("GRANT SELECT ON pg_settings TO PUBLIC")
    assert finding.severity == "note"
    assert "may not be read" in finding.text
