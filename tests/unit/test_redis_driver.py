"""The Redis driver on a real server: rosters, wake-ups, faults, and what a URL may say."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenure._model import Interest
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers.redis import RedisDriver
from tenure.errors import (
    AuthenticationFailed,
    BackendError,
    InvalidURL,
    OutcomeUnknown,
    ProtocolError,
    SessionLost,
    StorageError,
    TenureError,
    Unavailable,
    Unsupported,
)
from tenure.testing.proxy import Proxy
from tenure.testing.servers import RedisServer, SentinelCluster
from tenure.wires._redis import translate

PASSWORD = "s3cret-word"

Body = Callable[["Bench"], Awaitable[None]]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server for all tests of this module."""
    with RedisServer(password=PASSWORD) as server:
        yield server


@pytest.fixture(params=["thread", "asyncio"])
def flavour(request: pytest.FixtureRequest) -> str:
    """Both wires."""
    return str(request.param)


class Bench:
    """Drivers of one namespace, closed at the end."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.namespace = runtime.unique()
        self.drivers: list[RedisDriver] = []

    async def open(self, url: str, *, ttl: float = 3.0, namespace: str = "") -> RedisDriver:
        driver = RedisDriver(Url.parse(url), self.runtime, namespace or self.namespace, ttl)
        self.drivers.append(driver)
        await driver.open()
        return driver

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = 10.0) -> None:
        give_up = self.runtime.now() + seconds
        while not condition():
            assert self.runtime.now() < give_up, f"in vain: {what}"
            await self.runtime.sleep(self.runtime.now() + 0.01)

    async def again(self, call: Callable[[], Awaitable[Any]], seconds: float = 10.0) -> Any:
        """Call until it is no longer `Unavailable`, as the core does."""
        give_up = self.runtime.now() + seconds
        while True:
            try:
                return await call()
            except Unavailable:
                if self.runtime.now() > give_up:
                    raise
                await self.runtime.sleep(self.runtime.now() + 0.02)


@contextlib.asynccontextmanager
async def bench(runtime: Runtime) -> AsyncIterator[Bench]:
    each = Bench(runtime)
    try:
        yield each
    finally:
        for driver in each.drivers:
            await driver.close()


def run(flavour: str, body: Body) -> None:
    """Run a test's body on the runtime of that flavour."""

    async def whole() -> None:
        runtime: Runtime = AsyncioRuntime() if flavour == "asyncio" else ThreadRuntime()
        async with bench(runtime) as each:
            await body(each)

    if flavour == "asyncio":
        asyncio.run(whole())
    else:
        drive(whole())


def ignore(reason: str) -> None:
    """A driver's `lost`."""


def kill(server: RedisServer, driver: RedisDriver, session: str) -> None:
    """End a session as if its TTL had passed."""
    assert server.command("DEL", driver._session_key(session).decode()) == 1


# -- the roster ------------------------------------------------------------------


def test_claims_queue_up_by_token(server: RedisServer, flavour: str) -> None:
    """Claims are ordered by token, found again by id, and gone when they are withdrawn."""

    async def body(bench: Bench) -> None:
        a, b = await bench.open(server.url), await bench.open(server.url)
        s, t = await a.start("me", ignore), await b.start("you", ignore)
        first = await a.claim(s, "lock", "1", "", None)
        assert first.mine is not None
        assert (first.rank, first.claims) == (0, (first.mine,))
        assert first.mine[:3] == ("lock", "1", s)
        assert await a.claim(s, "lock", "1", "", None) == first
        second = await b.claim(t, "lock", "2", "of mine", None)
        assert second.mine is not None
        assert (second.rank, second.before, second.claims[0]) == (1, "1", first.mine)
        assert second.mine.token > first.mine.token
        assert (second.mine.owner, second.mine.body) == ("you", "of mine")
        assert await b.read(t, "lock", "2") == second
        assert (await b.read(t, "lock", "other")).mine is None
        await a.withdraw(s, "lock", "1")
        await a.withdraw(s, "lock", "1")
        assert (await b.read(t, "lock", "2")).claims == (second.mine,)
        await b.withdraw(t, "lock", "2")
        assert (await b.read(t, "lock", "2")).claims == ()
        assert server.command("KEYS", f"tenure:{{{bench.namespace}}}:[rb]*") == []

    run(flavour, body)


def test_a_width_is_a_condition(server: RedisServer, flavour: str) -> None:
    """With a width, a claim that would not be among the first so many is not written."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url)
        s = await driver.start("me", ignore)
        for number in range(2):
            assert (await driver.claim(s, "pool", str(number), "", 2)).rank == number
        refused = await driver.claim(s, "pool", "2", "", 2)
        assert refused.mine is None
        assert refused.claims[0].id == "0"
        assert (await driver.claim(s, "pool", "1", "", 2)).rank == 1
        assert (await driver.claim(s, "pool", "2", "", 0)).mine is None
        await driver.withdraw(s, "pool", "0")
        assert (await driver.claim(s, "pool", "2", "", 2)).rank == 1

    run(flavour, body)


def test_a_body_is_compared_and_set(server: RedisServer, flavour: str) -> None:
    """A body changes only from what was expected, and a repeated change is no failure."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url)
        s = await driver.start("me", ignore)
        claim = (await driver.claim(s, "group", "1", "a", None)).mine
        assert claim is not None
        changed = await driver.amend(claim, "b")
        assert (await driver.amend(claim, "b")) == changed
        with pytest.raises(SessionLost):
            await driver.amend(claim, "c")
        assert (await driver.read(s, "group", "1")).mine == changed
        assert (await driver.amend(changed, "")).body == ""
        await driver.withdraw(s, "group", "1")
        with pytest.raises(SessionLost):
            await driver.amend(changed, "b")

    run(flavour, body)


def test_dead_claims_do_not_count(server: RedisServer, flavour: str) -> None:
    """Claims of dead sessions are buried at the head, in the middle and far ahead."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url)
        live = await driver.start("live", ignore)
        dead = [await driver.start("dead", ignore) for _ in range(3)]
        await driver.claim(dead[0], "lock", "d0", "x", None)
        await driver.claim(live, "lock", "l0", "", None)
        await driver.claim(dead[1], "lock", "d1", "x", None)
        for number in range(1, 100):
            await driver.claim(live, "lock", f"l{number}", "", None)
        await driver.claim(dead[2], "lock", "d2", "", None)
        await driver.claim(live, "lock", "last", "", None)
        for session in dead:
            kill(server, driver, session)
        with pytest.raises(SessionLost):
            await driver.renew(dead[0])
        with pytest.raises(SessionLost):
            await driver.claim(dead[1], "lock", "more", "", None)
        roll = await driver.read(live, "lock", "last")
        assert (roll.claims[0].id, roll.before) == ("l0", "l99")
        for _ in range(1000):
            if roll.rank == 100:
                break
            assert roll.rank == 101
            roll = await driver.read(live, "lock", "last")
        assert roll.rank == 100
        assert not server.command("EXISTS", f"tenure:{{{bench.namespace}}}:b:lock")

    run(flavour, body)


def test_a_dead_one_in_the_middle_frees_a_place(server: RedisServer) -> None:
    """A conditional claim counts the living only, also behind a living holder."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url)
        live, dead = await driver.start("live", ignore), await driver.start("dead", ignore)
        await driver.claim(live, "pool", "1", "", 3)
        await driver.claim(dead, "pool", "2", "", 3)
        await driver.claim(live, "pool", "3", "", 3)
        assert (await driver.claim(live, "pool", "4", "", 3)).mine is None
        kill(server, driver, dead)
        assert (await driver.claim(live, "pool", "4", "", 3)).rank == 2
        assert (await driver.read(dead, "pool", "2")).mine is None

    run("thread", body)


def test_a_waiter_of_a_dead_session_is_not_granted(server: RedisServer) -> None:
    """Who reads with a session that is gone does not see a claim of its own."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url)
        s = await driver.start("me", ignore)
        await driver.claim(s, "lock", "1", "", None)
        kill(server, driver, s)
        assert (await driver.read(s, "lock", "1")).claims == ()

    run("thread", body)


def test_tokens_rise_without_the_data(flavour: str) -> None:
    """Tokens go on rising when a server that kept nothing restarts, and never fall by the clock."""
    with RedisServer() as server:

        async def body(bench: Bench) -> None:
            driver = await bench.open(server.url)
            tokens = []
            for _ in range(2):
                s = await bench.again(lambda: driver.start("me", ignore))
                for id in "abc":
                    roll = await driver.claim(s, "lock", id, "", None)
                    assert roll.mine is not None
                    tokens.append(roll.mine.token)
                server.restart(graceful=False)
            s = await bench.again(lambda: driver.start("me", ignore))
            ahead = 2**53 - 10
            server.command("SET", driver._counter.decode(), ahead)
            for id in "abc":
                roll = await driver.claim(s, "lock", id, "", None)
                assert roll.mine is not None
                tokens.append(roll.mine.token)
            assert tokens == sorted(set(tokens))
            assert tokens[-3:] == [ahead + 1, ahead + 2, ahead + 3]
            assert (await driver.read(s, "lock", "c")).mine == roll.mine

        run(flavour, body)


def test_names_do_not_meet(server: RedisServer, flavour: str) -> None:
    """Hostile names and namespaces stay apart, and a prefix is taken literally."""
    names = ["a", "a*", "a?", "[a]", "a\\", "r:a", "{b}", "ä\x00\n", "x" * 1000, "a b", "^-]"]

    async def body(bench: Bench) -> None:
        space = f"{bench.namespace}}}:r:{{%2A*"
        driver = await bench.open(server.url, namespace=space)
        other = await bench.open(server.url, namespace=space + "}")
        s, t = await driver.start("me", ignore), await other.start("me", ignore)
        for name in names:
            assert (await driver.claim(s, name, "1", "", 1)).rank == 0
        assert await driver.rosters("") == sorted(names)
        assert await driver.rosters("a*") == ["a*"]
        assert await driver.rosters("[") == ["[a]"]
        assert await other.rosters("") == []
        assert (await other.claim(t, "a", "1", "", 1)).mine is not None
        kill(server, driver, s)
        assert await driver.rosters("") == []

    run(flavour, body)


# -- wake-ups ----------------------------------------------------------------------


def test_whoever_moves_up_is_woken(server: RedisServer, flavour: str) -> None:
    """A withdrawal wakes the claim behind it, and burying a dead head wakes the next one."""

    async def body(bench: Bench) -> None:
        a, b = await bench.open(server.url), await bench.open(server.url)
        s, t = await a.start("me", ignore), await b.start("you", ignore)
        woken: list[str] = []
        await a.claim(s, "lock", "1", "", None)
        for id in ("2", "3"):
            roll = await b.claim(t, "lock", id, "", None)
            interest = Interest(t, "lock", id, roll.before)
            await b.listen(interest, functools.partial(woken.append, id))
        woken.clear()
        await a.withdraw(s, "lock", "1")
        await bench.until(lambda: woken == ["2"], "waking the second")
        await b.withdraw(t, "lock", "2")
        await bench.until(lambda: woken == ["2", "3"], "waking the third")
        b.unlisten(interest)
        await b.withdraw(t, "lock", "3")

        await a.claim(s, "lock", "4", "", None)
        await b.claim(t, "lock", "5", "", None)
        await b.listen(Interest(t, "lock", "5", "4"), lambda: woken.append("5"))
        kill(server, a, s)
        u = await a.start("late", ignore)
        await a.claim(u, "lock", "6", "", 1)
        await bench.until(lambda: woken == ["2", "3", "5"], "waking behind the dead head")

    run(flavour, body)


def test_a_broken_subscription_is_made_again(flavour: str) -> None:
    """When the subscribed connection breaks, it is made again and all listeners look."""
    with RedisServer() as server, Proxy(server.host, server.port) as proxy:

        async def body(bench: Bench) -> None:
            a, b = await bench.open(server.url), await bench.open(server.url_at(proxy.port))
            s, t = await a.start("me", ignore), await b.start("you", ignore)
            woken = bench.runtime.signal()
            await a.claim(s, "lock", "1", "", None)
            await b.claim(t, "lock", "2", "", None)
            await b.listen(Interest(t, "lock", "2", "1"), woken.set)
            woken.clear()
            proxy.reset()
            assert await woken.wait(bench.runtime.now() + 10)
            woken.clear()
            await a.withdraw(s, "lock", "1")
            assert await woken.wait(bench.runtime.now() + 10)
            proxy.cut()
            await bench.until(lambda: b._ear._link is None, "the connection's end")
            with pytest.raises(Unavailable):
                await b.listen(Interest(t, "lock", "x", "2"), woken.set)
            proxy.heal()
            await bench.again(lambda: b.listen(Interest(t, "lock", "x", "2"), woken.set))

        run(flavour, body)


def test_a_silent_subscription_is_noticed(flavour: str) -> None:
    """A subscribed connection that is open but dead is found by its missing answer."""
    with RedisServer() as server, Proxy(server.host, server.port) as proxy:

        async def body(bench: Bench) -> None:
            driver = await bench.open(server.url_at(proxy.port), ttl=0.9)
            t = await driver.start("you", ignore)
            woken = bench.runtime.signal()
            await driver.listen(Interest(t, "lock", "1", None), woken.set)
            woken.clear()
            proxy.black_hole("to_client", drop=True)
            await bench.until(lambda: proxy.swallowed > 0, "the fault to bite")
            await bench.until(lambda: driver._ear._link is None, "noticing the silence")
            proxy.heal()
            assert await woken.wait(bench.runtime.now() + 10)

        run(flavour, body)


def test_closing_is_prompt_and_complete(server: RedisServer, flavour: str) -> None:
    """A close ends the listener at once and leaves no connection at the server."""

    def connected() -> int:
        return int(server.command("CLIENT", "LIST", "TYPE", "pubsub").count(b"\n"))

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url, ttl=30)
        s = await driver.start("me", ignore)
        await driver.listen(Interest(s, "lock", "1", None), lambda: None)
        assert connected() == 1
        began = bench.runtime.now()
        await driver.close()
        assert bench.runtime.now() - began < 0.9
        with pytest.raises(Unavailable):
            await driver.renew(s)
        await bench.until(lambda: connected() == 0, "the server to see it")

    run(flavour, body)


# -- faults ------------------------------------------------------------------------


def test_a_lost_reply_is_unknown_and_never_read_later(flavour: str) -> None:
    """A call without a reply ends within the patience, and the late reply reaches nobody."""
    with RedisServer() as server, Proxy(server.host, server.port) as proxy:

        async def body(bench: Bench) -> None:
            driver = await bench.open(server.url_at(proxy.port))
            s = await driver.start("me", ignore)
            await driver.claim(s, "lock", "0", "", None)
            proxy.black_hole("to_client")
            began = bench.runtime.now()
            with pytest.raises(OutcomeUnknown):
                await driver.claim(s, "lock", "1", "", None)
            assert bench.runtime.now() - began < driver.patience + 0.5
            proxy.heal()
            roll = await bench.again(lambda: driver.claim(s, "lock", "1", "", None))
            assert (roll.mine.id, roll.rank) == ("1", 1)
            await driver.renew(s)

        run(flavour, body)


def test_a_reply_in_pieces_is_one_reply(server: RedisServer, flavour: str) -> None:
    """A reply that is longer than one read is put together."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url)
        s = await driver.start("me", ignore)
        await driver.claim(s, "lock", "1", "x" * 3_000_000, None)
        roll = await driver.claim(s, "lock", "2", "", None)
        assert len(roll.claims[0].body) == 3_000_000
        await driver.renew(s)

    run(flavour, body)


def test_a_trickle_cannot_prolong_a_call() -> None:
    """A reply that comes byte by byte is given up when the patience is over."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        link, _ = listener.accept()
        with link, contextlib.suppress(OSError):
            link.recv(1000)
            link.sendall(b"*2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n")
            link.recv(1000)
            link.sendall(b"$1000\r\n")
            while not stop.wait(0.05):
                link.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()

    async def body(bench: Bench) -> None:
        driver = await bench.open(f"redis://127.0.0.1:{listener.getsockname()[1]}", ttl=0.9)
        began = bench.runtime.now()
        with pytest.raises(OutcomeUnknown):
            await driver.start("me", ignore)
        assert bench.runtime.now() - began < 1.0

    try:
        run("thread", body)
    finally:
        stop.set()
        thread.join()
        listener.close()


def test_a_cancelled_call_takes_its_connection_along(server: RedisServer) -> None:
    """After a call was cancelled in flight, the next one gets its own reply."""

    async def body(bench: Bench) -> None:
        with Proxy(server.host, server.port) as proxy:
            driver = await bench.open(server.url_at(proxy.port))
            s = await driver.start("me", ignore)
            proxy.delay(0.3, "to_client")
            task = asyncio.create_task(driver.claim(s, "lock", "1", "", None))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            proxy.heal()
            await driver.renew(s)
            assert (await driver.read(s, "lock", "nothing")).mine is None

    run("asyncio", body)


def test_a_restart_costs_one_failed_call_at_most(flavour: str) -> None:
    """All idle connections are given up together, and after a while a dead one is not even used."""
    with RedisServer(persistent=True) as server:

        async def body(bench: Bench) -> None:
            driver = await bench.open(server.url, ttl=9.0)
            s = await driver.start("me", ignore)
            links = [await driver._wire._connect(time.monotonic() + 3) for _ in range(3)]
            for link in links:
                driver._wire._slots.pop()
                driver._wire._free.append(link)
            server.restart()
            with contextlib.suppress(OutcomeUnknown):
                await driver.renew(s)
            await driver.renew(s)
            server.restart()
            for link in driver._wire._free:
                if flavour == "thread":
                    link._used -= 10  # as if it had been idle for long
                else:
                    await bench.until(lambda: not link.usable(), "the loop to see it")  # noqa: B023
            await driver.renew(s)

        run(flavour, body)


def test_connections_are_bounded(server: RedisServer, flavour: str) -> None:
    """With one connection allowed, calls take turns; one that gets no turn is unavailable."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url + "?connections=1", ttl=3.0)
        s = await driver.start("me", ignore)
        done: list[int] = []

        def work(number: int) -> Callable[[], Any]:
            async def main() -> None:
                for _ in range(20):
                    await driver.claim(s, f"lock{number}", "1", "", None)
                    await driver.withdraw(s, f"lock{number}", "1")
                done.append(number)

            return main

        jobs = [bench.runtime.spawn(work(number), "work") for number in range(8)]
        for job in jobs:
            assert await job.join(bench.runtime.now() + 20)
        assert len(done) == 8
        assert len(driver._wire._links) == 1
        link = driver._wire._free.pop()
        with pytest.raises(Unavailable, match="busy"):
            await driver.renew(s)
        driver._wire._free.append(link)
        await driver.renew(s)

    run(flavour, body)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking with threads around
def test_a_forked_child_leaves_the_parents_connections_alone(
    server: RedisServer, flavour: str
) -> None:
    """A child that abandons its driver closes nothing of the parent's and says nothing."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url)
        s = await driver.start("me", ignore)
        woken = bench.runtime.signal()
        await driver.claim(s, "lock", "1", "", None)
        await driver.claim(s, "lock", "2", "", None)
        await driver.listen(Interest(s, "lock", "2", "1"), woken.set)
        woken.clear()
        links = set(driver._wire._links)
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                driver.abandon()
                status = 0
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222 - a child that only exits
        await driver.withdraw(s, "lock", "1")
        assert await woken.wait(bench.runtime.now() + 5)
        assert driver._wire._links == links

    run(flavour, body)


# -- what is refused ---------------------------------------------------------------


def chain(error: BaseException | None) -> str:
    """All that a log could show of an error."""
    text = ""
    while error is not None:
        text += f"{error!r} {error} "
        error = error.__cause__ or error.__context__
    return text


def test_refused_logins_are_told_without_the_password(server: RedisServer, flavour: str) -> None:
    """A wrong or missing password is `AuthenticationFailed`, and no text contains a secret."""

    async def body(bench: Bench) -> None:
        bare = f"redis://{server.host}:{server.port}"
        for url in (bare, f"redis://:wr0ng@{server.host}:{server.port}"):
            with pytest.raises(AuthenticationFailed) as caught:
                await bench.open(url)
            assert "wr0ng" not in chain(caught.value)
        driver = await bench.open(server.url)
        assert PASSWORD not in repr(driver._wire.settings)

    run(flavour, body)


def test_what_is_no_redis_is_told(server: RedisServer, flavour: str) -> None:
    """Rubbish is `ProtocolError`, nobody there is `Unavailable`, the wrong server `InvalidURL`."""

    async def body(bench: Bench) -> None:
        with Proxy(server.host, server.port) as proxy:
            proxy.garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with pytest.raises(ProtocolError):
                await bench.open(server.url_at(proxy.port))
            proxy.cut()
            with pytest.raises(Unavailable) as caught:
                await bench.open(server.url_at(proxy.port))
            assert not isinstance(caught.value, OutcomeUnknown)
        with pytest.raises(InvalidURL):
            await bench.open(server.url.removesuffix("/0") + "/99")
        with pytest.raises(InvalidURL, match="not a sentinel"):
            await bench.open(
                f"redis+sentinel://{server.host}:{server.port}/m?sentinel_password={PASSWORD}"
            )
        with pytest.raises(Unavailable):
            await bench.open("unix:///nonexistent/redis.sock")

    run(flavour, body)


def test_a_server_that_refuses_writes_is_understood(flavour: str) -> None:
    """A replica is `Unavailable` and its connections are given up; a full server `StorageError`."""
    with RedisServer() as server:

        async def body(bench: Bench) -> None:
            driver = await bench.open(server.url)
            s = await driver.start("me", ignore)
            await driver.claim(s, "lock", "0", "", None)
            server.command("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(StorageError):
                await driver.claim(s, "lock", "1", "", None)
            await driver.withdraw(s, "lock", "0")
            server.command("CONFIG", "SET", "maxmemory", 0)
            server.command("REPLICAOF", "127.0.0.1", 1)
            for call in (
                lambda: driver.renew(s),
                lambda: driver.claim(s, "lock", "1", "", None),
            ):
                with pytest.raises(Unavailable) as caught:
                    await call()
                assert not isinstance(caught.value, OutcomeUnknown)
                assert driver._wire._free == []
            server.command("REPLICAOF", "NO", "ONE")
            assert (await driver.read(s, "lock", "1")).claims == ()

        run(flavour, body)


@pytest.mark.parametrize(
    "text, kind",
    [
        ("LOADING Redis is loading the dataset in memory", Unavailable),
        ("READONLY You can't write against a read only replica. script: x", Unavailable),
        (
            "ERR Error running script (call to f_x): @user_script:1: -READONLY You can't",
            Unavailable,
        ),
        ("MASTERDOWN Link with MASTER is down", Unavailable),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Unavailable),
        ("BUSY Redis is busy running a script", Unavailable),
        ("NOREPLICAS Not enough good replicas to write.", Unavailable),
        ("ERR max number of clients reached", Unavailable),
        ("NOAUTH Authentication required.", AuthenticationFailed),
        ("NOPERM this user has no permissions to run the 'evalsha' command", AuthenticationFailed),
        ("ERR AUTH <password> called without any password configured", AuthenticationFailed),
        ("OOM command not allowed when used memory > 'maxmemory'.", StorageError),
        ("MISCONF Redis is configured to save RDB snapshots", StorageError),
        ("MOVED 3999 127.0.0.1:6381", Unsupported),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", BackendError),
    ],
)
def test_error_replies_are_translated(text: str, kind: type[TenureError]) -> None:
    """Each kind of refusal has its own exception, and none of them leaves the outcome unknown."""
    error = translate(text, "redis")
    assert type(error) is kind


def test_a_user_without_channels_can_lock(flavour: str) -> None:
    """Without permission for the channels, release works and waiters are told to poll."""
    with RedisServer() as server:
        server.command("ACL", "SETUSER", "app", "on", ">pw", "~tenure:*", "resetchannels", "+@all")

        async def body(bench: Bench) -> None:
            driver = await bench.open(f"redis://app:pw@{server.host}:{server.port}")
            s = await driver.start("me", ignore)
            for id in "12":
                await driver.claim(s, "lock", id, "", None)
            with pytest.raises(Unavailable, match="NOPERM"):
                await driver.listen(Interest(s, "lock", "2", "1"), lambda: None)
            await driver.withdraw(s, "lock", "1")
            assert (await driver.read(s, "lock", "2")).rank == 0

        run(flavour, body)


def test_the_documented_rights_suffice() -> None:
    """A user with no more than the rights on the driver's page can do everything."""
    page = (Path(__file__).parents[2] / "docs" / "drivers" / "redis.md").read_text()
    words = page.partition("```text\nACL ")[2].partition("```")[0].split()
    assert words[:4] == ["SETUSER", "app", "on", ">secret"]
    with RedisServer() as server:
        server.command("ACL", *words)

        async def body(bench: Bench) -> None:
            driver = await bench.open(f"redis://app:secret@{server.host}:{server.port}/1")
            s = await driver.start("me", ignore)
            for id in ("1", "2"):
                claim = (await driver.claim(s, "lock", id, id, None)).mine
            assert claim is not None
            woken = bench.runtime.signal()
            await driver.listen(Interest(s, "lock", "2", "1"), woken.set)
            woken.clear()
            await driver.withdraw(s, "lock", "1")
            assert await woken.wait(bench.runtime.now() + 5)
            await driver.amend(claim, "")
            dead = await driver.start("dead", ignore)
            await driver.claim(dead, "lock", "3", "x", None)
            await driver.end(dead)
            assert await driver.rosters("") == ["lock"]
            assert (await driver.read(s, "lock", "2")).rank == 0
            await driver.claim(s, "lock", "4", "", None)
            await driver._wire.ping(driver._ear._link)
            await driver.renew(s)

        run("thread", body)


# -- URLs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "redis://a:1,b:2",
        "redis://a/nine",
        "redis://a?ca=x",
        "redis://a?timeout=3",
        "redis://a?connections=0",
        "rediss://a?key=x",
        "rediss://a?ca=/nonexistent",
        "unix://",
        "unix:///sock?db=-1",
        "redis+sentinel://a:1",
        "redis+sentinel:///m",
        "redis+sentinel://a/m?ca=x",
    ],
)
def test_a_wrong_url_is_refused(url: str) -> None:
    """What a URL cannot mean is refused before anything is sent."""

    async def body(bench: Bench) -> None:
        with pytest.raises(InvalidURL):
            await bench.open(url)
        bench.drivers.clear()

    run("thread", body)


def test_a_socket_file_and_a_database(server: RedisServer, flavour: str) -> None:
    """The unix scheme connects over a socket file, and a URL's database is used."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.unix_url.replace("db=0", "db=3"))
        s = await driver.start("me", ignore)
        other = await bench.open(server.url.removesuffix("/0") + "/3")
        await other.renew(s)

    run(flavour, body)


def test_tls(flavour: str) -> None:
    """With TLS both sides are verified, a strange server is refused, and verify=false is not."""
    with RedisServer(tls=True, mutual_tls=True, password=PASSWORD) as server:

        async def body(bench: Bench) -> None:
            driver = await bench.open(server.url)
            s = await driver.start("me", ignore)
            assert (await driver.claim(s, "lock", "1", "x" * 100_000, None)).rank == 0
            roll = await driver.claim(s, "lock", "2", "", None)
            assert len(roll.claims[0].body) == 100_000
            stranger = server.url.replace(f"ca={server.ca}".replace("/", "%2F"), "verify=true")
            assert stranger != server.url
            with pytest.raises(AuthenticationFailed, match="certificate"):
                await bench.open(stranger)
            await bench.open(stranger.replace("verify=true", "verify=false"))
            with pytest.raises(TenureError):
                await bench.open(f"rediss://{server.host}:{server.port}?ca={server.ca}")
            woken = bench.runtime.signal()
            await driver.listen(Interest(s, "lock", "2", "1"), woken.set)
            woken.clear()
            await driver.withdraw(s, "lock", "1")
            assert await woken.wait(bench.runtime.now() + 5)

        run(flavour, body)


def test_sentinels_lead_to_the_new_master(flavour: str) -> None:
    """When the master dies, the driver finds the one that the sentinels put in its place."""
    with SentinelCluster(password=PASSWORD) as cluster:

        async def body(bench: Bench) -> None:
            driver = await bench.open(cluster.url)
            s = await driver.start("me", ignore)
            before = (await driver.claim(s, "lock", "1", "", None)).mine
            assert before is not None
            cluster.master.kill()
            t = await bench.again(lambda: driver.start("me", ignore), seconds=40)
            after = (await bench.again(lambda: driver.claim(t, "lock", "2", "", None))).mine
            assert after.token > before.token
            assert cluster.replica.command("EXISTS", driver._session_key(t).decode()) == 1
            unknown = cluster.url.replace("/tenure/", "/nobody/")
            with pytest.raises(Unavailable, match="do not know"):
                await bench.open(unknown)

        run(flavour, body)
