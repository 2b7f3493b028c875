"""The Redis driver on a real cluster: the map, redirections, a slot that moves, fail-over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import tenure
from tenure._model import Interest
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Host, Url
from tenure.drivers._redis_replicas import Replicas
from tenure.drivers.redis import RedisDriver
from tenure.errors import InvalidURL, OutcomeUnknown, Unavailable
from tenure.testing.backends import RedisBackend
from tenure.testing.kit import CASES, Case, run
from tenure.testing.servers import RedisCluster, RedisClusterNode, RedisServer
from tenure.wires._redis import translate
from tenure.wires._redis_calls import packed_command
from tenure.wires._redis_cluster import read_map, redirection, slot_of

LIMIT = 60.0
PASSWORD = "s3cret-word"

Body = Callable[[RedisDriver], Awaitable[None]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """One cluster of three masters for most tests."""
    with RedisCluster(password=PASSWORD) as cluster:
        yield cluster


@pytest.fixture(params=["thread", "asyncio"])
def flavour(request: pytest.FixtureRequest) -> str:
    """Both wires."""
    return str(request.param)


def ignore(reason: str) -> None:
    """A driver's `lost`."""


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition."""
    give_up = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < give_up, f"in vain: {what}"
        time.sleep(0.01)


async def again(driver: RedisDriver, call: Callable[[], Awaitable[Any]]) -> Any:
    """Call until it is no longer `Unavailable`, as the core does."""
    give_up = driver.runtime.now() + LIMIT
    while True:
        try:
            return await call()
        except Unavailable:
            assert driver.runtime.now() < give_up
            await driver.runtime.sleep(driver.runtime.now() + 0.02)


def with_driver(flavour: str, url: str, body: Body) -> None:
    """Run a test's body with a driver, on the runtime of that flavour."""

    async def whole() -> None:
        runtime: Runtime = AsyncioRuntime() if flavour == "asyncio" else ThreadRuntime()
        driver = RedisDriver(Url.parse(url), runtime, runtime.unique(), 3.0)
        try:
            await driver.open()
            await body(driver)
        finally:
            await driver.close()

    if flavour == "asyncio":
        asyncio.run(whole())
    else:
        drive(whole())


def key(driver: RedisDriver, rest: str) -> str:
    """The name of one of the driver's keys."""
    return driver._keys.prefix.decode() + rest


def places(cluster: RedisCluster, driver: RedisDriver) -> tuple[RedisClusterNode, RedisClusterNode]:
    """The node that has the driver's slot, and one that has not."""
    owner = cluster.owner_of(key(driver, "n"))
    return owner, next(node for node in cluster.nodes if node is not owner)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_node_shows_the_way(cluster: RedisCluster, flavour: str, seed: int) -> None:
    """By way of any node the driver finds the one that has its slot, and keeps to it."""
    node = cluster.nodes[seed]

    async def body(driver: RedisDriver) -> None:
        session = await driver.start("me", ignore)
        roll = await driver.claim(session, "lock", "1", "text", None)
        assert roll.mine is not None
        owner = cluster.owner_of(key(driver, "n"))
        assert owner.command("ZCARD", key(driver, "r:lock")) == 1
        assert await driver.rosters("") == ["lock"]
        assert [each.id for each in await driver.census("lock")] == ["1"]
        assert driver._wire._home == Host(owner.host, owner.port)

    with_driver(flavour, f"redis+cluster://:{PASSWORD}@{node.host}:{node.port}", body)


def test_wake_ups_cross_the_cluster(cluster: RedisCluster, flavour: str) -> None:
    """Whoever moves up is told, and so is who watches."""

    async def body(driver: RedisDriver) -> None:
        session = await driver.start("me", ignore)
        await driver.claim(session, "lock", "1", "", None)
        await driver.claim(session, "lock", "2", "", None)
        woken: list[int] = []
        await driver.listen(Interest(session, "lock", "2", "1"), lambda: woken.append(1))
        watch = Interest("", "group", "w", None, watch=True)
        await driver.listen(watch, lambda: woken.append(2))
        await driver.withdraw(session, "lock", "1")
        await driver.claim(session, "group", "3", "shown", None)
        give_up = driver.runtime.now() + LIMIT
        while set(woken) != {1, 2}:
            assert driver.runtime.now() < give_up, woken
            await driver.runtime.sleep(driver.runtime.now() + 0.01)

    with_driver(flavour, cluster.url, body)


class ClusterBackend(RedisBackend):
    """The cluster, as the kit sees a backend. Its faults are tried elsewhere."""

    name = "redis+cluster"
    scheme = "redis+cluster"

    def __init__(self, cluster: RedisCluster) -> None:
        self.cluster = cluster

    @property
    def url(self) -> str:
        return self.cluster.url

    def footprint(self, namespace: str) -> int:
        self.server = self.cluster.owner_of(f"tenure:{{{namespace}}}:n")
        return super().footprint(namespace)


KIT = [
    case
    for case in CASES
    if case.body.__module__.rpartition(".")[2] in ("rosters", "queues", "records", "status")
    and not {"no server", "one process only"} & {need.reason for need in case.needs}
    and case.unmet(RedisBackend.traits()) is None
]


@pytest.mark.parametrize("case", KIT, ids=lambda case: case.name)
def test_the_roster_contract_holds_on_a_cluster(cluster: RedisCluster, case: Case) -> None:
    """What the kit asks of rosters and records holds on a cluster as well."""
    for flavour in case.flavours:
        run(case, ClusterBackend(cluster), flavour, f"kit-{time.monotonic_ns()}")


# -- a slot that moves -----------------------------------------------------------------


def test_a_slot_that_has_moved_is_followed(cluster: RedisCluster, flavour: str) -> None:
    """When the slot has gone to another node with all its keys, nobody notices."""

    async def body(driver: RedisDriver) -> None:
        session = await driver.start("me", ignore)
        first = (await driver.claim(session, "lock", "1", "", None)).mine
        here, there = places(cluster, driver)
        slot = slot_of(driver.namespace.encode())
        cluster.begin_move(slot, here, there)
        keys: list[bytes] = here.command("KEYS", key(driver, "*"))
        cluster.move_keys(here, there, *(each.decode() for each in keys))
        cluster.end_move(slot, there)
        await driver.renew(session)
        second = (await driver.claim(session, "other", "2", "", None)).mine
        assert first is not None
        assert second is not None
        assert second.token > first.token
        assert driver._wire._home == Host(there.host, there.port)
        await driver.withdraw(session, "lock", "1")
        assert there.command("EXISTS", key(driver, "r:lock")) == 0

    with_driver(flavour, cluster.url, body)


def test_a_slot_that_is_being_moved(cluster: RedisCluster, flavour: str) -> None:
    """In between sessions can be renewed, wherever their key is; no second claim is granted."""

    async def body(driver: RedisDriver) -> None:
        session = await driver.start("me", ignore)
        mine = (await driver.claim(session, "lock", "1", "", None)).mine
        assert mine is not None
        here, there = places(cluster, driver)
        slot = slot_of(driver.namespace.encode())
        cluster.begin_move(slot, here, there)
        for name in (f"s:{session}", "r:lock", "n"):
            await driver.renew(session)
            with pytest.raises(Unavailable):
                await driver.claim(session, "lock", "2", "", 1)
            cluster.move_keys(here, there, key(driver, name))
        await driver.renew(session)
        cluster.end_move(slot, there)
        refused = await again(driver, lambda: driver.claim(session, "lock", "2", "", 1))
        assert refused.mine is None
        assert refused.claims[0].token == mine.token

    with_driver(flavour, cluster.url, body)


# -- fail-over -------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["kill", "pause"])
def test_a_replica_takes_the_masters_place(flavour: str, end: str) -> None:
    """When the slot's master dies or hangs, its replica goes on, and what it had is still held."""
    with RedisCluster(replicas=1) as cluster:

        async def body(driver: RedisDriver) -> None:
            driver._ttl_ms = 120_000  # so that the session outlives whatever the machine does
            session = await driver.start("me", ignore)
            mine = (await driver.claim(session, "lock", "1", "", None)).mine
            assert mine is not None
            owner, _ = places(cluster, driver)
            replica = cluster.replica_of(owner)
            copied = Replicas(driver._wire, driver._keys.counter, 1, driver.patience)
            await again(driver, lambda: copied.entered(packed_command(b"PING")))
            getattr(owner, end)()
            until(replica.is_master, "the replica to take over")
            await again(driver, lambda: driver.renew(session))
            roll = await again(driver, lambda: driver.claim(session, "lock", "2", "", 1))
            assert roll.mine is None
            assert roll.claims[0].token == mine.token
            later = (await driver.claim(session, "lock", "3", "", None)).mine
            assert later is not None
            assert later.token > mine.token
            if end == "pause":
                owner.resume()
                until(lambda: not owner.is_master(), "the old master to know")
                await driver.renew(session)

        with_driver(flavour, cluster.url, body)


# -- what is said of it ------------------------------------------------------------------


def test_what_is_no_cluster_is_told(cluster: RedisCluster, flavour: str) -> None:
    """A node behind redis:// and a lone server behind redis+cluster:// are wrong URLs."""
    node = cluster.nodes[0]
    with RedisServer() as lone:
        for url, hint in {
            f"redis://:{PASSWORD}@{node.host}:{node.port}": r"write redis\+cluster://",
            f"redis+cluster://{lone.host}:{lone.port}": "write redis://",
        }.items():

            async def body(driver: RedisDriver) -> None:
                raise AssertionError("it was opened")

            with pytest.raises(InvalidURL, match=hint):
                with_driver(flavour, url, body)


@pytest.mark.parametrize("url", ["redis+cluster://", "redis+cluster://a/1", "redis+cluster://a/x"])
def test_a_wrong_url(url: str) -> None:
    """A cluster has nodes, and one database."""
    with pytest.raises(InvalidURL, match=r"write redis\+cluster://host:6379,host:6379"):
        tenure.connect(url)


def test_tls(flavour: str) -> None:
    """The nodes that the map names are reached over TLS as well."""
    with RedisCluster(tls=True, password=PASSWORD) as cluster:

        async def body(driver: RedisDriver) -> None:
            session = await driver.start("me", ignore)
            assert (await driver.claim(session, "lock", "1", "", None)).mine is not None

        with_driver(flavour, cluster.url, body)


def test_slots_are_those_of_redis(cluster: RedisCluster) -> None:
    """The slot of a tag is the one that the server computes."""
    for tag in ("default", "x", "%7Bodd%7D", "\N{SNOWMAN}"):
        assert slot_of(tag.encode()) == cluster.nodes[0].command(
            "CLUSTER", "KEYSLOT", f"a{{{tag}}}b"
        )


def test_maps_and_redirections_are_read() -> None:
    """Names that a node leaves out are that of the node that was asked."""
    asked = Host("seed", 1)
    reply: Any = [
        [0, 99, [b"", 7000, b"id", []], [b"b", 7001, b"id"]],
        [100, 200, [None, 7002, b"id"]],
    ]
    owner, known = read_map(reply, 100, asked)
    assert owner == Host("seed", 7002)
    assert known == [Host("seed", 7000), Host("b", 7001), Host("seed", 7002)]
    assert read_map(reply, 300, asked)[0] is None
    assert redirection("MOVED 12 ::1:7000", asked) == (Host("::1", 7000), True)
    assert redirection("ASK 12 :7000", asked) == (Host("seed", 7000), False)
    for text in ("ERR no", "MOVED", "MOVED 1 x", ""):
        assert redirection(text, asked) is None
    unsure = "ERR Script attempted to access a non local key in a cluster node script: 1"
    assert type(translate(unsure, "redis")) is OutcomeUnknown
