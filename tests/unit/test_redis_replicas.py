"""Redis with `?wait_replicas=N`, and what is lost when a replica takes the master's place."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import tenure
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers.redis import RedisDriver
from tenure.errors import InvalidURL, LeaseLost, OutcomeUnknown, Unavailable
from tenure.testing.proxy import Proxy
from tenure.testing.servers import RedisServer, SentinelCluster

LIMIT = 60.0


def ignore(reason: str) -> None:
    """A driver's `lost`."""


def in_touch(master: RedisServer, replica: RedisServer) -> None:
    """Wait until what the master writes arrives at the replica."""
    master.command("SET", "seen", 1)
    until(lambda: replica.command("EXISTS", "seen"), "the replica to have a key")


@pytest.fixture
def pair() -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master and its replica, which is in touch."""
    with RedisServer() as master, RedisServer(replica_of=master) as replica:
        in_touch(master, replica)
        yield master, replica


@pytest.fixture(params=["thread", "asyncio"])
def flavour(request: pytest.FixtureRequest) -> str:
    """Both wires."""
    return str(request.param)


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition."""
    give_up = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < give_up, f"in vain: {what}"
        time.sleep(0.01)
    return found


def leads(server: RedisServer) -> bool:
    """Say whether it is a master; one that is just being made one drops its connections."""
    with contextlib.suppress(OSError):
        return b"role:master" in server.command("INFO", "replication")
    return False


def with_driver(flavour: str, url: str, body: Callable[[RedisDriver], Awaitable[None]]) -> None:
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


def standing(server: RedisServer, driver: RedisDriver, roster: str) -> int:
    """How many claims a server has in a roster."""
    return int(server.command("ZCARD", driver._keys.of_roster(roster).decode()))


def test_a_claim_is_told_when_the_replica_has_it(
    pair: tuple[RedisServer, RedisServer], flavour: str
) -> None:
    """What was granted is on the replica at that moment; it takes one exchange."""
    master, replica = pair

    async def body(driver: RedisDriver) -> None:
        session = await driver.start("me", ignore)
        for shared in (False, True):
            await driver.claim(session, "warm", str(shared), "", None, shared)
        master.command("CONFIG", "RESETSTAT")
        for number in range(20):
            roll = await driver.claim(session, "lock", str(number), "", None, number % 2 == 1)
            assert roll.mine is not None
            assert standing(replica, driver, "lock") == number + 1
        await driver.renew(session)
        stats = master.command("INFO", "commandstats").decode()
        assert "cmdstat_wait:calls=21," in stats
        await driver.withdraw(session, "lock", "0")
        assert "cmdstat_wait:calls=21," in master.command("INFO", "commandstats").decode()

    with_driver(flavour, master.url + "?wait_replicas=1", body)


def test_one_exchange(pair: tuple[RedisServer, RedisServer]) -> None:
    """A free lock costs one exchange to take and one to release, the wait included."""
    master, _ = pair
    asked: list[bytes] = []

    async def body(driver: RedisDriver) -> None:
        session = await driver.start("me", ignore)
        await driver.claim(session, "lock", "0", "", None)
        await driver.withdraw(session, "lock", "0")
        (link,) = driver._wire._links
        send = type(link).send

        async def counted(self: Any, packed: bytes, patience: float) -> None:
            asked.append(packed)
            await send(self, packed, patience)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(link), "send", counted)
            await driver.claim(session, "lock", "1", "", None)
            assert len(asked) == 1
            await driver.withdraw(session, "lock", "1")
            assert len(asked) == 2

    with_driver("asyncio", master.url + "?wait_replicas=1", body)


def test_a_claim_that_no_replica_has_is_withdrawn(
    pair: tuple[RedisServer, RedisServer], flavour: str
) -> None:
    """Without its replica the master grants nothing, and nothing is left behind; later it does."""
    master, replica = pair

    async def body(driver: RedisDriver) -> None:
        session = await driver.start("me", ignore)
        await driver.renew(session)
        replica.pause()
        for shared in (False, True):
            began = driver.runtime.now()
            with pytest.raises(Unavailable, match="0 of 1 replicas") as caught:
                await driver.claim(session, "lock", "1", "", None, shared)
            assert not isinstance(caught.value, OutcomeUnknown)
            assert driver.runtime.now() - began < driver.patience + 1
            assert standing(master, driver, "lock") == 0
        with pytest.raises(OutcomeUnknown, match="0 of 1 replicas"):
            await driver.renew(session)
        replica.resume()
        give_up = driver.runtime.now() + LIMIT
        while True:
            try:
                await driver.renew(session)
                roll = await driver.claim(session, "lock", "2", "", None)
                break
            except Unavailable:
                assert driver.runtime.now() < give_up
        assert roll.mine is not None
        assert standing(replica, driver, "lock") == 1

    with_driver(flavour, master.url + "?wait_replicas=1", body)


def test_a_claim_that_was_written_before_is_waited_for_too(
    pair: tuple[RedisServer, RedisServer], flavour: str
) -> None:
    """A try that finds its claim standing, written over another connection, waits all the same."""
    master, replica = pair

    async def body(driver: RedisDriver) -> None:
        session = await driver.start("me", ignore)
        await driver.claim(session, "lock", "0", "", None)
        replica.pause()
        enter, driver._enter = driver._enter, driver._wire.ask
        await driver.claim(session, "lock", "1", "", None)  # the reply to this one was lost, say
        driver._enter = enter
        driver._wire._drop_idle()
        with pytest.raises(Unavailable, match="0 of 1 replicas"):
            await driver.claim(session, "lock", "1", "", None)
        assert standing(master, driver, "lock") == 1
        replica.resume()

    with_driver(flavour, master.url + "?wait_replicas=1", body)


def test_a_server_without_the_scripts(pair: tuple[RedisServer, RedisServer], flavour: str) -> None:
    """A master that must be taught the script first waits for its replica as well."""
    master, replica = pair

    async def body(driver: RedisDriver) -> None:
        session = await driver.start("me", ignore)
        replica.pause()
        master.command("SCRIPT", "FLUSH")
        with pytest.raises(Unavailable, match="0 of 1 replicas"):
            await driver.claim(session, "lock", "1", "", None)
        replica.resume()

    with_driver(flavour, master.url + "?wait_replicas=1", body)


def test_a_lease_that_no_replica_has_is_lost_in_time(
    pair: tuple[RedisServer, RedisServer],
) -> None:
    """A renewal that the replica does not get is none: the lease is lost by its deadline."""
    master, replica = pair
    with tenure.connect(master.url + "?wait_replicas=1", ttl=2.0) as coordinator:
        lease = coordinator.lock("job").acquire(timeout=LIMIT)
        replica.pause()
        try:
            until(lambda: not lease.held(), "the loss")
            with pytest.raises(LeaseLost, match="replicas had it"):
                lease.check()
        finally:
            replica.resume()


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "101", ""])
def test_a_number_that_is_none(text: str) -> None:
    """The number of replicas is one from 0 to 100."""
    with pytest.raises(InvalidURL, match="wait_replicas"):
        tenure.connect(f"redis://localhost?wait_replicas={text}")


def test_a_lock_survives_a_failover(flavour: str) -> None:
    """What was granted with its replica in touch is held on the new master, and can be renewed."""
    with SentinelCluster() as cluster:

        async def body(driver: RedisDriver) -> None:
            in_touch(cluster.master, cluster.replica)
            session = await driver.start("me", ignore)
            roll = await driver.claim(session, "lock", "1", "", None)
            assert roll.mine is not None
            # So that it does not end while the sentinels take counsel.
            driver._ttl_ms = 120_000
            await driver.renew(session)
            cluster.master.kill()
            key = driver._keys.of_roster("lock").decode()
            until(lambda: leads(cluster.replica), "a new master")
            (member,) = cluster.replica.command("ZRANGE", key, 0, -1)
            assert member.decode() == f"{session} 1"
            assert cluster.replica.command("EXISTS", driver._keys.of_session(session).decode()) == 1

        with_driver(flavour, cluster.url + "?wait_replicas=1", body)


# -- what a fail-over loses ----------------------------------------------------------------


@pytest.fixture
def torn() -> Iterator[tuple[RedisServer, RedisServer, Proxy]]:
    """A master, and a replica that reaches it by way of a proxy."""
    with RedisServer() as master, Proxy(master.host, master.port) as proxy:
        settings = {"repl-timeout": "3"}
        replica = RedisServer(settings=settings)
        with replica:
            replica.command("REPLICAOF", proxy.host, proxy.port)
            in_touch(master, replica)
            yield master, replica, proxy


def fail_over(replica: RedisServer, proxy: Proxy) -> None:
    """Cut the master off from its replica, which takes its place."""
    proxy.cut()
    replica.command("REPLICAOF", "NO", "ONE")


def test_a_master_that_is_cut_off_goes_on_granting(
    torn: tuple[RedisServer, RedisServer, Proxy],
) -> None:
    """Without further settings the old master and the new one grant one lock to two clients."""
    master, replica, proxy = torn
    with tenure.connect(master.url) as old, tenure.connect(replica.url) as new:
        fail_over(replica, proxy)
        mine = old.lock("job").try_acquire()
        theirs = new.lock("job").try_acquire()
        assert mine is not None
        assert theirs is not None
        assert mine.held()
        assert theirs.held()


def test_min_replicas_bound_that(torn: tuple[RedisServer, RedisServer, Proxy]) -> None:
    """With min-replicas-to-write the old master stops granting after the lag that is allowed."""
    master, replica, proxy = torn
    master.command("CONFIG", "SET", "min-replicas-max-lag", 2)
    master.command("CONFIG", "SET", "min-replicas-to-write", 1)
    until(lambda: b"min_slaves_good_slaves:1" in master.command("INFO", "replication"), "it")
    with tenure.connect(master.url) as old:
        lease = old.lock("before").acquire(timeout=LIMIT)
        lease.check()
        fail_over(replica, proxy)

        def refused() -> bool:
            try:
                found = old.lock("job").try_acquire()
            except Unavailable:
                return True
            if found is not None:
                found.release()
            return False

        until(refused, "the old master to refuse")


def test_waiting_for_replicas_ends_that(torn: tuple[RedisServer, RedisServer, Proxy]) -> None:
    """With wait_replicas the old master grants nothing once it is cut off, and leases there end;
    what it had granted before is held on the new one."""
    master, replica, proxy = torn
    with tenure.connect(master.url + "?wait_replicas=1", ttl=3.0) as old:
        lease = old.lock("job").acquire(timeout=LIMIT)
        fail_over(replica, proxy)
        with tenure.connect(replica.url, ttl=3.0) as new:
            early = new.lock("job").try_acquire()
            assert early is None or not lease.held()
            with pytest.raises(Unavailable):
                old.lock("other").try_acquire()
            later = early or new.lock("job").acquire(timeout=LIMIT)
            assert not lease.held()
            assert later.token > lease.token
