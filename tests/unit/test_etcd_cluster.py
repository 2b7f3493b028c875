"""The etcd driver on three members: who is killed, cut off or slow, and what stays true."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

import tenure
from tenure._model import Interest, Roll
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers.etcd import EtcdDriver
from tenure.errors import OutcomeUnknown, Unavailable
from tenure.testing.servers import EtcdCluster, EtcdMember

SECONDS = 40.0
TTL = 60.0
"""Far longer than any test: on a busy machine, an election may take its time."""

PATIENCE = 3.0
# Passwords are dear to check by default, and all members do it.
SETTINGS = {"bcrypt-cost": "4"}


@pytest.fixture(scope="module")
def three() -> Iterator[EtcdCluster]:
    """Three members with authentication, for the whole module."""
    with EtcdCluster(user="app", password="s3cret", settings=SETTINGS) as cluster:
        yield cluster


@pytest.fixture
def cluster(three: EtcdCluster) -> Iterator[EtcdCluster]:
    """The same; whoever was killed or paused is back when the test has ended."""
    yield three
    three.heal()


class Client:
    """A driver with a session."""

    def __init__(self, runtime: Runtime, url: str, namespace: str) -> None:
        self.runtime = runtime
        self.driver = EtcdDriver(Url.parse(url), runtime, namespace, TTL)
        self.driver.patience = PATIENCE
        self.session = ""

    async def claim(self, roster: str, id: str) -> Roll:
        return await self.driver.claim(self.session, roster, id, "", None)

    async def read(self, roster: str, id: str) -> Roll:
        return await self.driver.read(self.session, roster, id)

    async def withdraw(self, roster: str, id: str) -> None:
        await self.driver.withdraw(self.session, roster, id)

    async def listen(self, roster: str, id: str, before: str | None) -> Any:
        signal = self.runtime.signal()
        await self.driver.listen(Interest(self.session, roster, id, before), signal.set)
        return signal

    def member(self, cluster: EtcdCluster) -> EtcdMember:
        """The member that it talks to."""
        wire: Any = self.driver._connected()
        port = int(wire._connect().target.rpartition(":")[2])
        return next(member for member in cluster.members if member.port == port)


class World:
    """The clients of one test, in one flavour."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.namespace = runtime.unique()
        self.clients: list[Client] = []

    async def client(self, url: str) -> Client:
        client = Client(self.runtime, url, self.namespace)
        self.clients.append(client)
        await client.driver.open()
        client.session = await self.sure(partial(client.driver.start, "owner", lambda _: None))
        return client

    async def sure(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until there is an answer, as the core does; anything but silence is one."""
        give_up = self.runtime.now() + SECONDS
        while True:
            try:
                return await ask()
            except Unavailable:
                assert self.runtime.now() < give_up, "no answer"
                await self.runtime.sleep(self.runtime.now() + 0.05)

    async def until(self, ask: Callable[[], Awaitable[bool]]) -> None:
        give_up = self.runtime.now() + SECONDS
        while not await ask():
            assert self.runtime.now() < give_up, "waited in vain"
            await self.runtime.sleep(self.runtime.now() + 0.05)

    async def close(self) -> None:
        for client in self.clients:
            await self.sure(partial(client.driver.end, client.session))
            await client.driver.close()


Body = Callable[[World], Awaitable[None]]


@pytest.fixture(params=["thread", "asyncio"])
def run(request: pytest.FixtureRequest, cluster: EtcdCluster) -> Callable[[Body], None]:
    """Run a test's body in one flavour; the cluster is whole again when its clients close."""

    async def whole(body: Body, runtime: Runtime) -> None:
        world = World(runtime)
        try:
            await body(world)
        finally:
            await runtime.blocking(cluster.heal)
            await world.close()

    def run(body: Body) -> None:
        if request.param == "thread":
            drive(whole(body, ThreadRuntime()))
            return

        async def on_a_loop() -> None:
            await asyncio.wait_for(whole(body, AsyncioRuntime()), 120)

        asyncio.run(on_a_loop())

    return run


def test_who_loses_its_member_finds_another(
    cluster: EtcdCluster, run: Callable[[Body], None]
) -> None:
    """When its member is killed, a client goes on with another: its session and claims stand."""

    async def body(world: World) -> None:
        a, b = await world.client(cluster.url), await world.client(cluster.url)
        first = (await a.claim("r", "one")).mine
        await b.claim("r", "two")
        for client in (a, b):
            member = client.member(cluster)
            await world.runtime.blocking(member.kill)
            await world.sure(partial(client.driver.renew, client.session))
            assert client.member(cluster) is not member
            await world.runtime.blocking(cluster.heal)
        roll = await world.sure(partial(a.read, "r", "one"))
        assert (roll.mine, roll.rank) == (first, 0)
        assert (await world.sure(partial(b.read, "r", "two"))).rank == 1

    run(body)


def test_leases_outlive_the_leader(cluster: EtcdCluster, run: Callable[[Body], None]) -> None:
    """The leader is killed: what is held stays held, and the next in line gets its turn later."""

    async def body(world: World) -> None:
        a, b = await world.client(cluster.url), await world.client(cluster.url)
        first = (await a.claim("r", "one")).mine
        assert first is not None
        second = (await b.claim("r", "two")).mine
        assert second is not None
        signal = await b.listen("r", "two", "one")
        leader = await world.runtime.blocking(lambda: cluster.leader)
        await world.runtime.blocking(leader.kill)
        for client in (a, b):
            await world.sure(partial(client.driver.renew, client.session))
        assert (await world.sure(partial(b.read, "r", "two"))).rank == 1
        third = (await world.sure(partial(a.claim, "r", "three"))).mine
        assert third.token > second.token > first.token
        signal.clear()
        await world.sure(partial(a.withdraw, "r", "one"))
        assert await signal.wait(world.runtime.now() + SECONDS)
        roll = await world.sure(partial(b.read, "r", "two"))
        assert (roll.rank, roll.mine) == (0, second)

    run(body)


def test_nobody_else_holds_while_the_leader_changes(cluster: EtcdCluster) -> None:
    """For longer than a TTL after the leader's end, whoever gets the lock finds the lease lost."""
    with tenure.connect(cluster.url, ttl=4) as one, tenure.connect(cluster.url, ttl=4) as two:
        lease = one.lock("name").acquire(timeout=SECONDS)
        cluster.leader.kill()
        give_up = time.monotonic() + 7
        while time.monotonic() < give_up:
            try:
                other = two.lock("name").acquire(timeout=0.2)
            except (tenure.AcquireTimeout, tenure.BackendError):
                continue
            assert not lease.held()
            assert other.token > lease.token
            other.release()
            break
        with contextlib.suppress(tenure.LeaseLost, tenure.BackendError):
            lease.release()
        two.lock("name").acquire(timeout=SECONDS).release()


def test_a_rolling_restart_is_survived(cluster: EtcdCluster, run: Callable[[Body], None]) -> None:
    """Every member is started anew, and no token is known any more: calls and watches go on."""

    async def body(world: World) -> None:
        a, b = await world.client(cluster.url), await world.client(cluster.url)
        await a.claim("r", "one")
        await b.claim("r", "two")
        signal = await b.listen("r", "two", "one")
        leader = ("hasleader", "true")
        for member in cluster.members:
            await world.runtime.blocking(member.kill)
            for client in (a, b):
                # Members know the tokens from their log again; one that expired they do not.
                wire: Any = client.driver._connected()
                wire._metadata = (leader, ("token", "expired.1"))
            await world.runtime.blocking(cluster.heal)
        for client in (a, b):
            await world.sure(partial(client.driver.renew, client.session))
        assert (await world.sure(partial(b.read, "r", "two"))).rank == 1
        signal.clear()
        await world.sure(partial(a.withdraw, "r", "one"))
        assert await signal.wait(world.runtime.now() + SECONDS)
        assert (await world.sure(partial(b.read, "r", "two"))).rank == 0

    run(body)


def test_a_watch_neither_misses_nor_doubles(cluster: EtcdCluster) -> None:
    """The member behind a watch is killed while others come and go: each is told once."""
    with (
        tenure.connect(cluster.url, ttl=60) as watcher,
        tenure.connect(cluster.url, ttl=60, owner="a") as a,
        tenure.connect(cluster.url, ttl=60, owner="b") as b,
        tenure.connect(cluster.url, ttl=60, owner="c") as c,
        watcher.group("group").watch() as watch,
    ):
        group = "group"
        first = a.group(group).join()
        assert (change := watch.next(timeout=SECONDS)) is not None
        assert (change.kind, change.member and change.member.id) == ("joined", "a")
        wire: Any = watcher._session.driver._connected()  # type: ignore[attr-defined]
        port = int(wire._connect().target.rpartition(":")[2])
        member = next(each for each in cluster.members if each.port == port)
        second = b.group(group).join()
        member.kill()
        first.leave()
        third = c.group(group).join()
        members, changes = {"a"}, 0
        give_up = time.monotonic() + SECONDS
        while members != {"b", "c"} or changes < 3:
            assert time.monotonic() < give_up, (members, changes)
            change = watch.next(timeout=0.5)
            if change is None:
                continue
            assert change.member is not None
            changes += 1
            assert (change.member.id in members) is (change.kind == "left")
            members ^= {change.member.id}
        assert changes == 3
        cluster.heal()
        second.leave()
        third.leave()


def test_a_stopped_member_holds_up_nobody(
    cluster: EtcdCluster, run: Callable[[Body], None]
) -> None:
    """A member that does not answer costs one call its patience; the next one goes elsewhere."""

    async def body(world: World) -> None:
        a = await world.client(cluster.url)
        member = a.member(cluster)
        await world.runtime.blocking(member.pause)
        began = world.runtime.now()
        with pytest.raises(OutcomeUnknown):
            await a.claim("r", "one")
        assert world.runtime.now() - began < a.driver.patience + 5
        roll = await world.sure(partial(a.claim, "r", "one"))
        assert roll.mine is not None
        assert a.member(cluster) is not member
        # Nor does it keep a new client from connecting, wherever it stands in the list.
        hosts = [member, *(each for each in cluster.members if each is not member)]
        userinfo = cluster.url.rpartition("@")[0]
        url = f"{userinfo}@{','.join(f'{each.host}:{each.port}' for each in hosts)}"
        b = await world.client(url)
        assert (await world.sure(partial(b.claim, "r", "two"))).rank == 1

    run(body)


def test_a_minority_grants_and_answers_nothing(
    cluster: EtcdCluster, run: Callable[[Body], None]
) -> None:
    """A member without the others may not know what has changed, so its answer is none."""

    async def body(world: World) -> None:
        a = await world.client(cluster.url)
        await a.claim("r", "one")
        member = a.member(cluster)
        others = [each for each in cluster.members if each is not member]
        for each in others:
            await world.runtime.blocking(each.pause)
        began = world.runtime.now()
        for ask in (partial(a.read, "r", "one"), partial(a.claim, "r", "two")):
            with pytest.raises(Unavailable):
                await ask()
        assert world.runtime.now() - began < 2 * a.driver.patience + 8
        for each in others:
            await world.runtime.blocking(each.resume)
        roll = await world.sure(partial(a.claim, "r", "two"))
        assert roll.mine is not None
        assert len(await world.sure(partial(a.driver.census, "r"))) == 2

    run(body)


def test_a_member_that_was_cut_off_is_not_believed(
    cluster: EtcdCluster, run: Callable[[Body], None]
) -> None:
    """A member that slept through a change answers with the change, or not at all."""

    async def body(world: World) -> None:
        leader = await world.runtime.blocking(lambda: cluster.leader)
        sleeper = next(each for each in cluster.members if each is not leader)
        a = await world.client(leader.url)
        b = await world.client(sleeper.url)
        await a.claim("r", "first")
        await b.claim("r", "last")
        for turn in range(5):
            await a.claim("q", f"{turn}")
            before = await b.driver.census("q")
            await world.runtime.blocking(sleeper.pause)
            await a.withdraw("q", f"{turn}")
            if turn == 4:
                await a.withdraw("r", "first")
            found: list[Any] = []

            async def look(found: list[Any] = found) -> None:
                found.append(await world.sure(partial(b.driver.census, "q")))
                found.append(await world.sure(partial(b.read, "r", "last")))

            job = world.runtime.spawn(look, "look")
            await world.runtime.blocking(sleeper.resume)
            assert await job.join(world.runtime.now() + SECONDS)
            assert len(before) == 1
            assert found[0] == ()
            assert found[1].rank == (0 if turn == 4 else 1)

    run(body)
