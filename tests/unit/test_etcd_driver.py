"""The etcd driver on a real server: fences, watches, tokens that expire, forks."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tenure._model import Interest, Roll
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers._etcd_keys import Place, Standing, value
from tenure.drivers._etcd_lines import Line, Predecessor, Public
from tenure.drivers._etcd_url import settings
from tenure.drivers.etcd import EtcdDriver
from tenure.errors import (
    AuthenticationFailed,
    InvalidURL,
    OutcomeUnknown,
    ProtocolError,
    SessionLost,
    StorageError,
    Unavailable,
)
from tenure.testing.servers import EtcdServer, free_port
from tenure.wires import _etcd_api as api
from tenure.wires import _etcd_proto as proto

PASSWORD = "s3cret-word"


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    """One server for the tests that leave it as it was."""
    with EtcdServer() as server:
        yield server


class Client:
    """A driver with a session."""

    def __init__(self, runtime: Runtime, url: str, namespace: str, ttl: float) -> None:
        self.runtime = runtime
        self.driver = EtcdDriver(Url.parse(url), runtime, namespace, ttl)
        self.session = ""

    async def start(self) -> Client:
        await self.driver.open()
        self.session = await self.driver.start("owner", lambda _: None)
        return self

    async def claim(
        self, roster: str, id: str, width: int | None = None, body: str = "", shared: bool = False
    ) -> Roll:
        return await self.driver.claim(self.session, roster, id, body, width, shared)

    async def read(self, roster: str, id: str) -> Roll:
        return await self.driver.read(self.session, roster, id)

    async def withdraw(self, roster: str, id: str) -> None:
        await self.driver.withdraw(self.session, roster, id)

    async def listen(
        self, roster: str, id: str, before: str | None, width: int = 1
    ) -> tuple[Interest, Any]:
        signal = self.runtime.signal()
        interest = Interest(self.session, roster, id, before, width)
        await self.driver.listen(interest, signal.set)
        return interest, signal

    async def watch(self, roster: str) -> Any:
        """Watch a roster, from when the watch stands."""
        signal = self.runtime.signal()
        interest = Interest("", roster, self.runtime.unique(), None, watch=True)
        await self.driver.listen(interest, signal.set)
        assert await signal.wait(self.runtime.now() + 5), "woken once, when the watch stands"
        signal.clear()
        return signal

    async def stands(self, id: str) -> bool:
        """Whether the watch of a waiter stands."""
        watchers = self.driver._watches._watchers.values()
        place = self.driver._claims.places.get(id)
        purposes: list[Any] = [watcher.purpose for watcher in watchers]
        return any(each._began for each in purposes if each._place is place)

    def calls(self) -> list[str]:
        """From now on, the requests that the driver makes."""
        wire: Any = self.driver._connected()
        call, made = wire._call, []

        async def note(name: str, request: bytes) -> bytes:
            made.append(name)
            reply: bytes = await call(name, request)
            return reply

        wire._call = note
        return made

    async def close(self) -> None:
        if self.session:
            await self.driver.end(self.session)
        await self.driver.close()


class World:
    """The clients of one test, in one flavour."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.namespace = runtime.unique()
        self.clients: list[Client] = []

    async def client(self, url: str, ttl: float = 9.0) -> Client:
        client = Client(self.runtime, url, self.namespace, ttl)
        self.clients.append(client)
        return await client.start()

    async def woken(self, signal: Any, seconds: float = 5.0) -> bool:
        result: bool = await signal.wait(self.runtime.now() + seconds)
        return result

    async def until(
        self, ask: Callable[[], Awaitable[bool]], seconds: float = 10.0, every: float = 0.02
    ) -> None:
        give_up = self.runtime.now() + seconds
        while not await ask():
            assert self.runtime.now() < give_up, "waited in vain"
            await self.runtime.sleep(self.runtime.now() + every)

    async def close(self) -> None:
        for client in self.clients:
            await client.close()


Body = Callable[[World], Awaitable[None]]


@pytest.fixture(params=["thread", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    """Run a test's body in one flavour, and close its clients."""

    async def whole(body: Body, runtime: Runtime) -> None:
        world = World(runtime)
        try:
            await body(world)
        finally:
            await world.close()

    def run(body: Body) -> None:
        if request.param == "thread":
            drive(whole(body, ThreadRuntime()))
            return

        async def on_a_loop() -> None:
            await asyncio.wait_for(whole(body, AsyncioRuntime()), 60)

        asyncio.run(on_a_loop())

    return run


# -- the roster ------------------------------------------------------------


def test_claims_come_in_order(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """Rank, predecessor and token follow the order of claims, in `claim` and in `read`."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        b = await world.client(server.url)
        first = await a.claim("r", "one", body="hello")
        second = await b.claim("r", "two")
        third = await a.claim("r", "three")
        assert first.mine is not None
        assert (first.rank, first.before, first.mine.owner) == (0, None, "owner")
        assert (second.rank, second.before) == (1, "one")
        assert (third.rank, third.before) == (2, "two")
        assert third.claims[0] == first.mine
        assert third.mine is not None
        assert third.mine.token > first.mine.token
        assert await a.read("r", "three") == third
        assert (await b.read("r", "three")).mine == third.mine
        assert await a.claim("r", "three") == third
        await b.withdraw("r", "two")
        await b.withdraw("r", "two")
        assert (await a.read("r", "three")).before == "one"
        assert (await a.read("r", "two")).mine is None

    run(body)


def test_a_conditional_claim_counts(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """With a width, so many get in and the next one writes nothing."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        for width, roster in ((1, "x"), (3, "y")):
            for each in range(width):
                roll = await a.claim(roster, f"{roster}{each}", width)
                assert roll.mine is not None
                assert roll.rank == each
            refused = await a.claim(roster, f"{roster}-late", width)
            assert (refused.mine, refused.rank) == (None, width)
            assert refused.claims[0].id == f"{roster}0"
            assert (await a.claim(roster, f"{roster}0", width)).mine is not None
            assert (await a.read(roster, f"{roster}-late")).mine is None

    run(body)


def test_names_stay_apart(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """No name reaches into another's roster, whatever characters are in it."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        names = ["a", "ab", "a/b", "a%2Fb", "/", "ü", "a0", "a\x7f"]
        for name in names:
            assert (await a.claim(name, f"id{name}", 1)).mine is not None, name
        assert list(await a.driver.rosters("")) == sorted(names)
        assert list(await a.driver.rosters("a/")) == ["a/b"]

    run(body)


def test_amend_compares(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A body is replaced if it is the one given; the token stays, a repetition is no error."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        mine = (await a.claim("r", "one", body="old")).mine
        assert mine is not None
        changed = await a.driver.amend(mine, "new")
        assert (changed.body, changed.token) == ("new", mine.token)
        assert await a.driver.amend(mine, "new") == changed
        with pytest.raises(SessionLost):
            await a.driver.amend(mine, "other")
        assert (await a.read("r", "one")).mine == changed

    run(body)


def test_a_dead_session_is_refused(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """Where the lease is gone, claim, conditional claim and renewal say so."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        b = await world.client(server.url)
        await b.claim("taken", "theirs")
        await b.driver.end(a.session)
        for roster, width in (("free", None), ("free", 1), ("taken", 1), ("taken", None)):
            with pytest.raises(SessionLost):
                await a.claim(roster, "mine", width)
        with pytest.raises(SessionLost):
            await a.driver.renew(a.session)
        assert (await b.read("free", "mine")).claims == ()

    run(body)


def test_a_late_claim_comes_to_nothing(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A claim that arrives after its withdrawal enters nothing, and the session goes on."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        wire = a.driver._connected()
        txn = wire.txn
        held: list[Any] = []

        async def keep(*request: Sequence[Any]) -> api.Outcome:
            held.append(request)
            raise OutcomeUnknown("no answer")

        wire.txn = keep  # type: ignore[method-assign, assignment]
        for width in (None, 1):
            with pytest.raises(OutcomeUnknown):
                await a.claim("r", "late", width)
        wire.txn = txn  # type: ignore[method-assign]
        other = await a.claim("s", "in-time")
        await a.withdraw("r", "late")
        for request in held:
            assert not (await txn(*request)).succeeded
        assert (await a.read("r", "late")).claims == ()
        assert (await a.read("s", "in-time")).mine == other.mine
        assert (await a.claim("r", "next", 1)).mine is not None

    run(body)


def test_a_lost_grant_is_asked_for_again(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """When the answer to the grant of a lease is lost, the next start takes that same lease."""

    async def body(world: World) -> None:
        client = Client(world.runtime, server.url, world.namespace, 9.0)
        world.clients.append(client)
        await client.driver.open()
        wire = client.driver._connected()
        grant = wire.lease_grant
        granted: list[int] = []

        async def lose(lease: int, ttl: int) -> bool:
            await grant(lease, ttl)
            granted.append(lease)
            raise OutcomeUnknown("no answer")

        wire.lease_grant = lose  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await client.driver.start("owner", lambda _: None)
        wire.lease_grant = grant  # type: ignore[method-assign]
        client.session = await client.driver.start("owner", lambda _: None)
        assert granted == [int(client.session, 16)]
        assert (await client.claim("r", "one")).mine is not None

    run(body)


def test_keys_are_used_again(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A thousand claims leave no thousand names in etcd, which goes through all it ever had."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        keys = set()
        tokens = []
        for number in range(50):
            id, width = f"id{number}", 1 if number % 2 else None
            roll = await a.claim("r", id, width)
            assert roll.mine is not None
            tokens.append(roll.mine.token)
            place = a.driver._claims.places.get(id)
            assert place is not None
            keys.add(place.key)
            await a.withdraw("r", id)
        assert len(keys) == 1
        assert tokens == sorted(set(tokens))
        assert not a.driver._claims.places._slots

    run(body)


def test_a_lost_withdrawal_spoils_its_key(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A withdrawal that arrives late removes its own claim only, not the next one's."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        await a.claim("r", "one")
        wire = a.driver._connected()
        delete = wire.delete
        held: list[bytes] = []

        async def keep(key: bytes) -> None:
            held.append(key)
            raise OutcomeUnknown("no answer")

        wire.delete = keep  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await a.withdraw("r", "one")
        wire.delete = delete  # type: ignore[method-assign]
        await a.withdraw("r", "one")
        next_one = await a.claim("r", "two")
        await delete(held[0])
        assert (await a.read("r", "two")).mine == next_one.mine

    run(body)


# -- wake-ups --------------------------------------------------------------


def test_the_predecessor_wakes(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A waiter is woken when the claim before it goes, not for others, nor after unlisten."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        b = await world.client(server.url)
        for id in ("one", "two", "three"):
            await a.claim("r", id)
        await b.claim("r", "four")
        _, of_three = await b.listen("r", "four", "three")
        gone, of_two = await b.listen("r", "four", "two")
        _, of_all = await b.listen("r", "four", None)
        b.driver.unlisten(gone)
        await a.withdraw("r", "two")
        assert await world.woken(of_all)
        await a.withdraw("r", "three")
        assert await world.woken(of_three)
        assert not of_two.is_set()

    run(body)


def test_a_change_before_the_watch_is_seen(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """What happened between the read and the watch wakes, also if it was compacted away."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        b = await world.client(server.url)
        for compact in (False, True):
            await a.claim("r", "one")
            roll = await b.claim("r", "two")
            assert roll.mine is not None
            await a.withdraw("r", "one")
            if compact:
                await a.claim("s", "more")
                last = (await a.read("s", "more")).mine
                assert last is not None
                request = {"revision": str(last.token)}
                await world.runtime.blocking(partial(server.call, "kv/compaction", request))
            _, signal = await b.listen("r", "two", "one")
            assert await world.woken(signal)
            await b.withdraw("r", "two")

    run(body)


def test_watches_outlive_a_restart(run: Callable[[Body], None]) -> None:
    """After a restart of the server claims still stand, and a waiter is woken by a release."""
    with EtcdServer() as server:

        async def body(world: World) -> None:
            a = await world.client(server.url, ttl=20)
            b = await world.client(server.url, ttl=20)
            first = await a.claim("r", "one")
            await b.claim("r", "two")
            _, signal = await b.listen("r", "two", "one")
            await world.runtime.blocking(lambda: server.restart(graceful=False))
            assert await world.woken(signal, 20), "woken once, to look for itself"
            signal.clear()

            async def read() -> bool:
                try:
                    return (await b.read("r", "two")).claims[0] == first.mine
                except Unavailable:
                    return False

            await world.until(read)
            await a.driver.renew(a.session)
            await a.withdraw("r", "one")
            assert await world.woken(signal)

        run(body)


# -- a waiter that is the next in line -------------------------------------


async def _next_in_line(world: World, url: str) -> tuple[Client, Client, Any]:
    """One that holds, and one that waits and has looked since its watch stands."""
    a, b = await world.client(url), await world.client(url)
    await a.claim("r", "one")
    await b.claim("r", "two")
    _, signal = await b.listen("r", "two", "one")
    await world.until(lambda: b.stands("two"))
    assert (await b.read("r", "two")).rank == 1
    signal.clear()
    return a, b, signal


def test_the_next_in_line_needs_no_look(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """Whoever was alone behind the holder learns from the watch that it is the head: no request."""

    async def body(world: World) -> None:
        a, b, signal = await _next_in_line(world, server.url)
        calls = b.calls()
        await a.withdraw("r", "one")
        assert await world.woken(signal)
        told = await b.read("r", "two")
        assert calls == []
        assert told == await b.read("r", "two"), "what it was told is what is so"
        assert calls == ["Txn"], "it is good for one answer"
        assert (told.rank, told.before) == (0, None)

    run(body)


def test_a_waiter_that_died_is_not_told(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A waiter whose lease an operator revoked before, or at the same time, must look."""

    async def body(world: World) -> None:
        a, b, signal = await _next_in_line(world, server.url)
        await a.driver.end(b.session)
        assert await world.woken(signal), "its own end wakes it, too"
        signal.clear()
        await a.withdraw("r", "one")
        assert await world.woken(signal)
        assert (await b.read("r", "two")).mine is None

        await a.claim("both", "first")
        await a.claim("both", "second")
        _, signal = await a.listen("both", "second", "first")
        await world.until(lambda: a.stands("second"))
        signal.clear()
        c = await world.client(server.url)
        await c.driver.end(a.session)
        assert await world.woken(signal)
        assert (await a.read("both", "second")).mine is None

    run(body)


def test_others_ahead_are_not_forgotten(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """When the one before leaves the queue, whoever stood third is second, not the head."""

    async def body(world: World) -> None:
        _, b, _ = await _next_in_line(world, server.url)
        c = await world.client(server.url)
        await c.claim("r", "three")
        _, signal = await c.listen("r", "three", "two")
        await world.until(lambda: c.stands("three"))
        await b.withdraw("r", "two")
        assert await world.woken(signal)
        roll = await c.read("r", "three")
        assert (roll.rank, roll.before) == (1, "one")

    run(body)


def test_a_write_before_the_watch_asks_for_a_look(
    server: EtcdServer, run: Callable[[Body], None]
) -> None:
    """A watch that begins after the look wakes at once, since it cannot know what it missed."""

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)
        for number in range(5):
            await a.claim("r", f"one{number}")
            await b.claim("r", f"two{number}")
            await a.claim("elsewhere", f"{number}")
            _, signal = await b.listen("r", f"two{number}", f"one{number}")
            assert await world.woken(signal)
            calls = b.calls()
            signal.clear()
            await a.withdraw("r", f"one{number}")
            assert await world.woken(signal)
            assert (await b.read("r", f"two{number}")).rank == 0
            assert calls == ["Txn"]
            await b.withdraw("r", f"two{number}")

    run(body)


def test_a_broken_stream_asks_for_a_look(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """When the stream was opened again, each waiter and watcher is woken once, and must look."""

    async def body(world: World) -> None:
        a, b, signal = await _next_in_line(world, server.url)
        public = await b.watch("public")
        stream = b.driver._watches._stream
        assert stream is not None
        stream.close()
        assert await world.woken(signal)
        assert await world.woken(public)
        signal.clear()
        calls = b.calls()
        await a.withdraw("r", "one")
        assert await world.woken(signal)
        assert (await b.read("r", "two")).rank == 0
        assert calls == ["Txn"]

    run(body)


def _place(rank: int, shared: bool = False) -> Place:
    """A place that was looked at at revision 20; who stands before it has the key `k/1.0`."""
    place = Place("2", "r", 0, b"k/2.0", shared)
    place.token = 15
    place.standing = Standing(20, rank, "one", b"k/1.0")
    return place


def _gone(key: bytes, revision: int, created: int = 0) -> api.Change:
    before = api.Entry(key, b"{}", created, created, 1) if created else None
    return api.Change(key, revision, True, b"", before)


@pytest.mark.parametrize(
    "rank, own, began, batches, wakes, first",
    [
        (1, True, 20, [[(b"k/1.0", 21)]], True, True),
        (1, True, 18, [[(b"k/1.0", 25)]], True, True),
        (1, True, 20, [[(b"k/1.5", 21)], [(b"k/1.0", 22)]], True, True),
        (1, True, 20, [[(b"k/1.5", 21)]], False, False),
        (1, True, 20, [[(b"k/2.0", 21)], [(b"k/1.0", 22)]], True, False),
        (1, True, 20, [[(b"k/2.0", 21), (b"k/1.0", 21)]], True, False),
        (1, True, 20, [[(b"k/1.0", 21)], [(b"k/2.0", 22)]], True, False),
        (1, True, 20, [[(b"k/1.0", 20)]], True, False),
        (1, True, 21, [[(b"k/1.0", 22)]], True, False),
        (1, True, 0, [[(b"k/1.0", 22)]], True, False),
        (2, True, 20, [[(b"k/1.0", 21)]], True, False),
        (1, False, 20, [[(b"k/1.0", 21)]], True, False),
    ],
)
def test_what_a_removal_tells(
    rank: int,
    own: bool,
    began: int,
    batches: list[list[tuple[bytes, int]]],
    wakes: bool,
    first: bool,
) -> None:
    """The head is whoever was alone behind what went, saw all since, and is still there."""
    place = _place(rank)
    purpose = Predecessor(place, own)
    late = not 0 < began <= 20
    assert purpose.began(began) == late
    for batch in batches:
        woke = purpose.saw([_gone(*each) for each in batch])
    assert (woke, place.first) == (wakes, first)


def test_a_look_is_due_after_a_break() -> None:
    """Once news may have been missed, nothing is told until the waiter has looked again."""
    place = _place(1)
    purpose = Predecessor(place, own=True)
    purpose.began(20)
    purpose.saw([_gone(b"k/1.0", 21)])
    told = [place.first]
    purpose.broke()
    assert purpose.began(20)
    assert purpose.saw([_gone(b"k/1.0", 21)]), "it wakes whoever waits all the same"
    told.append(place.first)
    place.standing = Standing(30, 1, "one", b"k/1.0")
    purpose.saw([_gone(b"k/1.0", 31)])
    told.append(place.first)
    assert told == [True, False, True]


# -- several at a time -----------------------------------------------------


def test_only_who_is_granted_is_woken(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """With a width, a release wakes the one that comes under it, wherever the gap is."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        waiters = [await world.client(server.url) for _ in range(3)]
        for number in range(3):
            await a.claim("r", f"held{number}")
        before, signals = "held2", []
        for number, client in enumerate(waiters):
            id = f"waits{number}"
            await client.claim("r", id)
            _, signal = await client.listen("r", id, before, 3)
            signals.append(signal)
            before = id
        for number, client in enumerate(waiters):
            await world.until(partial(client.stands, f"waits{number}"))
            assert (await client.read("r", f"waits{number}")).rank == 3 + number
            signals[number].clear()
        late = await a.claim("r", "late")
        assert late.rank == 6
        await a.withdraw("r", "late")
        for number, held in enumerate((1, 0, 2)):
            await a.withdraw("r", f"held{held}")
            assert await world.woken(signals[number])
            assert not any(signal.is_set() for signal in signals[number + 1 :])
            assert (await waiters[number].read("r", f"waits{number}")).rank == 2

    run(body)


@pytest.mark.parametrize(
    "changes, wakes",
    [
        ([(b"k/1.0", 21, 11)], False),
        ([(b"k/1.0", 21, 11), (b"k/3.0", 22, 12)], True),
        ([(b"k/1.0", 21, 11), (b"k/3.0", 22, 16)], False),
        ([(b"k/1.0", 20, 11), (b"k/3.0", 22, 12)], False),
        ([(b"k/2.0", 21, 15)], True),
        ([(b"k/1.0", 21, 0)], True),
        ([(b"k/~1.0", 21, 11), (b"k/3.0", 22, 12)], True),
    ],
)
def test_a_line_counts_who_went(changes: list[tuple[bytes, int, int]], wakes: bool) -> None:
    """What counts was created before the claim and went after the look; doubts are looked at."""
    place = _place(3)
    line = Line(place, 2)
    assert not line.began(20)
    woke = [line.saw([_gone(*change)]) for change in changes]
    assert woke[-1] is wakes
    assert not any(woke[:-1])


def test_a_line_counts_no_readers_for_a_reader() -> None:
    """For a shared claim, others that are shared do not count; a line that broke looks."""
    line = Line(_place(2, shared=True), 2)
    line.began(20)
    assert not line.saw([_gone(b"k/~1.0", 21, 11)])
    assert line.saw([_gone(b"k/1.0", 22, 12)])
    line.broke()
    assert line.saw([_gone(b"k/~1.0", 23, 11)])


# -- shared claims, watchers, records --------------------------------------


def test_shared_claims_take_one_request(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A shared claim's rank and predecessor leave the other shared ones out, in one transaction."""

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)
        calls = a.calls()
        first = await a.claim("r", "reader", 1, shared=True)
        second = await a.claim("r", "reader-too", None, shared=True)
        assert first.mine is not None
        assert second.claims == (first.mine,)
        assert (first.rank, second.rank, second.before) == (0, 0, None)
        writer = await b.claim("r", "writer")
        assert (writer.rank, writer.before) == (2, "reader-too")
        refused = await a.claim("r", "reader-late", 1, shared=True)
        assert (refused.mine, refused.rank, refused.claims) == (None, 1, (first.mine,))
        third = await a.claim("r", "reader-late", None, shared=True)
        assert (third.rank, third.before) == (1, "writer")
        assert await a.read("r", "reader-late") == third
        assert await b.read("r", "reader-late") == third
        assert calls == ["Txn"] * 5
        census = await a.driver.census("r")
        assert [each.shared for each in census] == [True, True, False, True]

    run(body)


def test_watchers_hear_of_public_claims_alone(
    server: EtcdServer, run: Callable[[Body], None]
) -> None:
    """Claims without a body, and other rosters' records, wake no watcher."""

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)
        woken: list[int] = []
        interest = Interest("", "r", "watcher", None, watch=True)
        await b.driver.listen(interest, lambda: woken.append(1))

        async def times(number: int) -> bool:
            return len(woken) >= number

        await world.until(partial(times, 1))  # once when the watch stands
        await a.claim("r", "silent")
        await a.withdraw("r", "silent")
        await a.driver.record("r0", "text", None)
        mine = (await a.claim("r", "loud", body="hello")).mine
        assert mine is not None
        await world.until(partial(times, 2))
        await a.claim("r", "silent")
        changed = await a.driver.amend(mine, "")
        await world.until(partial(times, 3))
        await a.driver.amend(changed, "again")
        await world.until(partial(times, 4))
        await a.driver.record("r", "text", None)
        await world.until(partial(times, 5))
        assert len(woken) == 5

    run(body)


def test_what_wakes_a_watcher() -> None:
    """What has a body now, or had one before, or is gone and unknown."""

    def change(now: str | None, before: str | None) -> api.Change:
        text = b"" if now is None else value("id", "owner", now, 1)
        old = None if before is None else value("id", "owner", before, 1)
        entry = None if old is None else api.Entry(b"k", old, 1, 1, 1)
        return api.Change(b"k", 5, now is None, text, entry)

    public = Public()
    assert public.began(4)
    for now, before in (("x", None), ("x", ""), ("", "x"), (None, "x"), (None, None)):
        assert public.saw([change(now, before)]), (now, before)
    for now, before in (("", None), ("", ""), (None, "")):
        assert not public.saw([change(now, before)]), (now, before)


def test_records_are_no_claims(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A record outlives its writer's session, and neither census nor list of rosters shows it."""

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)
        for name in ("r", "!", "r/1", "~"):
            version: Any = await a.driver.record(name, f"of {name}", None)
            assert await a.driver.record(name, "other", None) is None
            assert await a.driver.record(name, "other", version + 1) is None
        await a.driver.end(a.session)
        assert await b.driver.rosters("") == []
        assert await b.driver.census("r") == ()
        assert list(await b.driver.recorded("")) == ["!", "r", "r/1", "~"]
        assert list(await b.driver.recorded("r")) == ["r", "r/1"]
        found = await b.driver.recall("r/1")
        assert found is not None
        assert found.text == "of r/1"
        later: Any = await b.driver.record("r/1", "new", found.version)
        assert await b.driver.record("r/1", None, found.version) is None
        last: Any = await b.driver.record("r/1", None, later)
        assert found.version < later < last
        assert await b.driver.recall("r/1") is None

    run(body)


def test_last_seen_is_in_whole_seconds(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A session was seen at most so long ago as it lives; of a dead one, or none, there is None."""

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)

        async def older() -> bool:
            return await b.driver.last_seen(a.session) == 1.0

        assert await b.driver.last_seen(a.session) == 0.0
        await world.until(older)
        await a.driver.renew(a.session)
        assert await b.driver.last_seen(a.session) == 0.0
        await a.driver.end(a.session)
        for session in (a.session, "", "nonsense", "0", "-1", "f" * 40):
            assert await b.driver.last_seen(session) is None

    run(body)


def test_too_long_a_text_is_refused(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """What is longer than etcd takes is a `StorageError`, and leaves no doubt behind."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        for size in (1_600_000, 4_000_000):
            with pytest.raises(StorageError, match="larg"):
                await a.claim("r", "one", body="x" * size)
        assert a.driver._claims.places.get("one") is None
        assert (await a.claim("r", "one", body="x" * 1_000_000)).rank == 0

    run(body)


# -- authentication, endpoints, TLS ----------------------------------------


def test_an_expired_token_is_renewed(run: Callable[[Body], None]) -> None:
    """Tokens that expire, or die with a restart, break neither calls nor watches."""
    with EtcdServer(user="app", password=PASSWORD, settings={"auth-token-ttl": "1"}) as server:

        async def body(world: World) -> None:
            a = await world.client(server.url, ttl=20)
            b = await world.client(server.url, ttl=20)
            await a.claim("r", "one")
            await b.claim("r", "two")
            expired = b.driver._connected()._metadata  # type: ignore[attr-defined]

            async def refused() -> bool:
                probe = Client(world.runtime, server.url, world.namespace, 20)
                await probe.driver.open()
                wire: Any = probe.driver._connected()
                wire._metadata = expired
                wire._settings = wire._settings._replace(credentials=None)
                try:
                    await wire.get(api.Get(b"/tenure/"))
                except AuthenticationFailed:
                    return True
                finally:
                    await probe.driver.close()
                return False

            # Each use prolongs a token's life, so ask less often than its time.
            await world.until(refused, 30, every=2.2)
            _, signal = await b.listen("r", "two", "one")
            await a.driver.renew(a.session)
            await a.withdraw("r", "one")
            assert await world.woken(signal, 10)
            await world.runtime.blocking(lambda: server.restart(graceful=False))

            async def read() -> bool:
                try:
                    return (await b.read("r", "two")).rank == 0
                except Unavailable:
                    return False

            await world.until(read)

        run(body)


def test_wrong_credentials_are_refused(run: Callable[[Body], None]) -> None:
    """A wrong password, a missing one and a missing right fail at once, and quote no secret."""
    with EtcdServer(password=PASSWORD) as server:

        async def body(world: World) -> None:
            for userinfo in ("root:wrong-word@", "nobody:wrong-word@", ""):
                url = f"etcd://{userinfo}{server.host}:{server.port}"
                with pytest.raises(AuthenticationFailed) as caught:
                    await world.client(url)
                assert "wrong-word" not in str(caught.value)
                assert "wrong-word" not in repr(settings(Url.parse(url), 1.0))

        run(body)


def test_a_live_endpoint_is_found(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """Where the first endpoint is down, the next one serves; where all are, it is `Unavailable`."""

    async def body(world: World) -> None:
        dead, dead_too = free_port(), free_port()
        a = await world.client(f"etcd://127.0.0.1:{dead},127.0.0.1:{server.port}")
        assert (await a.claim("r", "one")).mine is not None
        with pytest.raises(Unavailable) as caught:
            await world.client(f"etcd://127.0.0.1:{dead},127.0.0.1:{dead_too}")
        assert not isinstance(caught.value, OutcomeUnknown)

    run(body)


def test_a_paused_server_is_an_unknown_outcome(run: Callable[[Body], None]) -> None:
    """No answer within the patience is `OutcomeUnknown`; afterwards the driver works again."""
    with EtcdServer() as server:

        async def body(world: World) -> None:
            a = await world.client(server.url, ttl=2.0)
            await world.runtime.blocking(server.pause)
            began = world.runtime.now()
            with pytest.raises(OutcomeUnknown):
                await a.claim("r", "one")
            assert world.runtime.now() - began < 2 * a.driver.patience + 0.5
            await world.runtime.blocking(server.resume)
            a.session = await a.driver.start("owner", lambda _: None)
            assert (await a.claim("r", "two")).mine is not None

        run(body)


def test_tls(run: Callable[[Body], None]) -> None:
    """Certificates are checked both ways; without the authority the reason is plain."""
    with EtcdServer(mutual_tls=True) as server:

        async def body(world: World) -> None:
            a = await world.client(server.url)
            assert (await a.claim("r", "one")).mine is not None
            with pytest.raises(AuthenticationFailed, match="'ca'"):
                await world.client(f"etcds://{server.host}:{server.port}")

        run(body)


@pytest.mark.parametrize(
    "url, says",
    [
        ("etcd://h?ca=/x", "etcds"),
        ("etcds://h?cert=/x", "together"),
        ("etcd://h/path", "path"),
        ("etcd://user@h", "together"),
        ("etcd://h?colour=red", "colour"),
    ],
)
def test_a_wrong_url_is_refused(url: str, says: str) -> None:
    """An option that cannot work is refused before anything is connected."""
    with pytest.raises(InvalidURL, match=says):
        EtcdDriver(Url.parse(url), ThreadRuntime(), "n", 9)


def test_a_missing_certificate_is_named() -> None:
    """A file that cannot be read is an `InvalidURL` that names the option."""
    driver = EtcdDriver(Url.parse("etcds://h?ca=/nowhere/ca"), ThreadRuntime(), "n", 9)
    with pytest.raises(InvalidURL, match="'ca'"):
        drive(driver.open())


@pytest.mark.parametrize(
    "code, text, kind",
    [
        (14, "failed to connect to all addresses; last error: x", Unavailable),
        (14, "etcdserver: no leader", Unavailable),
        (8, "etcdserver: too many requests", Unavailable),
        (14, "Socket closed", OutcomeUnknown),
        (14, "etcdserver: request timed out", OutcomeUnknown),
        (4, "Deadline Exceeded", OutcomeUnknown),
        (1, "Channel closed!", OutcomeUnknown),
        (16, "etcdserver: invalid auth token", AuthenticationFailed),
        (3, "etcdserver: user name is empty", AuthenticationFailed),
        (3, "etcdserver: revision of auth store is old", AuthenticationFailed),
        (7, "etcdserver: permission denied", AuthenticationFailed),
        (8, "etcdserver: mvcc: database space exceeded", StorageError),
        (5, "etcdserver: requested lease not found", SessionLost),
        (3, "etcdserver: duplicate key given in txn request", ProtocolError),
    ],
)
def test_refusals(code: int, text: str, kind: type[Exception]) -> None:
    """Each status becomes the error that tells whether the request may have been carried out."""
    assert type(api.refusal(code, text, "here")) is kind


# -- the codec -------------------------------------------------------------


def test_a_broken_reply_is_a_protocol_error() -> None:
    """Every reply that was cut short, or holds nonsense, is refused or read; nothing else."""
    reply = bytes.fromhex("0a041803200510011a0612040a021803")
    assert proto.txn_reply(reply).succeeded
    for end in range(len(reply)):
        with suppress(ProtocolError):
            proto.txn_reply(reply[:end])
    for nonsense in (b"\x0b", b"\xff" * 12, b"\x0a\xff\xff\xff\xff\x0f", b"\x0d\x01"):
        with pytest.raises(ProtocolError):
            proto.txn_reply(nonsense)


def test_large_numbers_survive() -> None:
    """Lease numbers use all 63 bits, and a negative TTL is read as one."""
    lease = (1 << 63) - 1
    request = proto.lease_grant_request(lease, 30)
    assert proto.lease_keepalive_reply(request[:2] + b"\x18" + request[3:]) == lease
    assert proto.lease_keepalive_reply(b"\x18" + b"\xff" * 9 + b"\x01") == -1


# -- fork ------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("ending", ["_exit", "process"])
def test_a_forked_child_leaves_the_parent_alone(server: EtcdServer, ending: str) -> None:
    """A child abandons the driver, connects anew and ends; the parent's claim and watch live on."""
    runtime = ThreadRuntime()
    namespace = runtime.unique()
    parent = drive(Client(runtime, server.url, namespace, 9).start())
    drive(parent.claim("r", "one"))
    drive(parent.claim("r", "two"))
    _, signal = drive(parent.listen("r", "two", "one"))

    def child() -> None:
        parent.driver.abandon()
        own = drive(Client(runtime, server.url, namespace, 9).start())
        taken = drive(own.claim("r", "three", 1))
        assert taken.mine is None
        drive(own.close())

    if ending == "process":
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(30)
        assert process.exitcode == 0
        process.close()
    else:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    drive(parent.driver.renew(parent.session))
    drive(parent.withdraw("r", "one"))
    assert drive(signal.wait(runtime.now() + 5))
    assert drive(parent.read("r", "two")).rank == 0
    drive(parent.close())
