"""lock=redlock on real masters: some of them down, stopped or forgetful, and tokens that rise."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import tenure
from tenure._model import Grant
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers import registry
from tenure.drivers._redis_redlock import RedlockDriver
from tenure.drivers._redis_redlock_lua import ENTER
from tenure.drivers.redis import RedisDriver
from tenure.errors import (
    InvalidURL,
    LeaseLost,
    OutcomeUnknown,
    SessionLost,
    Unavailable,
    Unsupported,
)
from tenure.testing.servers import RedisMasters
from tenure.wires.redis_fan import Answers, Fan

LIMIT = 60.0

Body = Callable[["Bench"], Awaitable[None]]


@pytest.fixture
def masters() -> Iterator[RedisMasters]:
    """Three masters, for one test to break."""
    with RedisMasters() as masters:
        yield masters


@pytest.fixture(params=["thread", "asyncio"])
def flavour(request: pytest.FixtureRequest) -> str:
    """Both wires."""
    return str(request.param)


class Bench:
    """Drivers of one namespace, closed at the end."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.namespace = runtime.unique()
        self.drivers: list[Any] = []

    async def open(self, url: str, ttl: float = 3.0) -> RedlockDriver:
        parsed = Url.parse(url)
        driver = registry.find(parsed)(parsed, self.runtime, self.namespace, ttl)
        self.drivers.append(driver)
        await driver.open()
        return driver  # type: ignore[return-value]

    async def again(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call until it is no longer `Unavailable`."""
        give_up = self.runtime.now() + LIMIT
        while True:
            try:
                return await call()
            except Unavailable:
                assert self.runtime.now() < give_up
                await self.runtime.sleep(self.runtime.now() + 0.02)

    async def seized(self, driver: RedlockDriver, session: str) -> Any:
        """Take the lock, however long that takes."""
        return await self.again(lambda: seize(driver, session, "lock", LIMIT))


def run(flavour: str, body: Body) -> None:
    """Run a test's body on the runtime of that flavour."""

    async def whole() -> None:
        bench = Bench(AsyncioRuntime() if flavour == "asyncio" else ThreadRuntime())
        try:
            await body(bench)
        finally:
            for driver in bench.drivers:
                await driver.close()

    if flavour == "asyncio":
        asyncio.run(whole())
    else:
        drive(whole())


def ignore(reason: str) -> None:
    """A driver's `lost`."""


async def seize(driver: RedlockDriver, session: str, name: str, wait: float = 0.0) -> Grant | None:
    """Try to take a lock, for so long."""
    until = driver.runtime.now() + wait if wait else None
    id = driver.runtime.unique()
    return await driver.mutex.seize(session, name, id, shared=False, until=until)


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_one_master_that_is_away_holds_up_nobody(
    masters: RedisMasters, flavour: str, fault: str
) -> None:
    """With one of three gone or stopped, locks are taken, kept and freed, soon after the first."""

    async def body(bench: Bench) -> None:
        a, b = await bench.open(masters.url), await bench.open(masters.url)
        s, t = await a.start("a", ignore), await b.start("b", ignore)
        before = await seize(a, s, "before")
        assert before is not None
        getattr(masters.servers[1], fault)()
        grant = await bench.again(lambda: seize(a, s, "lock"))
        began = bench.runtime.now()
        for _ in range(20):
            await a.renew(s)
            assert await seize(b, t, "lock") is None
            await a.mutex.unseize(grant)
            other = await seize(b, t, "lock", 10)
            assert other is not None
            assert other.token > grant.token
            await b.mutex.unseize(other)
            grant = await seize(a, s, "lock", 10)
            assert grant is not None
        assert bench.runtime.now() - began < 20 * a.patience
        assert await seize(b, t, "before") is None
        await a.mutex.unseize(before)
        assert await seize(b, t, "before", 10) is not None

    run(flavour, body)


def test_a_late_client_finds_the_others(masters: RedisMasters, flavour: str) -> None:
    """A coordinator that opens while one master is away works, and knows it when it is back."""
    masters.servers[0].stop()

    async def body(bench: Bench) -> None:
        driver = await bench.open(masters.url)
        session = await driver.start("a", ignore)
        grant = await seize(driver, session, "lock")
        assert grant is not None
        masters.servers[0].start()
        give_up = bench.runtime.now() + LIMIT
        while len(driver._votes.sessions[session].held[grant.id].votes) < 3:
            assert bench.runtime.now() < give_up
            await driver.renew(session)
            await bench.runtime.sleep(bench.runtime.now() + 0.05)
        masters.servers[1].stop()
        await bench.again(lambda: driver.renew(session))

    run(flavour, body)


def test_two_masters_that_are_away_are_too_many(masters: RedisMasters, flavour: str) -> None:
    """Without a majority nothing is granted or renewed, and nothing is left behind."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(masters.url)
        session = await driver.start("a", ignore)
        for server in masters.servers[:2]:
            server.kill()
        with pytest.raises(Unavailable):
            await seize(driver, session, "lock")
        with pytest.raises(Unavailable):
            await driver.renew(session)
        key = driver._keys.of_vote("lock").decode()
        assert masters.servers[2].command("EXISTS", key) == 0
        with pytest.raises(Unavailable):
            await bench.open(masters.url)

    run(flavour, body)


def test_tokens_rise_whichever_majority_gives_them(masters: RedisMasters, flavour: str) -> None:
    """Each grant's token is greater than all before, also of a client whose clock is behind."""

    async def body(bench: Bench) -> None:
        drivers = [await bench.open(masters.url) for _ in range(3)]
        sessions = [await driver.start("a", ignore) for driver in drivers]
        wall = bench.runtime.wall
        tokens = []
        for number, (off, away) in enumerate(itertools.product((0, -3600, 7200, -60), range(3))):
            driver, session = drivers[number % 3], sessions[number % 3]
            for member in driver._fan.members:
                member.down = member is driver._fan.members[away]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    type(bench.runtime), "wall", staticmethod(lambda off=off: wall() + off)
                )
                grant = await bench.seized(driver, session)
            assert grant is not None
            tokens.append(grant.token)
            for member in driver._fan.members:
                member.down = False
            await driver.mutex.unseize(grant)
        assert tokens == sorted(set(tokens))

    run(flavour, body)


def test_a_lock_is_lost_with_the_majority_of_its_votes(masters: RedisMasters, flavour: str) -> None:
    """Two masters that restart empty end what they voted for; one does not."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(masters.url)
        session = await driver.start("a", ignore)
        grant = await seize(driver, session, "lock")
        assert grant is not None
        masters.servers[0].restart()
        votes = driver._votes.sessions[session].held[grant.id].votes
        give_up = bench.runtime.now() + LIMIT
        while masters.servers[0].command("EXISTS", driver._keys.of_vote("lock").decode()) == 0:
            assert bench.runtime.now() < give_up
            await bench.again(lambda: driver.renew(session))
        assert len(votes) == 3
        for server in masters.servers[:2]:
            server.restart()
        with pytest.raises(SessionLost):
            await bench.again(lambda: renew_for_ever(driver, session))

    async def renew_for_ever(driver: RedlockDriver, session: str) -> None:
        while True:
            await driver.renew(session)
            await driver.runtime.sleep(driver.runtime.now() + 0.01)

    run(flavour, body)


def test_a_vote_that_was_not_taken_back_does_not_stay(masters: RedisMasters, flavour: str) -> None:
    """A master that missed a release votes for others after the next renewal."""

    async def body(bench: Bench) -> None:
        driver, other = await bench.open(masters.url), await bench.open(masters.url)
        session, t = await driver.start("a", ignore), await other.start("b", ignore)
        kept = await seize(driver, session, "kept")
        grant = await seize(driver, session, "lock")
        assert grant is not None
        assert kept is not None
        member = driver._fan.members[2]
        member.down = True
        await driver.mutex.unseize(grant)
        member.down = False
        assert masters.servers[2].command("EXISTS", driver._keys.of_vote("lock").decode()) == 1
        await driver.renew(session)
        other._fan.members[0].down = True  # so that it needs the vote of the third
        assert await seize(other, t, "lock") is not None
        assert await seize(other, t, "kept") is None
        other._fan.members[0].down = False
        assert len(driver._votes.sessions[session].held[kept.id].votes) == 3

    run(flavour, body)


def test_strategies_are_not_mixed(masters: RedisMasters, flavour: str) -> None:
    """Who uses one of the masters without lock=redlock is refused where the other holds."""
    lone = masters.servers[0]

    async def body(bench: Bench) -> None:
        driver = await bench.open(masters.url)
        session = await driver.start("a", ignore)
        plain: Any = await bench.open(lone.url)
        assert isinstance(plain, RedisDriver)
        other = await plain.start("b", ignore)
        grant = await seize(driver, session, "lock")
        assert grant is not None
        for width in (None, 1):
            with pytest.raises(Unsupported, match="lock=redlock"):
                await plain.claim(other, "lock", "1", "", width)
        await driver.mutex.unseize(grant)
        await plain.claim(other, "lock", "1", "", None)
        with pytest.raises(Unsupported, match="without lock=redlock"):
            await seize(driver, session, "lock")
        await plain.end(other)  # what is left of its claim stands in nobody's way
        assert await seize(driver, session, "lock") is not None

    run(flavour, body)


def test_two_clients_that_split_the_votes_agree(masters: RedisMasters) -> None:
    """Many that try at once get it one after the other, and never two."""

    async def main() -> None:
        bench = Bench(AsyncioRuntime())
        try:
            drivers = [await bench.open(masters.url) for _ in range(6)]
            holding: list[int] = []
            tokens: list[int] = []

            async def work(number: int) -> None:
                driver = drivers[number]
                session = await driver.start(str(number), ignore)
                for _ in range(5):
                    grant = await bench.again(lambda: seize(driver, session, "lock", LIMIT))
                    assert grant is not None
                    holding.append(number)
                    assert holding == [number]
                    tokens.append(grant.token)
                    await asyncio.sleep(0.001)
                    holding.remove(number)
                    await driver.mutex.unseize(grant)

            await asyncio.gather(*(work(number) for number in range(6)))
            assert tokens == sorted(set(tokens))
            assert len(tokens) == 30
        finally:
            for driver in bench.drivers:
                await driver.close()

    asyncio.run(main())


def test_a_lease_is_lost_in_time(masters: RedisMasters) -> None:
    """A holder whose masters stop knows by its deadline."""
    with tenure.connect(masters.url, ttl=2.0) as coordinator:
        lease = coordinator.lock("job").acquire(timeout=LIMIT)
        masters.pause()
        try:
            give_up = time.monotonic() + LIMIT
            while lease.held():
                assert time.monotonic() < give_up
                time.sleep(0.01)
            with pytest.raises(LeaseLost):
                lease.check()
        finally:
            masters.resume()


def test_locks_are_all_that_there_is(masters: RedisMasters) -> None:
    """Semaphores, groups and elections are refused; locks are told by the status."""
    with tenure.connect(masters.url, owner="me") as coordinator:
        for call in (
            lambda: coordinator.semaphore("x", 2).acquire(),
            lambda: coordinator.group("x").join(),
            lambda: coordinator.rwlock("x"),
        ):
            with pytest.raises(Unsupported):
                call()
        with coordinator.lock("x") as lease:
            (found,) = coordinator.status()
            assert (found.kind, found.name, found.holders[0].owner) == ("lock", "x", "me")
            assert found.holders[0].token == lease.token
        assert coordinator.status() == ()


def test_every_master_is_examined(masters: RedisMasters) -> None:
    """The doctor looks at each master, and says which is away."""

    async def body(bench: Bench) -> None:
        driver = await bench.open(masters.url)
        masters.servers[1].kill()
        found = await driver.examine()
        subjects = [each.subject for each in found]
        assert sum("appendonly no" in subject for subject in subjects) == 2
        assert [s for s in subjects if s.endswith(": away")] == [
            f"redis at 127.0.0.1:{masters.servers[1].port}: away"
        ]

    run("thread", body)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("redis://a,b/?lock=redlock", "odd number"),
        ("redis://a/?lock=redlock", "odd number"),
        ("redis://a,b,c,d/?lock=redlock", "odd number"),
        ("redis://a,b,b/?lock=redlock", "each of them once"),
        ("redis://a,b,c/?lock=other", "roster or redlock"),
        ("redis://a,b,c/?lock=redlock&wait_replicas=1", "wait_replicas"),
        ("redis+sentinel://a,b,c/m?lock=redlock", "for redis://"),
        ("redis://a,b,c/", "one host only"),
    ],
)
def test_a_wrong_url(url: str, hint: str) -> None:
    """A URL that cannot work is refused, with what would be right."""
    with pytest.raises(InvalidURL, match=hint):
        tenure.connect(url)


def test_a_vote_that_was_not_taken_back_is_removed(masters: RedisMasters, flavour: str) -> None:
    """A master that was stopped during a release has nothing left of the lock a renewal later."""
    stopped = masters.servers[2]

    async def body(bench: Bench) -> None:
        a = await bench.open(masters.url)
        s = await a.start("a", ignore)
        # All three have to answer before one of them is stopped.
        while not all(not member.down for member in a._fan.members):
            await bench.runtime.sleep(bench.runtime.now() + 0.01)
        grant = await seize(a, s, "lock", LIMIT)
        assert grant is not None
        key = f"tenure:{{{bench.namespace}}}:m:lock"
        give_up = bench.runtime.now() + LIMIT
        while not stopped.command("EXISTS", key):
            assert bench.runtime.now() < give_up
            await bench.runtime.sleep(bench.runtime.now() + 0.01)
        stopped.pause()
        await a.mutex.unseize(grant)
        stopped.resume()
        while stopped.command("EXISTS", key):
            assert bench.runtime.now() < give_up, "it has the vote for ever"
            await bench.again(lambda: a.renew(s))
            await bench.runtime.sleep(bench.runtime.now() + 0.05)

    run(flavour, body)


class Slow:
    """The way to the first master, on which entries of a session stay as long as one likes."""

    def __init__(self, fan: Fan, patch: pytest.MonkeyPatch) -> None:
        self.holds = True
        self._fan = fan
        self._run = fan.run
        self._kept: list[tuple[bytes | int, ...]] = []
        patch.setattr(fan, "run", self.run)

    async def run(self, script: Any, *words: bytes | int, among: Any = ()) -> Answers:
        first = self._fan.members[0]
        asked = set(among or self._fan.members)
        if script is not ENTER or not self.holds or first not in asked:
            return await self._run(script, *words, among=asked)
        self._kept.append(words)
        rest = asked - {first}
        answers = await self._run(script, *words, among=rest) if rest else {}
        return {**answers, first: OutcomeUnknown("no reply in time")}

    async def arrive(self) -> None:
        """Let what was held up reach the master."""
        self.holds = False
        assert self._kept
        for words in self._kept:
            await self._run(ENTER, *words, among=self._fan.members[:1])


async def all_up(bench: Bench, url: str) -> RedlockDriver:
    driver = await bench.open(url)
    while any(member.down for member in driver._fan.members):
        await bench.runtime.sleep(bench.runtime.now() + 0.01)
    return driver


def part(a: RedlockDriver, b: RedlockDriver) -> None:
    """Leave two of the masters to each: both have the first."""
    a._fan.members[2].down = True
    b._fan.members[1].down = True


@pytest.mark.parametrize("forgets", [False, True])
def test_an_entry_that_arrives_late_undoes_no_later_one(
    masters: RedisMasters, flavour: str, monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    """A session's entry that was long under way takes no vote away, and hides no loss of one."""

    async def body(bench: Bench) -> None:
        a, b = await all_up(bench, masters.url), await all_up(bench, masters.url)
        slow = Slow(a._fan, monkeypatch)
        s, t = await a.start("a", ignore), await b.start("b", ignore)
        slow.holds = False
        await a.renew(s)  # enters it anew where the first entry has not arrived
        part(a, b)
        assert await seize(a, s, "lock") is not None
        if forgets:
            masters.servers[0].command("FLUSHALL")
        await slow.arrive()
        if forgets:
            with pytest.raises(SessionLost):
                await a.renew(s)
        else:
            assert await seize(b, t, "lock") is None
            await a.renew(s)

    run(flavour, body)


def test_a_vote_does_not_count_under_a_number_that_goes(
    masters: RedisMasters, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a new entry is under way, that master's vote would go with the old one: it is none."""

    async def body(bench: Bench) -> None:
        a, b = await all_up(bench, masters.url), await all_up(bench, masters.url)
        s, t = await a.start("a", ignore), await b.start("b", ignore)
        grant = await seize(a, s, "before")
        assert grant is not None
        first = a._fan.members[0]
        first.down = True
        await a.mutex.unseize(grant)
        first.down = False
        slow = Slow(a._fan, monkeypatch)
        await a.renew(s)  # the first master has missed the release
        part(a, b)
        assert await seize(a, s, "lock") is None
        await slow.arrive()
        other = await seize(b, t, "lock")
        assert other is not None
        await b.mutex.unseize(other)
        await a.renew(s)
        assert await seize(a, s, "lock") is not None

    run(flavour, body)


def test_a_session_without_locks_survives_lost_entries(masters: RedisMasters, flavour: str) -> None:
    """If no new entry arrives anywhere, the session is known by the old ones, and entered again."""

    async def body(bench: Bench) -> None:
        a = await all_up(bench, masters.url)
        s = await a.start("a", ignore)
        known = a._votes.sessions[s]
        for member in a._fan.members:
            known.stale[member] = []
            known.entered[member] = known.number = 1  # and it has not come there
        await a.renew(s)
        assert await seize(a, s, "lock") is not None

    run(flavour, body)
