"""PostgreSQL with locks in rows, and poolers: what each strategy does behind pgbouncer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tenure._model import Claim
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers._postgresql_row import PostgresqlRowDriver
from tenure.drivers.base import Driver
from tenure.drivers.postgresql import PostgresqlDriver
from tenure.drivers.registry import find
from tenure.errors import (
    AuthenticationFailed,
    InvalidURL,
    OutcomeUnknown,
    SessionLost,
    Unavailable,
    Unsupported,
)
from tenure.testing.proxy import Proxy
from tenure.testing.servers import PgBouncer, PostgresServer

SPACE = "rows"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One server for all tests of this module."""
    with PostgresServer(password="s3cret-word") as server:
        yield server


@pytest.fixture(scope="module")
def pooler(server: PostgresServer) -> Iterator[PgBouncer]:
    """A pooler in transaction mode with few server connections, so that clients share them."""
    with PgBouncer(server, settings={"default_pool_size": "3"}) as pooler:
        yield pooler


class World:
    """The clients of one test, in one flavour."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.drivers: list[Driver] = []

    async def driver(self, url: str, ttl: float = 9.0, space: str = SPACE) -> Any:
        """An open driver, of the class that the URL asks for."""
        parsed = Url.parse(url)
        driver = find(parsed)(parsed, self.runtime, space, ttl)
        self.drivers.append(driver)
        try:
            await driver.open()
        except BaseException:
            self.drivers.remove(driver)
            raise
        return driver

    async def close(self) -> None:
        for driver in self.drivers:
            await driver.close()


Play = Callable[[Callable[[World], Awaitable[None]]], None]


@pytest.fixture(params=["thread", "asyncio"])
def play(request: pytest.FixtureRequest) -> Play:
    """Runs a test's body in one flavour and in the other."""

    async def whole(runtime: Runtime, body: Callable[[World], Awaitable[None]]) -> None:
        world = World(runtime)
        try:
            await body(world)
        finally:
            await world.close()

    async def on_loop(body: Callable[[World], Awaitable[None]]) -> None:
        await whole(AsyncioRuntime(), body)

    def run(body: Callable[[World], Awaitable[None]]) -> None:
        if request.param == "thread":
            drive(whole(ThreadRuntime(), body))
        else:
            asyncio.run(on_loop(body))

    return run


def rows(url: str) -> str:
    """The URL with the strategy of rows."""
    return f"{url}?lock=row"


def ignore(reason: str) -> None:
    """A session's loss, which the test finds out by itself."""


def test_the_url_chooses_the_strategy() -> None:
    """Rows only where the URL says so; another word is refused with those that would do."""
    assert find(Url.parse("postgresql://h/d")) is PostgresqlDriver
    assert find(Url.parse("postgresql://h/d?lock=advisory")) is PostgresqlDriver
    assert find(Url.parse("postgres://h/d?lock=row")) is PostgresqlRowDriver
    with pytest.raises(InvalidURL, match="'advisory', the default, or 'row', not 'table'"):
        find(Url.parse("postgresql://h/d?lock=table"))


def test_locks_as_rows_behind_a_transaction_pooler(pooler: PgBouncer, play: Play) -> None:
    """Clients that share server connections exclude each other, in order, with rising tokens."""

    async def body(world: World) -> None:
        a, b = await world.driver(rows(pooler.url)), await world.driver(rows(pooler.url))
        one, two = await a.start("a", ignore), await b.start("b", ignore)
        first = await a.claim(one, "name", "first", "", 1)
        assert first.mine is not None
        assert (await b.claim(two, "name", "try", "", 1)).mine is None
        second = await b.claim(two, "name", "second", "", None)
        assert second.rank == 1
        await a.renew(one)
        await a.withdraw(one, "name", "first")
        found = await b.read(two, "name", "second")
        assert found.rank == 0
        assert found.mine.token > first.mine.token
        await b.withdraw(two, "name", "second")
        assert await a.record("entry", "text", None) is not None
        assert (await b.recall("entry")).text == "text"
        await a.record("entry", None, (await a.recall("entry")).version)
        await a.end(one)
        await b.end(two)

    play(body)


def test_nothing_is_left_on_the_poolers_connections(
    server: PostgresServer, pooler: PgBouncer, play: Play
) -> None:
    """No advisory lock, prepared statement or channel stays behind on a server connection."""

    async def body(world: World) -> None:
        driver = await world.driver(rows(pooler.url))
        session = await driver.start("a", ignore)
        await driver.claim(session, "name", "id", "", 1)
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert server.psql(locks) == "0"
        link = driver._link
        assert await link.rows("SELECT name FROM pg_prepared_statements") == []
        assert await link.rows("SELECT pg_listening_channels()") == []
        await driver.end(session)

    play(body)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_the_default_refuses_a_pooler_that_shares(
    server: PostgresServer, play: Play, mode: Any
) -> None:
    """Advisory locks would leak there; the error says what to do instead."""

    async def body(world: World) -> None:
        for _ in range(3):  # with no server connection yet, and with several
            with pytest.raises(Unsupported, match=r"\?lock=row"):
                await world.driver(sharing.url)
        # A pooler that takes its connections in turn is found out, too.
        with pytest.raises(Unsupported, match=r"\?lock=row"):
            await world.driver(turning.url)

    turns = {"server_round_robin": "1"}
    with (
        PgBouncer(server, mode=mode) as sharing,
        PgBouncer(server, mode=mode, settings=turns) as turning,
    ):
        play(body)


def test_the_default_works_behind_a_session_pooler(server: PostgresServer, play: Play) -> None:
    """There a server connection is the client's own: locks exclude, wait, and are freed."""

    async def body(world: World) -> None:
        a, b = await world.driver(private.url), await world.driver(private.url)
        one, two = await a.start("a", ignore), await b.start("b", ignore)
        grant = await a.mutex.seize(one, "name", "1", shared=False, until=None)
        assert grant is not None
        assert await b.mutex.seize(two, "name", "2", shared=False, until=None) is None
        await a.end(one)
        until = world.runtime.now() + 10
        after = await b.mutex.seize(two, "name", "3", shared=False, until=until)
        assert after is not None
        assert after.token > grant.token
        await b.mutex.unseize(after)
        await b.end(two)

    with PgBouncer(server, mode="session") as private:
        play(body)


def test_a_session_pool_of_one_connection_is_refused(server: PostgresServer) -> None:
    """A client needs several; with one it would wait for itself, and is told so instead."""

    async def body(world: World) -> None:
        with pytest.raises(Unavailable, match="no second connection"):
            await world.driver(narrow.url, ttl=3.0)

    with PgBouncer(server, mode="session", settings={"default_pool_size": "1"}) as narrow:
        drive(body(World(ThreadRuntime())))


def test_two_strategies_do_not_share_a_namespace(server: PostgresServer, play: Play) -> None:
    """Whoever comes second is refused, whichever strategy was first, until that is gone."""

    async def body(world: World) -> None:
        advisory = await world.driver(server.url, space="mixed")
        with pytest.raises(InvalidURL, match=r"with advisory locks now.*asks for rows"):
            await world.driver(rows(server.url), space="mixed")
        await world.driver(rows(server.url), space="another")
        await advisory.close()
        by_rows = await until_open(world, rows(server.url), "mixed")
        session = await by_rows.start("r", ignore)
        with pytest.raises(InvalidURL, match=r"with rows now.*asks for advisory locks"):
            await world.driver(server.url, space="mixed")
        await world.driver(server.url, space="different")
        await by_rows.end(session)
        await world.driver(server.url, space="mixed")
        # One that was open already finds out when it begins a session.
        with pytest.raises(InvalidURL, match="with advisory locks now"):
            await by_rows.start("r", ignore)

    play(body)


async def until_open(world: World, url: str, space: str) -> Any:
    """Open as soon as the server has seen that the other strategy's connections are closed."""
    give_up = world.runtime.now() + 20
    while True:
        try:
            return await world.driver(url, space=space)
        except InvalidURL:
            assert world.runtime.now() < give_up
            await world.runtime.sleep(world.runtime.now() + 0.02)


def test_tokens_rise_from_one_strategy_to_the_other(server: PostgresServer, play: Play) -> None:
    """A team that changes its strategy sees no token go down."""

    async def body(world: World) -> None:
        tokens: list[int] = []
        for url in (server.url, rows(server.url), server.url, rows(server.url)):
            driver = await until_open(world, url, "changing")
            session = await driver.start("o", ignore)
            for _ in range(3):
                if driver.mutex is None:
                    claim: Claim = (await driver.claim(session, "n", f"i{len(tokens)}", "", 1)).mine
                    tokens.append(claim.token)
                    await driver.withdraw(session, "n", claim.id)
                else:
                    grant = await driver.mutex.seize(session, "n", "i", shared=False, until=None)
                    tokens.append(grant.token)
                    await driver.mutex.unseize(grant)
            await driver.end(session)
            world.drivers.remove(driver)
            await driver.close()
        assert tokens == sorted(set(tokens))

    play(body)


def test_an_end_of_the_connection_ends_nothing(server: PostgresServer, play: Play) -> None:
    """A session lives in a row: the next call connects anew, and the claim is still there."""

    async def body(world: World) -> None:
        driver = await world.driver(rows(server.url))
        session = await driver.start("a", ignore)
        claim = (await driver.claim(session, "name", "id", "", 1)).mine
        server.psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename = 'tenure' AND pid <> pg_backend_pid()"
        )
        await seen_to_end(world, driver)
        await driver.renew(session)
        assert (await driver.read(session, "name", "id")).mine == claim
        await driver.withdraw(session, "name", "id")
        await driver.end(session)

    play(body)


async def seen_to_end(world: World, driver: Any) -> None:
    """Wait until the client has seen the end of its connection."""
    give_up = world.runtime.now() + 20
    while driver._link.reason is None:
        assert world.runtime.now() < give_up
        await world.runtime.sleep(world.runtime.now() + 0.01)


def test_a_reply_that_never_comes(server: PostgresServer, play: Play) -> None:
    """The outcome is unknown; asking again by the same id enters no second claim."""

    async def body(world: World) -> None:
        with Proxy(server.host, server.port) as proxy:
            driver = await world.driver(rows(server.url_at(proxy.port)), ttl=3.0)
            session = await driver.start("a", ignore)
            proxy.black_hole("to_client")
            with pytest.raises(OutcomeUnknown):
                await driver.claim(session, "lost", "id", "", 1)
            proxy.heal()
            proxy.reset()
            found = await driver.claim(session, "lost", "id", "", 1)
            assert found.mine.id == "id"
            assert len(await driver.census("lost")) == 1
            await driver.withdraw(session, "lost", "id")
            await driver.end(session)

    play(body)


def test_a_buried_session_claims_nothing(server: PostgresServer, play: Play) -> None:
    """Whether its session lives is asked in the statement that enters the claim."""

    async def body(world: World) -> None:
        driver = await world.driver(rows(server.url))
        session = await driver.start("a", ignore)
        await driver.claim(session, "known", "id", "", 1)
        server.psql(f"DELETE FROM tenure_row WHERE kind = 'session' AND name = '{session}'")
        for roster in ("known", "new"):
            with pytest.raises(SessionLost):
                await driver.claim(session, roster, "another", "", None)
        with pytest.raises(SessionLost):
            await driver.renew(session)

    play(body)


def test_a_claim_and_its_end_take_one_round_trip_each(server: PostgresServer, play: Play) -> None:
    """So does a name that was used before; the first use of a name looks first."""

    async def body(world: World) -> None:
        driver = await world.driver(rows(server.url))
        session = await driver.start("a", ignore)
        await driver.claim(session, "name", "0", "", 1)
        await driver.withdraw(session, "name", "0")
        run, made = driver._run, []

        async def note(statement: str, *values: Any) -> Any:
            made.append(statement)
            return await run(statement, *values)

        driver._run = note
        await driver.claim(session, "name", "1", "", 1)
        await driver.withdraw(session, "name", "1")
        assert made == ["save_for", "save"]
        await driver.end(session)

    play(body)


def test_names_of_every_kind(server: PostgresServer, play: Play) -> None:
    """Quotes, NUL, emoji and JSON's own signs in names and bodies come back as they were."""

    async def body(world: World) -> None:
        driver = await world.driver(rows(server.url), space="o'sp\"{}")
        session = await driver.start("o'w{n}er", ignore)
        for name in ("it's", 'a"b\\', "{kind}", "nul\0", "\U0001f512", '"claims":[]'):
            await driver.claim(session, name, "i'd", f'{{"body": "{name}"}}', None)
            (claim,) = await driver.census(name)
            assert (claim.id, claim.owner) == ("i'd", "o'w{n}er")
            assert claim.body == f'{{"body": "{name}"}}'
            assert name in await driver.rosters("")
        await driver.end(session)

    play(body)


def test_old_rows_are_swept(server: PostgresServer, play: Play) -> None:
    """A day after their last use, dead sessions and empty rosters go, and claims stay."""

    async def body(world: World) -> None:
        driver = await world.driver(rows(server.url), space="sweep")
        session = await driver.start("a", ignore)
        await driver.claim(session, "empty", "1", '"claims":[]', None)
        await driver.withdraw(session, "empty", "1")
        claim = (await driver.claim(session, "full", "1", '"claims":[]', None)).mine
        server.psql("UPDATE tenure_row SET expires = now() - interval '25 hours'")
        other = await world.driver(rows(server.url), space="sweep")
        second = await other.start("b", ignore)
        left = server.psql("SELECT name FROM tenure_row WHERE namespace = 'sweep' ORDER BY name")
        assert sorted(left.split()) == sorted(["full", second])
        after = (await other.claim(second, "empty", "2", "", None)).mine
        assert after.token > claim.token
        await other.end(second)

    play(body)


def test_what_an_administrator_must_run(server: PostgresServer, play: Play) -> None:
    """A user without the right to make the table is told the statements."""

    async def body(world: World) -> None:
        url = f"{server.url}?schema=rowless&lock=row"
        with pytest.raises(AuthenticationFailed, match=r"CREATE TABLE.*GRANT SELECT"):
            await world.driver(url)

    server.psql(
        "CREATE SCHEMA rowless; GRANT USAGE ON SCHEMA rowless TO tenure;"
        "CREATE SEQUENCE rowless.tenure_token;"
        "GRANT USAGE ON SEQUENCE rowless.tenure_token TO tenure"
    )
    try:
        play(body)
    finally:
        server.psql("DROP SCHEMA rowless CASCADE")


def test_a_crash_takes_nothing_back(play: Play) -> None:
    """Where the server confirms before it has written, Tenure's statements wait all the same."""

    async def body(world: World) -> None:
        driver = await world.driver(rows(brittle.url), ttl=60.0)
        session = await driver.start("a", ignore)
        claim = (await driver.claim(session, "name", "id", "", 1)).mine
        brittle.kill()
        brittle.start()
        await seen_to_end(world, driver)
        assert (await driver.read(session, "name", "id")).mine == claim
        await driver.end(session)

    # A writer that wakes this seldom has written nothing by itself when the server is killed.
    settings = {"synchronous_commit": "off", "wal_writer_delay": "10000", "fsync": "on"}
    with PostgresServer(settings=settings) as brittle:
        play(body)


def test_a_forked_child_leaves_the_parents_connection_alone(server: PostgresServer) -> None:
    """The child closes its copies without a word; the parent goes on."""

    async def body(world: World) -> None:
        driver = await world.driver(rows(server.url))
        session = await driver.start("a", ignore)
        child = os.fork()
        if child == 0:
            driver.abandon()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222
        await driver.renew(session)
        await driver.end(session)

    world = World(ThreadRuntime())

    async def whole() -> None:
        try:
            await body(world)
        finally:
            await world.close()

    drive(whole())
