"""The Redis driver on a real server: rosters, wake-ups, faults, and what a URL may say."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenure._model import Interest, Record
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
    assert server.command("DEL", driver._keys.of_session(session).decode()) == 1


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
        taken = await driver.claim(s, "lock", "1", "", 1)
        assert await driver.claim(s, "lock", "1", "", 1) == taken
        for id in ("1", "2"):
            roll = await driver.claim(s, "rw", id, "", 1, True)
            assert await driver.claim(s, "rw", id, "", 1, True) == roll
            assert roll.mine is not None
            assert (roll.mine.id, roll.rank) == (id, 0)

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
            server.command("SET", driver._keys.counter.decode(), ahead)
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


# -- shared claims, widths, watchers and records ------------------------------------


class Reference:
    """The roster as a plain list, to compare the scripts with."""

    def __init__(self) -> None:
        self.claims: list[tuple[str, str, bool]] = []  # session, id, shared
        self.dead: set[str] = set()

    def ahead(self, id: str) -> list[str]:
        living = [each for each in self.claims if each[0] not in self.dead]
        place = [each[1] for each in living].index(id)
        shared = living[place][2]
        return [each[1] for each in living[:place] if not (shared and each[2])]

    def granted(self, width: int) -> set[str]:
        living = [each for each in self.claims if each[0] not in self.dead]
        return {id for _, id, _ in living if len(self.ahead(id)) < width}


@pytest.mark.parametrize("width, readers", [(1, 0.0), (1, 0.5), (1, 0.9), (3, 0.0), (2, 0.5)])
def test_a_random_history_is_that_of_a_list(
    server: RedisServer, width: int, readers: float
) -> None:
    """Ranks, predecessors and wake-ups are what a plain list says, whatever happens."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url, ttl=60.0)  # nobody renews the sessions
        model = Reference()
        woken: set[str] = set()
        alive = [await driver.start("me", ignore) for _ in range(3)]
        flushed = bench.runtime.signal()
        await driver.listen(Interest("", "", "flush", None), flushed.set)

        async def heard() -> set[str]:
            # Messages of one channel come in order.
            flushed.clear()
            server.command("PUBLISH", driver._ear._mailbox.decode(), "flush")
            assert await flushed.wait(bench.runtime.now() + 10)
            result = set(woken)
            woken.clear()
            return result

        for step in range(400):
            await heard()
            before = model.granted(width)
            what = chance.random()
            if what < 0.5 and len(model.claims) < 12:
                session, shared = chance.choice(alive), chance.random() < readers
                only = width if chance.random() < 0.3 else None
                id = str(step)
                await driver.listen(
                    Interest(session, "r", id, None), functools.partial(woken.add, id)
                )
                model.claims.append((session, id, shared))
                refused = only is not None and len(model.ahead(id)) >= only
                if refused:
                    model.claims.pop()
                roll = await driver.claim(session, "r", id, "", only, shared)
                assert (roll.mine is None) == refused
                assert roll.mine is None or roll.mine.shared == shared
            elif what < 0.8 and model.claims:
                claim = chance.choice(model.claims)
                model.claims.remove(claim)
                await driver.withdraw(claim[0], "r", claim[1], width)
                stored = server.command("ZRANGE", f"tenure:{{{bench.namespace}}}:r:r", 0, -1)
                new, told = model.granted(width) - before, await heard()
                gone = {each[1] for each in model.claims if each[0] in model.dead}
                assert told <= new | before | gone  # nobody looks whether a reader is dead
                if not any(each.decode().startswith((*model.dead,)) for each in stored):
                    assert new <= told  # with a dead one about, the next look wakes
                continue
            elif what < 0.85:
                dead = alive.pop(chance.randrange(3))
                kill(server, driver, dead)
                model.dead.add(dead)
                alive.append(await driver.start("me", ignore))
            living = [each for each in model.claims if each[0] not in model.dead]
            if living:
                session, id, shared = chance.choice(living)
                roll = await driver.read(session, "r", id, width)
                assert roll.mine is not None
                ahead = model.ahead(id)
                assert (roll.mine.id, roll.mine.shared) == (id, shared)
                assert roll.before == (ahead[-1] if ahead else None)
                assert roll.rank >= len(ahead)
                assert (roll.rank < width) == (len(ahead) < width)
                assert roll.claims[0].id == living[0][1]
        census = await driver.census("r")
        living = [each for each in model.claims if each[0] not in model.dead]
        assert [(each.session, each.id, each.shared) for each in census] == living
        for claim in model.claims:
            await driver.withdraw(claim[0], "r", claim[1])
        assert server.command("KEYS", f"tenure:{{{bench.namespace}}}:[rbh]*") == []

    run("thread", body)


def test_burying_wakes_whoever_comes_under_the_width(server: RedisServer, flavour: str) -> None:
    """Whoever finds a dead holder wakes the waiter that takes its place, and all readers."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url)
        live, dead = await driver.start("live", ignore), await driver.start("dead", ignore)
        woken: list[str] = []

        async def enter(session: str, roster: str, id: str, shared: bool = False) -> None:
            await driver.claim(session, roster, id, "", None, shared)
            interest = Interest(live, roster, id, None)
            await driver.listen(interest, functools.partial(woken.append, id))

        for id in ("1", "2", "3", "4", "5", "6"):
            await enter(dead if id in "13" else live, "pool", id)
        for id in ("a", "b", "c"):
            await enter(dead if id == "b" else live, "lock", id)
        await enter(dead, "rw", "w1")
        for id in ("r1", "r2"):
            await enter(live, "rw", id, shared=True)
        await enter(live, "rw", "w2")
        await enter(live, "rw", "r3", shared=True)
        for id in ("x0", "x1", "w3", "x2"):
            await enter(dead if id == "w3" else live, "rx", id, shared=id in ("x1", "x2"))
        await enter(live, "ry", "y1", shared=True)
        await enter(dead, "ry", "w4")
        woken.clear()
        kill(server, driver, dead)
        roll = await driver.read(live, "pool", "6", 3)
        assert (roll.rank, roll.before) == (3, "5")
        assert (await driver.read(live, "rw", "r3")).before == "w2"
        await driver.withdraw(live, "lock", "a")
        await driver.withdraw(live, "rx", "x0")
        assert (await driver.claim(live, "ry", "y2", "", 1, True)).rank == 0
        await bench.until(lambda: len(woken) >= 7, "the wake-ups")
        assert sorted(woken) == ["4", "5", "c", "r1", "r2", "x1", "x2"]

    run(flavour, body)


def test_a_census_is_one_round_trip(
    server: RedisServer, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A census of many members shows the living in order, and buries the dead in passing."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url, ttl=30)
        sessions = [await driver.start(f"owner {number}", ignore) for number in range(700)]
        for number, session in enumerate(sessions):
            claim = await driver.claim(session, "group", "1", f"body {number}", None, number == 5)
            assert claim.mine is not None
        await driver.claim(sessions[0], "group", "2", "", None)
        for session in sessions[100:200]:
            kill(server, driver, session)
        asked, ask = [], driver._wire.ask

        async def count(packed: bytes) -> Any:
            asked.append(packed)
            return await ask(packed)

        monkeypatch.setattr(driver._wire, "ask", count)
        await driver.census("nothing")  # the script is known from here on
        asked.clear()
        for _ in range(2):
            census = await driver.census("group")
            assert len(asked) == 1
            asked.clear()
            assert len(census) == 601
            assert [each.token for each in census] == sorted(each.token for each in census)
            assert (census[7].owner, census[7].body, census[7].session) == (
                "owner 7",
                "body 7",
                sessions[7],
            )
            assert census[5].shared
            assert census[-1][1:] == (*("2", sessions[0], census[-1].token, "owner 0", "", False),)
        assert server.command("ZCARD", f"tenure:{{{bench.namespace}}}:r:group") == 601
        assert server.command("HLEN", f"tenure:{{{bench.namespace}}}:b:group") == 600

    run(flavour, body)


def test_a_session_is_seen_when_it_renews(server: RedisServer, flavour: str) -> None:
    """Anybody can ask how long ago a session was renewed, whatever its TTL."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url, ttl=30)
        other = await bench.open(server.url, ttl=3)
        s = await driver.start("me with a space", ignore)
        seen = await other.last_seen(s)
        assert seen is not None
        assert 0 <= seen < 2
        server.command("PEXPIRE", driver._keys.of_session(s).decode(), 20_000)
        seen = await other.last_seen(s)
        assert seen is not None
        assert 10 <= seen < 12
        await driver.renew(s)
        seen = await other.last_seen(s)
        assert seen is not None
        assert seen < 2
        await driver.claim(s, "lock", "1", "", None)
        assert (await other.read(s, "lock", "1")).claims[0].owner == "me with a space"
        await driver.end(s)
        assert await other.last_seen(s) is None

    run(flavour, body)


def test_records_are_compared_and_set(flavour: str) -> None:
    """A record changes only from the version that was read, and no version comes twice."""
    with RedisServer() as server:

        async def body(bench: Bench) -> None:
            driver = await bench.open(server.url)
            assert await driver.recall("plan") is None
            first = await driver.record("plan", "a", None)
            assert await driver.record("plan", "b", None) is None
            assert await driver.recall("plan") == Record("a", first)
            second = await driver.record("plan", "", first)
            assert await driver.record("plan", "c", first) is None
            assert await driver.recall("plan") == Record("", second)
            for name in ("plans", "p*", "ä\n"):
                await driver.record(name, name, None)
            assert await driver.recorded("p") == ["p*", "plan", "plans"]
            assert await driver.recorded("p*") == ["p*"]
            assert await driver.record("plan", None, first) is None
            gone = await driver.record("plan", None, second)
            assert await driver.recall("plan") is None
            assert await driver.record("plan", None, second) is None
            again = await driver.record("plan", "a", None)
            server.restart(graceful=False)
            assert await bench.again(lambda: driver.recall("plan")) is None
            later = await driver.record("plan", "a", None)
            versions = [first, second, gone, again, later]
            assert versions == sorted(set(versions))
            assert await driver.rosters("") == []

        run(flavour, body)


def test_watchers_hear_of_what_is_public(server: RedisServer, flavour: str) -> None:
    """Whoever watches is woken by claims with a body and by records, and by nothing else."""

    async def body(bench: Bench) -> None:
        a, b = await bench.open(server.url), await bench.open(server.url)
        s, dead = await a.start("me", ignore), await a.start("dead", ignore)
        woken: list[str] = []
        for id in ("x", "y"):
            interest = Interest("", "ä group", id, None, watch=True)
            await b.listen(interest, functools.partial(woken.append, id))
        other = Interest("", "other", "z", None, watch=True)
        await b.listen(other, functools.partial(woken.append, "z"))
        assert woken == []

        async def wakes(what: str, times: int = 1) -> None:
            await bench.until(lambda: len(woken) >= 2 * times, what)
            await a.record("other", "x", None)
            await bench.until(lambda: "z" in woken, "the end")
            known = await a.recall("other")
            assert known is not None
            await a.record("other", None, known.version)
            await bench.until(lambda: woken.count("z") == 2, "the end")
            assert sorted(woken) == [*(["x"] * times), *(["y"] * times), "z", "z"], what
            woken.clear()

        claim = (await a.claim(s, "ä group", "1", "b", None)).mine
        assert claim is not None
        await wakes("entry")
        await a.claim(s, "ä group", "1", "b", None)
        await wakes("nothing: it is there already", 0)
        claim = await a.amend(claim, "c")
        await wakes("change")
        await a.claim(dead, "ä group", "2", "b", None, True)
        await wakes("entry behind another")
        await a.claim(s, "ä group", "3", "", None)
        await a.withdraw(s, "ä group", "3")
        await wakes("nothing: it has no body", 0)
        kill(server, a, dead)
        assert await a.census("ä group") == (claim,)
        await wakes("burial by a census")
        dead = await a.start("dead", ignore)
        await a.claim(dead, "ä group", "4", "b", None)
        await wakes("another entry")
        await a.withdraw(s, "ä group", "1")
        await wakes("withdrawal before another")
        kill(server, a, dead)
        await a.rosters("")
        await wakes("burial by a listing")
        await a.claim(s, "ä group", "5", "b", None)
        await wakes("entry into an empty roster")
        await a.withdraw(s, "ä group", "5")
        await wakes("withdrawal of the last")
        version = await a.record("ä group", "text", None)
        await a.record("ä group", "other text", version - 1)
        await wakes("a record, and a write that was refused")
        await a.record("ä group", None, version)
        await wakes("the end of a record")
        dead = await a.start("dead", ignore)
        await a.claim(dead, "ä group", "6", "", None)
        await a.claim(dead, "ä group", "7", "b", None)
        await a.withdraw(dead, "ä group", "7")
        await wakes("entry and withdrawal", 2)
        await a.end(dead)
        await wakes("nothing: what is left has no body", 0)
        dead = await a.start("dead", ignore)
        claim = (await a.claim(dead, "ä group", "8", "", None, True)).mine
        assert claim is not None
        await a.amend(claim, "b")
        await wakes("a body that is given later")
        kill(server, a, dead)
        with pytest.raises(SessionLost):
            await a.renew(dead)
        await a.end(dead)
        await wakes("the end of a session that was lost before")
        dead = await a.start("dead", ignore)
        await a.claim(dead, "ä group", "9", "b", None)
        await wakes("entry, and burial of what that session has left", 2)
        await a.end(dead)
        await wakes("the end of a session")
        b.unlisten(Interest("", "ä group", "x", None, watch=True))
        await a.record("ä group", "text", None)
        await bench.until(lambda: woken == ["y"], "the one who is left")

    run(flavour, body)


def channels(server: RedisServer, bench: Bench) -> int:
    """How many rosters of the namespace are watched."""
    return len(server.command("PUBSUB", "CHANNELS", f"tenure:{{{bench.namespace}}}:c:*"))


def test_a_channel_is_left_with_its_last_watcher(server: RedisServer, flavour: str) -> None:
    """A roster that nobody watches any more is unsubscribed from, and can be watched again."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url)
        s = await driver.start("me", ignore)
        woken = bench.runtime.signal()
        interest = [Interest("", "group", str(number), None, watch=True) for number in range(2)]
        for round in range(3):
            for each in interest:
                await driver.listen(each, woken.set)
            assert channels(server, bench) == 1
            driver.unlisten(interest[0])
            await driver.listen(interest[0], woken.set)
            driver.unlisten(interest[1])
            woken.clear()
            await driver.claim(s, "group", str(round), "x", None)
            assert await woken.wait(bench.runtime.now() + 5)
            driver.unlisten(interest[0])
            if round == 1:
                await bench.until(lambda: channels(server, bench) == 0, "the channel to be left")
        await bench.until(lambda: channels(server, bench) == 0, "the channel to be left")
        assert driver._ear._channels == {}

    run(flavour, body)


def test_channels_come_and_go_under_way(server: RedisServer, flavour: str) -> None:
    """However many watch and stop watching at once, a listen that returned is heard."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url)
        s = await driver.start("me", ignore)
        done: list[int] = []

        def work(number: int) -> Callable[[], Any]:
            async def main() -> None:
                interest = Interest("", f"group {number % 3}", str(number), None, watch=True)
                for turn in range(15):
                    woken = bench.runtime.signal()
                    await driver.listen(interest, woken.set)
                    await driver.claim(s, interest.roster, f"{number} {turn}", "x", None)
                    assert await woken.wait(bench.runtime.now() + 5)
                    driver.unlisten(interest)
                done.append(number)

            return main

        jobs = [bench.runtime.spawn(work(number), "work") for number in range(9)]
        for job in jobs:
            assert await job.join(bench.runtime.now() + 30)
        assert len(done) == 9
        await bench.until(lambda: channels(server, bench) == 0, "the channels to be left")

    run(flavour, body)


def test_watchers_are_woken_when_the_connection_is_back(flavour: str) -> None:
    """What was sent while nobody listened is lost, so every watcher looks once."""
    with RedisServer() as server, Proxy(server.host, server.port) as proxy:

        async def body(bench: Bench) -> None:
            a, b = await bench.open(server.url), await bench.open(server.url_at(proxy.port))
            s = await a.start("me", ignore)
            woken: list[str] = []
            for id in ("x", "y"):
                interest = Interest("", id, id, None, watch=True)
                await b.listen(interest, functools.partial(woken.append, id))
            assert woken == []
            proxy.reset()
            await bench.until(lambda: sorted(woken) == ["x", "y"], "waking both")
            woken.clear()
            await a.claim(s, "x", "1", "b", None)
            await bench.until(lambda: woken == ["x"], "hearing again")
            proxy.cut()
            await bench.until(lambda: b._ear._link is None, "the connection's end")
            lost = Interest("", "z", "z", None, watch=True)
            with pytest.raises(Unavailable):
                await b.listen(lost, functools.partial(woken.append, "z"))
            woken.clear()
            proxy.heal()
            await bench.until(lambda: sorted(woken) == ["x", "y"], "waking both again")
            await bench.again(lambda: b.listen(lost, functools.partial(woken.append, "z")))
            await a.claim(s, "z", "1", "b", None)
            await bench.until(lambda: "z" in woken, "hearing a new one")

        run(flavour, body)


def test_a_lock_that_is_free_costs_what_it_must(server: RedisServer) -> None:
    """Taking and releasing a free lock runs eight commands, and publishes nothing."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(server.url)
        s = await driver.start("me", ignore)
        for id in "12":
            server.command("CONFIG", "RESETSTAT")
            await driver.claim(s, "lock", id, "", None)
            await driver.withdraw(s, "lock", id)
        stats = server.command("INFO", "commandstats").decode()
        lines = [line.partition(":") for line in stats.splitlines() if line.startswith("cmdstat_")]
        calls = {
            name.removeprefix("cmdstat_"): int(rest.partition("calls=")[2].partition(",")[0])
            for name, _, rest in lines
        }
        for own in ("auth", "config|resetstat"):
            calls.pop(own, None)
        names = ("exists", "time", "get", "set", "zadd", "zrange", "del")
        assert calls == {"evalsha": 2} | dict.fromkeys(names, 1)

    run("thread", body)


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
            links = [await driver._wire.connect(time.monotonic() + 3) for _ in range(3)]
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
        driver = await bench.open(server.url + "?connections=1", ttl=60.0)
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
        driver = await bench.open(server.url + "?connections=1", ttl=3.0)
        s = await driver.start("me", ignore)
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
        ("ERR The user executing the script can't run this command", AuthenticationFailed),
        ("ERR AUTH <password> called without any password configured", AuthenticationFailed),
        ("OOM command not allowed when used memory > 'maxmemory'.", StorageError),
        ("MISCONF Redis is configured to save RDB snapshots", StorageError),
        ("MOVED 3999 127.0.0.1:6381", Unavailable),
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


def test_a_user_without_the_rosters_channels_can_wait(flavour: str) -> None:
    """Without permission to watch, watchers are told to poll; waiters are woken all the same."""
    with RedisServer() as server:
        rights = ("on", ">pw", "~tenure:*", "resetchannels", "&tenure:*:w:*", "+@all")
        server.command("ACL", "SETUSER", "app", *rights)

        async def body(bench: Bench) -> None:
            driver = await bench.open(f"redis://app:pw@{server.host}:{server.port}")
            s = await driver.start("me", ignore)
            woken = bench.runtime.signal()
            for id in "12":
                await driver.claim(s, "lock", id, "x", None)
            for _ in range(2):
                with pytest.raises(Unavailable, match="NOPERM"):
                    await driver.listen(Interest("", "lock", "w", None, watch=True), woken.set)
            assert driver._ear._channels == {}
            await driver.listen(Interest(s, "lock", "2", "1"), woken.set)
            woken.clear()
            await driver.withdraw(s, "lock", "1")
            assert await woken.wait(bench.runtime.now() + 5)

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
            await driver._wire.post(driver._ear._link, b"PING")
            watch = Interest("", "lock", "w", None, watch=True)
            await driver.listen(watch, woken.set)
            for id in ("5", "6"):
                await driver.claim(s, "rw", id, id, None, True)
            assert (await driver.claim(s, "rw", "7", "", 1)).mine is None
            assert (await driver.claim(s, "rw", "8", "", 2)).mine is None
            await driver.claim(s, "rw", "9", "", None)
            assert (await driver.claim(s, "rw", "10", "", None, True)).rank == 1
            assert (await driver.read(s, "rw", "10", 2)).rank == 1
            for id in ("5", "6", "9"):
                await driver.withdraw(s, "rw", id, 2)
            dead = await driver.start("dead", ignore)
            await driver.claim(dead, "rw", "11", "x", None)
            await driver.end(dead)
            assert len(await driver.census("rw")) == 1
            assert await driver.last_seen(s) is not None
            version = await driver.record("plan", "x", None)
            assert await driver.recall("plan") == Record("x", version)
            assert await driver.recorded("") == ["plan"]
            await driver.record("plan", None, version)
            driver.unlisten(watch)
            await bench.until(lambda: driver._ear._channels == {}, "leaving the channel")
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
            assert cluster.replica.command("EXISTS", driver._keys.of_session(t).decode()) == 1
            unknown = cluster.url.replace("/tenure/", "/nobody/")
            with pytest.raises(Unavailable, match="do not know"):
                await bench.open(unknown)

        run(flavour, body)
