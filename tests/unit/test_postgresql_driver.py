"""The PostgreSQL driver on a real server: what its locks leave behind, and when it is told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import pytest

import tenure
from support.connects import connected_at_once
from support.gates import check_closed
from tenure._model import Claim, Grant, Interest
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers._postgresql_server import make
from tenure.drivers.postgresql import PostgresqlDriver
from tenure.errors import (
    AuthenticationFailed,
    BackendError,
    InvalidURL,
    OutcomeUnknown,
    SessionLost,
    TenureError,
    Unavailable,
)
from tenure.testing.proxy import Proxy
from tenure.testing.servers import PostgresServer
from tenure.wires import postgresql_thread
from tenure.wires.libpq import Refused
from tenure.wires.postgresql import Link

# A session's own marks are advisory locks of two integers, a space of their own.
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
QUEUED = f"{LOCKS} AND NOT granted"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One server for all tests of this module."""
    with PostgresServer(password="s3cret-word") as server:
        yield server


class Client:
    """A driver with a session, and what it was told about its loss."""

    def __init__(self, runtime: Runtime, url: str, ttl: float = 9.0) -> None:
        self.runtime = runtime
        self.driver = PostgresqlDriver(Url.parse(url), runtime, "tests", ttl)
        self.session = ""
        self.reasons: list[str] = []

    async def start(self, owner: str = "client") -> Client:
        await self.driver.open()
        self.session = await self.driver.start(owner, self.reasons.append)
        return self

    async def seize(
        self, name: str, *, shared: bool = False, wait: float | None = None
    ) -> Grant | None:
        until = None if wait is None else self.runtime.now() + wait
        return await self.driver.mutex.seize(
            self.session, name, self.runtime.unique(), shared=shared, until=until
        )

    async def held(self, name: str, *, shared: bool = False, wait: float | None = None) -> Grant:
        grant = await self.seize(name, shared=shared, wait=wait)
        assert grant is not None, f"{name} is taken"
        return grant

    @property
    def main(self) -> Link:
        session = self.driver.session
        assert session is not None
        return session.main

    async def renew(self) -> None:
        await self.driver.renew(self.session)

    async def close(self) -> None:
        await self.driver.end(self.session)
        await self.driver.close()


class World:
    """The clients of one test, in one flavour."""

    def __init__(self, runtime: Runtime, server: PostgresServer) -> None:
        self.runtime = runtime
        self.server = server
        self.clients: list[Client] = []

    async def client(self, owner: str = "client", *, url: str = "", ttl: float = 9.0) -> Client:
        client = Client(self.runtime, url or self.server.url, ttl)
        self.clients.append(client)
        return await client.start(owner)

    async def until(self, what: str, met: Callable[[], bool], seconds: float = 5.0) -> None:
        """Look again and again until the condition is met."""
        end = self.runtime.now() + seconds
        while not met():
            assert self.runtime.now() < end, f"not within {seconds} s: {what}"
            await self.runtime.sleep(self.runtime.now() + 0.01)

    def count(self, query: str) -> int:
        return int(self.server.psql(query))

    def later(self, work: Callable[[], Awaitable[Any]]) -> list[Any]:
        """Run it in the background; the list gets its result, or its error."""
        results: list[Any] = []

        async def main() -> None:
            try:
                results.append(await work())
            except TenureError as error:
                results.append(error)

        self.runtime.spawn(main, "test")
        return results

    async def close(self) -> None:
        for client in self.clients:
            await client.close()


Play = Callable[[Callable[[World], Awaitable[None]]], None]


@pytest.fixture(params=["thread", "asyncio"])
def play(request: pytest.FixtureRequest, server: PostgresServer) -> Play:
    """Runs a test's body in both flavours."""

    async def whole(runtime: Runtime, body: Callable[[World], Awaitable[None]]) -> None:
        world = World(runtime, server)
        try:
            await body(world)
        finally:
            await world.close()
        await world.until("every lock is gone", lambda: world.count(LOCKS) == 0)

    async def on_loop(body: Callable[[World], Awaitable[None]]) -> None:
        await whole(AsyncioRuntime(), body)

    def run(body: Callable[[World], Awaitable[None]]) -> None:
        if request.param == "thread":
            drive(whole(ThreadRuntime(), body))
        else:
            asyncio.run(on_loop(body))

    return run


def kill_backends(world: World, owner: str) -> None:
    """Have the server end every connection of an owner."""
    world.server.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE application_name = 'tenure:{owner}'"
    )


def test_tokens_rise(play: Play) -> None:
    """Each grant has a greater token, whichever connection or client it lives on."""

    async def body(world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        first = await a.held("name")
        waiting = world.later(lambda: b.held("name", wait=5.0))
        await world.until("b queues", lambda: world.count(QUEUED) == 1)
        await a.driver.mutex.unseize(first)
        await world.until("b is granted", lambda: bool(waiting))
        second: Grant = waiting[0]
        await b.driver.mutex.unseize(second)
        third = await b.held("name")
        assert first.token < second.token < third.token
        await b.driver.mutex.unseize(third)
        await b.driver.mutex.unseize(third)
        assert world.count(LOCKS) == 0

    play(body)


def test_one_connection_is_not_one_holder(play: Play) -> None:
    """The server's re-entrancy is not passed on: a session excludes itself, too."""

    async def body(world: World) -> None:
        a = await world.client()
        grant = await a.held("name")
        assert await a.seize("name") is None
        assert await a.seize("name", shared=True) is None
        assert await a.seize("name", wait=0.1) is None
        await a.driver.mutex.unseize(grant)
        readers = [await a.held("name", shared=True) for _ in range(3)]
        assert await a.seize("name") is None
        for reader in readers:
            await a.driver.mutex.unseize(reader)
        await a.driver.mutex.unseize(await a.held("name"))

    play(body)


def test_readers_do_not_pass_a_waiting_writer(play: Play) -> None:
    """A reader of the session that already reads queues behind another client's writer."""

    async def body(world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        first = await a.held("name", shared=True)
        writer = world.later(lambda: b.held("name", wait=5.0))
        await world.until("the writer queues", lambda: world.count(QUEUED) == 1)
        assert await a.seize("name", shared=True) is None
        await a.driver.mutex.unseize(first)
        await world.until("the writer is granted", lambda: bool(writer))
        await b.driver.mutex.unseize(writer[0])

    play(body)


def test_a_time_out_leaves_nothing(play: Play) -> None:
    """When a wait has timed out, its place in the queue is gone on return."""

    async def body(world: World) -> None:
        a, b = await world.client(), await world.client()
        grant = await a.held("name")
        began = world.runtime.now()
        assert await b.seize("name", wait=0.2) is None
        assert world.count(LOCKS) == 1
        assert world.runtime.now() - began < 2.0
        await a.driver.mutex.unseize(grant)
        await b.driver.mutex.unseize(await b.held("name", wait=1.0))

    play(body)


def test_a_cancelled_wait_leaves_nothing(server: PostgresServer) -> None:
    """A task that is cancelled in the queue leaves it before the cancellation is over."""

    async def main() -> None:
        world = World(AsyncioRuntime(), server)
        a, b = await world.client(), await world.client()
        grant = await a.held("name")
        task = asyncio.create_task(b.held("name", wait=30.0))
        await world.until("b queues", lambda: world.count(QUEUED) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.count(LOCKS) == 1
        await a.driver.mutex.unseize(grant)
        await world.close()

    asyncio.run(main())


def test_a_cancelled_try_leaves_nothing(server: PostgresServer) -> None:
    """Cancelled at any of its steps, a try holds nothing, and the session goes on."""

    async def main() -> None:
        world = World(AsyncioRuntime(), server)
        a = await world.client()
        other = await a.held("other")
        for steps in range(6):
            task = asyncio.create_task(a.held("name"))
            for _ in range(steps):
                await asyncio.sleep(0)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                await a.driver.mutex.unseize(task.result())
            assert world.count(LOCKS) == 1
        await a.driver.mutex.unseize(await a.held("name"))
        await a.driver.mutex.unseize(other)
        assert not a.reasons
        await world.close()

    asyncio.run(main())


def test_a_cancelled_release_frees_the_lock(server: PostgresServer) -> None:
    """Cancelled at any of its steps, also behind another call, a release is carried out."""

    async def main() -> None:
        world = World(AsyncioRuntime(), server)
        a = await world.client()
        other = await a.held("other", shared=True)
        for steps in range(8):
            grant = await a.held("name")
            again = await a.held("other", shared=True)
            busy = asyncio.create_task(a.driver.mutex.unseize(again))
            task = asyncio.create_task(a.driver.mutex.unseize(grant))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(busy, task, return_exceptions=True)
            assert world.count(LOCKS) == (1 if steps else 2)
            await a.driver.mutex.unseize(grant)
        await a.driver.mutex.unseize(other)
        assert world.count(LOCKS) == 0
        assert not a.reasons
        await world.close()

    asyncio.run(main())


def test_a_closed_connection_is_a_loss_at_once(play: Play) -> None:
    """When the server ends the connection, the holder is told without asking."""

    async def body(world: World) -> None:
        a = await world.client("victim")
        grant = await a.held("name")
        kill_backends(world, "victim")
        await world.until("the loss is told", lambda: bool(a.reasons), 1.0)
        with pytest.raises(SessionLost):
            await a.driver.renew(a.session)
        await a.driver.mutex.unseize(grant)
        a.session = await a.driver.start("victim", a.reasons.append)
        await a.driver.mutex.unseize(await a.held("name"))
        assert len(a.reasons) == 1

    play(body)


def test_every_connection_with_a_lock_is_watched(play: Play) -> None:
    """A lock that was waited for lives on another connection; its end is a loss as well."""

    async def body(world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        first, kept = await a.held("name"), await b.held("kept")
        waiting = world.later(lambda: b.held("name", wait=5.0))
        await world.until("b queues", lambda: world.count(QUEUED) == 1)
        await a.driver.mutex.unseize(first)
        await world.until("b is granted", lambda: bool(waiting))
        await b.driver.renew(b.session)
        link = waiting[0].handle.link
        assert link is not kept.handle.link
        world.server.psql(f"SELECT pg_terminate_backend({link.backend_pid})")
        await world.until("the loss is told", lambda: bool(b.reasons), 1.0)
        await world.until("the other lock is freed too", lambda: world.count(LOCKS) == 0)

    play(body)


def test_a_waiter_whose_session_ends_is_not_granted(play: Play) -> None:
    """The loss of the session ends its waits with `SessionLost`."""

    async def body(world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        await a.held("name")
        waiting = world.later(lambda: b.held("name", wait=30.0))
        await world.until("b queues", lambda: world.count(QUEUED) == 1)
        world.server.psql(f"SELECT pg_terminate_backend({b.main.backend_pid})")
        await world.until("the wait ends", lambda: bool(waiting), 3.0)
        assert isinstance(waiting[0], SessionLost)
        await world.until("its place is gone", lambda: world.count(QUEUED) == 0, 3.0)

    play(body)


def test_all_is_free_when_a_session_has_ended(play: Play) -> None:
    """What a session held is free when `end` returns, whichever connection it was held on."""

    async def body(world: World) -> None:
        waiter = await world.client("waiter")
        for turn in range(20):
            a, b = await world.client("a"), await world.client("b")
            await a.held("kept")
            first = await b.held("passed on")
            passed = world.later(lambda: a.held("passed on", wait=30.0))  # noqa: B023
            await world.until("a queues", lambda: world.count(QUEUED) == 1)
            await b.driver.mutex.unseize(first)
            await world.until("a is granted", lambda: bool(passed))  # noqa: B023
            await a.driver.end(a.session)
            for name in ("kept", "passed on"):
                grant = await waiter.seize(name)
                assert grant is not None, f"{name} is still taken in turn {turn}"
                await waiter.driver.mutex.unseize(grant)
            for client in (a, b):
                world.clients.remove(client)
                await client.close()

    play(body)


def test_a_silent_client_keeps_its_lock(play: Play) -> None:
    """Nobody is let in beside a holder that is paused for longer than its TTL."""

    async def body(world: World) -> None:
        a, b = await world.client("silent", ttl=1.0), await world.client("b")
        grant = await a.held("name")
        assert await b.seize("name", wait=2.5) is None
        assert not a.reasons
        await a.driver.mutex.unseize(grant)

    play(body)


def test_a_call_without_reply_is_a_loss_within_patience(play: Play) -> None:
    """Whether the lock was taken is not known: the connection that it would live on ends."""

    async def body(world: World) -> None:
        url = Url.parse(world.server.url)
        with Proxy(url.hosts[0].name, url.hosts[0].port) as proxy:
            a = await world.client("a", url=world.server.url_at(proxy.port), ttl=3.0)
            await a.held("name")
            proxy.black_hole()
            began = world.runtime.now()
            with pytest.raises((SessionLost, Unavailable)):
                await a.seize("other")
            assert world.runtime.now() - began < 1.5
            assert a.reasons
            with pytest.raises(SessionLost):
                await a.renew()
            await a.close()
            world.clients.remove(a)
            proxy.reset()

    play(body)


def test_a_renewal_may_be_late(play: Play) -> None:
    """A network that is silent for less than the TTL costs a doubt, and no lease."""

    async def body(world: World) -> None:
        url = Url.parse(world.server.url)
        with Proxy(url.hosts[0].name, url.hosts[0].port) as proxy:
            a = await world.client("a", url=world.server.url_at(proxy.port), ttl=6.0)
            grant = await a.held("name")
            a.main._patience = 0.3
            proxy.black_hole()
            for _ in range(2):
                began = world.runtime.now()
                with pytest.raises(OutcomeUnknown):
                    await a.renew()
                assert world.runtime.now() - began < 1.0
            with pytest.raises(Unavailable):
                await a.seize("other")
            proxy.heal()
            await a.renew()
            await a.driver.mutex.unseize(grant)
            proxy.black_hole()
            with pytest.raises(OutcomeUnknown):
                await a.renew()
            await a.close()
            world.clients.remove(a)
            assert not a.reasons
            proxy.reset()

    play(body)


def test_a_failing_token_leaves_no_lock(play: Play) -> None:
    """A lock whose token could not be drawn is not kept by the connection."""

    async def body(world: World) -> None:
        a = await world.client()
        kept = await a.held("kept")
        world.server.psql("REVOKE ALL ON SEQUENCE public.tenure_token FROM tenure")
        try:
            with pytest.raises(AuthenticationFailed):
                await a.seize("name")
            with pytest.raises(AuthenticationFailed):
                await a.seize("name", shared=True)
            assert world.count(LOCKS) == 1
        finally:
            world.server.psql("GRANT ALL ON SEQUENCE public.tenure_token TO tenure")
        await a.driver.mutex.unseize(await a.held("name"))
        await a.driver.mutex.unseize(kept)
        assert not a.reasons

    play(body)


def test_the_holder_is_named(play: Play) -> None:
    """An operator can read who holds a lock."""

    async def body(world: World) -> None:
        a, b = await world.client("alice"), await world.client("bob")
        assert await b.driver.mutex.holder("name") is None
        grant = await a.held("name")
        holder = await b.driver.mutex.holder("name")
        assert holder is not None
        assert holder.owner == "alice"
        await a.driver.mutex.unseize(grant)

    play(body)


def test_a_restart_is_a_loss_and_then_over(play: Play) -> None:
    """After the server was restarted a new session works, with greater tokens."""

    async def body(world: World) -> None:
        a = await world.client()
        grant = await a.held("name")
        world.server.restart()
        await world.until("the loss is told", lambda: bool(a.reasons), 2.0)
        a.session = await a.driver.start("client", a.reasons.append)
        again = await a.held("name")
        assert again.token > grant.token
        await a.driver.mutex.unseize(again)

    play(body)


def test_a_forked_child_frees_nothing(server: PostgresServer) -> None:
    """The child lets go of the connections without ending the parent's session."""
    world = World(ThreadRuntime(), server)
    a = drive(world.client())
    grant = drive(a.held("name"))
    pid = os.fork()
    if pid == 0:
        refused = 1
        try:
            a.driver.abandon()
            drive(a.driver.mutex.unseize(grant))
            drive(a.driver.renew(a.session))
        except SessionLost:
            refused = 0
        finally:
            del a, grant
            gc.collect()
            os._exit(refused)
    assert os.waitpid(pid, 0)[1] == 0
    drive(a.driver.renew(a.session))
    assert world.count(LOCKS) == 1
    drive(a.driver.mutex.unseize(grant))
    drive(world.close())


def test_a_forked_child_does_not_keep_the_lock(server: PostgresServer) -> None:
    """The parent's death frees its locks although a child of it lives on."""
    world = World(ThreadRuntime(), server)
    parent = os.fork()
    if parent == 0:
        try:
            a = drive(world.client())
            drive(a.held("name"))
            if os.fork() == 0:
                a.driver.abandon()
                signal.alarm(5)
            signal.pause()
        finally:
            os._exit(1)
    drive(world.until("the parent holds it", lambda: world.count(LOCKS) == 1))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    drive(world.until("it is free", lambda: world.count(LOCKS) == 0, 2.0))


def opened(url: str, flavour: str) -> None:
    """Open a driver and close it again."""

    async def body(runtime: Runtime) -> None:
        client = Client(runtime, url, 6.0)
        await client.start()
        await client.close()

    async def on_loop() -> None:
        await body(AsyncioRuntime())

    if flavour == "thread":
        drive(body(ThreadRuntime()))
    else:
        asyncio.run(on_loop())


flavours = pytest.mark.parametrize("flavour", ["thread", "asyncio"])


@flavours
@pytest.mark.parametrize(
    "change, error, says",
    [
        (("s3cret-word", "wr0ng-word"), AuthenticationFailed, "password"),
        (("tenure:", "nobody:"), AuthenticationFailed, "nobody"),
        (("/postgres", "/absent"), BackendError, "absent"),
        (("/postgres", "/postgres?schema=absent"), BackendError, "absent"),
        (("/postgres", "/postgres?sslmode=maybe"), InvalidURL, "sslmode"),
        (("/postgres", "/postgres?nonsense=1"), InvalidURL, "nonsense"),
    ],
)
def test_a_wrong_url_fails_at_open(
    server: PostgresServer,
    flavour: str,
    change: tuple[str, str],
    error: type[TenureError],
    says: str,
) -> None:
    """What is wrong is named, and the password is not."""
    with pytest.raises(error, match=says) as caught:
        opened(server.url.replace(*change), flavour)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert "s3cret-word" not in str(chain)
        assert "wr0ng-word" not in str(chain)
        chain = chain.__cause__ or chain.__context__


@flavours
def test_an_unreachable_server_is_unavailable(server: PostgresServer, flavour: str) -> None:
    """A port that nobody listens on fails at once."""
    with pytest.raises(Unavailable):
        opened("postgresql://tenure@127.0.0.1:1/postgres", flavour)


@flavours
def test_hosts_are_tried_in_turn(server: PostgresServer, flavour: str) -> None:
    """A host that is down is passed over."""
    opened(server.url.replace("@", "@127.0.0.1:1,"), flavour)


@flavours
def test_too_many_connections_is_unavailable(server: PostgresServer, flavour: str) -> None:
    """A server without room may have some later."""
    server.psql("ALTER ROLE tenure CONNECTION LIMIT 0")
    try:
        with pytest.raises(Unavailable, match="too many"):
            opened(server.url, flavour)
    finally:
        server.psql("ALTER ROLE tenure CONNECTION LIMIT -1")


@flavours
def test_a_sequence_that_may_not_be_created(server: PostgresServer, flavour: str) -> None:
    """The error has the statements that an administrator must run."""
    server.psql("CREATE SCHEMA IF NOT EXISTS locked")
    with pytest.raises(AuthenticationFailed, match="schema locked"):
        opened(f"{server.url}?schema=locked", flavour)
    server.psql("GRANT USAGE ON SCHEMA locked TO tenure")
    with pytest.raises(AuthenticationFailed, match="CREATE SEQUENCE"):
        opened(f"{server.url}?schema=locked", flavour)
    server.psql("CREATE SEQUENCE locked.tenure_token")
    with pytest.raises(AuthenticationFailed, match="GRANT USAGE"):
        opened(f"{server.url}?schema=locked", flavour)
    server.psql("GRANT USAGE ON SEQUENCE locked.tenure_token TO tenure")
    opened(f"{server.url}?schema=locked", flavour)
    server.psql("DROP SCHEMA locked CASCADE")


def test_a_sequence_with_a_cache_is_refused(server: PostgresServer) -> None:
    """Cached values would reach the holders out of order."""
    server.psql("CREATE SCHEMA cached AUTHORIZATION tenure")
    server.psql("CREATE SEQUENCE cached.tenure_token CACHE 20")
    server.psql("GRANT USAGE ON SEQUENCE cached.tenure_token TO tenure")
    with pytest.raises(BackendError, match="CACHE 1"):
        opened(f"{server.url}?schema=cached", "thread")
    server.psql("DROP SCHEMA cached CASCADE")


def test_many_clients_may_create_the_sequence(server: PostgresServer) -> None:
    """Clients that find no sequence at the same moment all get through."""
    server.psql('CREATE SCHEMA "Ünï ""q" AUTHORIZATION tenure')
    url = f"{server.url}?schema=%C3%9Cn%C3%AF%20%22q"

    async def main() -> None:
        runtime = AsyncioRuntime()
        clients = [Client(runtime, url) for _ in range(12)]
        await asyncio.gather(*(client.start() for client in clients))
        await asyncio.gather(*(client.close() for client in clients))

    asyncio.run(main())
    server.psql('DROP SCHEMA "Ünï ""q" CASCADE')


# -- rosters and records -----------------------------------------------------------------------

TABLES = "tenure_claim, tenure_record, tenure_name"


async def entered(client: Client, roster: str, id: str, body: str = "") -> Claim:
    """Enter a claim, which must be there then."""
    roll = await client.driver.claim(client.session, roster, id, body, None)
    assert roll.mine is not None
    return roll.mine


def test_locks_need_no_tables(server: PostgresServer, play: Play) -> None:
    """Whoever takes locks alone leaves the schema with the sequence and nothing else."""
    server.psql("CREATE SCHEMA lean AUTHORIZATION tenure")

    async def body(world: World) -> None:
        a = await world.client(url=f"{server.url}?schema=lean")
        grant = await a.held("name")
        await a.renew()
        await a.driver.mutex.unseize(grant)
        await a.renew()
        query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'lean'"
        assert world.count(query) == 0
        await entered(a, "roster", "a1")
        assert world.count(query) == 3

    play(body)
    server.psql("DROP SCHEMA lean CASCADE")


@flavours
def test_tables_that_may_not_be_created(server: PostgresServer, flavour: str) -> None:
    """The error has the statements that an administrator must run, and they are enough."""
    server.psql("CREATE SCHEMA kept; GRANT USAGE ON SCHEMA kept TO tenure")
    server.psql(
        "CREATE SEQUENCE kept.tenure_token; GRANT USAGE ON SEQUENCE kept.tenure_token TO tenure"
    )
    said: list[str] = []

    async def body(runtime: Runtime) -> None:
        client = await Client(runtime, f"{server.url}?schema=kept").start()
        try:
            with pytest.raises(AuthenticationFailed) as caught:
                await entered(client, "roster", "a1")
            said.append(str(caught.value).partition("run once: ")[2])
            server.psql(said[0].partition("; GRANT")[0])
            with pytest.raises(AuthenticationFailed, match="GRANT SELECT, INSERT"):
                await entered(client, "roster", "a1")
            server.psql("GRANT" + said[0].partition("; GRANT")[2].replace("this user", "tenure"))
            await entered(client, "roster", "a1")
            assert await client.driver.record("name", "text", None) is not None
            await client.driver.mutex.unseize(await client.held("name"))
            assert not client.reasons
        finally:
            await client.close()

    try:
        run_in(flavour, body)
    finally:
        server.psql("DROP SCHEMA kept CASCADE")


def test_many_clients_may_create_the_tables(server: PostgresServer) -> None:
    """Clients that find no tables at the same moment all get through."""
    server.psql('CREATE SCHEMA "B {c} ""q" AUTHORIZATION tenure')
    url = f"{server.url}?schema=B%20%7Bc%7D%20%22q"

    async def main() -> None:
        runtime = AsyncioRuntime()
        clients = [await Client(runtime, url).start() for _ in range(8)]
        works = (entered(client, "roster", f"c{n}", "x") for n, client in enumerate(clients))
        claims = await asyncio.gather(*works)
        assert len({claim.token for claim in claims}) == 8
        assert len(await clients[0].driver.census("roster")) == 8
        await asyncio.gather(*(client.close() for client in clients))

    asyncio.run(main())
    server.psql('DROP SCHEMA "B {c} ""q" CASCADE')


def test_a_refused_statement_harms_no_lock(play: Play) -> None:
    """When the server refuses a roster's statement, the session and its locks go on."""

    async def body(world: World) -> None:
        a, b = await world.client("a"), await world.client("b")
        grant = await a.held("name")
        claim = await entered(a, "roster", "a1", "x")
        world.server.psql(f"REVOKE ALL ON {TABLES} FROM tenure")
        try:
            with pytest.raises(AuthenticationFailed):
                await entered(a, "roster", "a2")
            with pytest.raises(AuthenticationFailed):
                await a.driver.record("name", "text", None)
        finally:
            world.server.psql(f"GRANT ALL ON {TABLES} TO tenure")
        await a.renew()
        assert await b.seize("name") is None
        assert await a.driver.census("roster") == (claim,)
        await a.driver.mutex.unseize(grant)
        assert not a.reasons

    play(body)


def test_claims_die_with_the_connection(play: Play) -> None:
    """When the server ends the connection, its claims count no more, and are removed."""

    async def body(world: World) -> None:
        a, b = await world.client("victim"), await world.client("b")
        await entered(a, "roster", "a1", "x")
        behind = await entered(b, "roster", "b1")
        kill_backends(world, "victim")
        await world.until("the loss is told", lambda: bool(a.reasons), 1.0)
        with pytest.raises(SessionLost):
            await entered(a, "roster", "a2")
        end = world.runtime.now() + 2.0
        while (await b.driver.read(b.session, "roster", "b1")).rank:
            assert world.runtime.now() < end
        assert await b.driver.census("roster") == (behind,)
        assert world.count("SELECT count(*) FROM tenure_claim WHERE id = 'a1'") == 0

    play(body)


def test_the_first_roster_call_sweeps(play: Play) -> None:
    """Claims of the dead in rosters that nobody asks for are removed by whoever comes next."""

    async def body(world: World) -> None:
        a = await world.client("victim")
        await entered(a, "forgotten", "a1", "x")
        kill_backends(world, "victim")
        forgotten = "SELECT count(*) FROM tenure_claim WHERE roster = 'forgotten'"
        await world.until(
            "it has ended",
            lambda: (
                not world.count(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenure:victim'"
                )
            ),
        )
        assert world.count(forgotten) == 1
        b = await world.client("b")
        assert await b.driver.census("other") == ()
        assert world.count(forgotten) == 0

    play(body)


def test_questions_outlive_a_session(play: Play) -> None:
    """A client that lost its session can still read, on a connection that the next one takes."""

    async def body(world: World) -> None:
        a, b = await world.client("victim"), await world.client("b")
        claim = await entered(b, "roster", "b1", "x")
        assert await a.driver.census("roster") == (claim,)
        kill_backends(world, "victim")
        await world.until("the loss is told", lambda: bool(a.reasons), 1.0)
        assert await a.driver.census("roster") == (claim,)
        link = await a.driver.questions()
        a.session = await a.driver.start("victim", a.reasons.append)
        assert a.main is link
        await entered(a, "roster", "a1")
        assert (await b.driver.read(a.session, "roster", "a1")).rank == 1

    play(body)


def test_a_clash_over_the_type_of_the_rows_is_tried_again(play: Play) -> None:
    """PostgreSQL makes a type with each table, and of two clients one may find just that."""

    async def body(world: World) -> None:
        link = (await world.client()).main
        statement = "CREATE TABLE IF NOT EXISTS clash (number int)"
        world.server.psql("CREATE TYPE clash AS ENUM ()")

        class Clash:
            async def script(self, sql: str) -> Any:
                try:
                    return await link.script(sql)
                except Refused:
                    world.server.psql("DROP TYPE IF EXISTS clash")
                    raise

        with pytest.raises(Refused, match="clash"):
            await make(link, statement, "ask its owner")
        await make(cast("Link", Clash()), statement, "ask its owner")
        world.server.psql("DROP TABLE clash")

    play(body)


def test_threads_that_connect_at_once_are_all_closed(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two threads that connect at the same moment, neither forgets the other's connection."""
    made = connected_at_once(server.url, postgresql_thread.ThreadWire, monkeypatch)
    assert len(made) == 2
    assert all(link._finished for link in made)


def test_what_ends_as_somebody_comes_is_closed(server: PostgresServer) -> None:
    """A connection that ends just when somebody begins to use it leaves no descriptor open."""

    def use(link: Any) -> None:
        with pytest.raises(Unavailable, match="ended meanwhile"):
            drive(link.ping())

    with tenure.connect(server.url, ttl=9) as a:
        check_closed(a, use, early=True)


@pytest.mark.parametrize("work", ["call", "ping"])
def test_what_ends_at_the_last_moment_is_closed(server: PostgresServer, work: str) -> None:
    """A connection that ends just when its user lets go of it leaves no descriptor open."""
    with tenure.connect(server.url, ttl=9) as a:

        def use(link: Any) -> None:
            if work == "ping":
                drive(link.ping())
            else:
                with contextlib.suppress(SessionLost, Unavailable):  # it may be told either way
                    a.lock("y").acquire(timeout=9).release()

        check_closed(a, use)


def test_watchers_hear_again_after_their_connection_ended(play: Play) -> None:
    """A listening connection that ends is made again, and whoever listened is woken."""

    async def body(world: World) -> None:
        a, b = await world.client("watcher"), await world.client("b")
        woken: list[int] = []
        interest = Interest("", "roster", "w1", None, watch=True)
        await a.driver.listen(interest, lambda: woken.append(1))
        main = a.main.backend_pid
        world.server.psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE application_name = 'tenure:watcher' AND pid <> {main}"
        )
        await world.until("it hears again", lambda: bool(woken))
        woken.clear()
        await entered(b, "roster", "b1", "x")
        await world.until("the watcher is woken", lambda: bool(woken))
        assert not a.reasons
        a.driver.unlisten(interest)
        listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'UNLISTEN%'"
        await world.until("the channel is left", lambda: world.count(listening) == 1)

    play(body)


def test_a_waiter_hears_of_its_turn(play: Play) -> None:
    """Who withdraws wakes the session that is next, and no other."""

    async def body(world: World) -> None:
        a, b, c = [await world.client(name) for name in "abc"]
        head = await entered(a, "roster", "a1")
        woken: list[str] = []
        for client, id, before in ((b, "b1", "a1"), (c, "c1", "b1")):
            await entered(client, "roster", id)
            interest = Interest(client.session, "roster", id, before)
            await client.driver.listen(interest, functools.partial(woken.append, id))
        await a.driver.withdraw(a.session, "roster", head.id)
        await world.until("b is woken", lambda: bool(woken))
        await b.driver.withdraw(b.session, "roster", "b1")
        await world.until("c is woken", lambda: len(woken) > 1)
        assert woken == ["b1", "c1"]

    play(body)


def test_a_large_body_passes(play: Play) -> None:
    """A body that is larger than what the socket takes at once arrives whole."""

    async def body(world: World) -> None:
        a = await world.client()
        text = "\u20ac\0\x10" * 2_000_000
        claim = await entered(a, "roster", "a1", text)
        assert claim.body == text
        assert (await a.driver.census("roster"))[0].body == text

    play(body)


def test_cancelled_roster_calls_leave_the_session(server: PostgresServer) -> None:
    """Cancelled at any of its steps, a claim harms nothing, and can be withdrawn."""

    async def main() -> None:
        world = World(AsyncioRuntime(), server)
        a = await world.client()
        grant = await a.held("name")
        for steps in range(12):
            task = asyncio.create_task(entered(a, "roster", f"a{steps}", "x"))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await a.driver.withdraw(a.session, "roster", f"a{steps}")
            assert await a.driver.census("roster") == ()
        await a.driver.mutex.unseize(grant)
        assert not a.reasons
        await world.close()

    asyncio.run(main())


def test_what_is_taken_is_listed(play: Play) -> None:
    """Every held lock of the namespace is listed, with its name once it was held for long."""

    async def body(world: World) -> None:
        a, b, c = [await world.client(name) for name in ("alice", "bob", "carol")]
        foreign = PostgresqlDriver(Url.parse(world.server.url), world.runtime, "elsewhere", 9.0)
        await foreign.open()
        session = await foreign.start("mallory", lambda reason: None)
        await foreign.mutex.seize(session, "theirs", "m1", shared=False, until=None)
        flavour = world.runtime.flavour  # a name that was noted once is known for a day
        names = (f"{flavour}\0 \x10 'one'", f'{flavour}"b\\c{{,}}')
        grants = [await a.held(names[0]), await b.held(names[1], shared=True)]
        grants.append(await c.held(names[1], shared=True))
        waiting = world.later(lambda: c.held(names[0], wait=5.0))
        await world.until("c queues", lambda: world.count(QUEUED) == 1)
        taken = await b.driver.mutex.taken()
        assert sorted(each.holders[0].owner for each in taken) == ["alice", "bob"]
        assert {each.name for each in taken} == {None}
        for _ in range(2):
            await a.renew()
            await b.renew()
        taken = await c.driver.mutex.taken()
        assert [each.name for each in taken] == sorted(names)
        alone, shared = taken
        assert (alone.waiters, alone.shared) == (1, False)
        assert [each.owner for each in alone.holders] == ["alice"]
        assert (shared.waiters, shared.shared) == (0, True)
        assert [each.owner for each in shared.holders] == ["bob", "carol"]
        assert len(await foreign.mutex.taken()) == 1
        await foreign.end(session)
        await foreign.close()
        for grant in grants:
            await grant.handle.session._driver.mutex.unseize(grant)
        await world.until("c is granted", lambda: bool(waiting))
        await c.driver.mutex.unseize(waiting[0])

    play(body)


def test_what_is_taken_without_tables(server: PostgresServer, play: Play) -> None:
    """Where no table may be made, locks are listed without names, and renewals do not fail."""
    server.psql("CREATE SCHEMA bare; GRANT USAGE ON SCHEMA bare TO tenure")
    server.psql(
        "CREATE SEQUENCE bare.tenure_token; GRANT USAGE ON SEQUENCE bare.tenure_token TO tenure"
    )

    async def body(world: World) -> None:
        a = await world.client("alice", url=f"{server.url}?schema=bare")
        grant = await a.held("name")
        for _ in range(3):
            await a.renew()
        (taken,) = await a.driver.mutex.taken()
        assert (taken.name, taken.holders[0].owner) == (None, "alice")
        await a.driver.mutex.unseize(grant)

    play(body)
    server.psql("DROP SCHEMA bare CASCADE")


def run_in(flavour: str, body: Callable[[Runtime], Awaitable[None]]) -> None:
    """Run it in one flavour."""

    async def whole(runtime: Runtime) -> None:
        await body(runtime)

    async def on_loop() -> None:
        await body(AsyncioRuntime())

    if flavour == "thread":
        drive(whole(ThreadRuntime()))
    else:
        asyncio.run(on_loop())
