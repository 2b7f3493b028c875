"""Multi-locks: what is given back when something fails on the way, and how one lease is many."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import tenure
import tenure.aio
from tenure._runtime.thread import drive
from tenure.errors import (
    AcquireTimeout,
    InvalidArgument,
    InvalidName,
    LeaseLost,
    Unavailable,
    Unsupported,
)

NAMES = ("c", "a", "b")


@pytest.fixture
def space() -> str:
    """A namespace that nobody else uses."""
    return uuid.uuid4().hex


@pytest.fixture
def coordinator(space: str) -> Iterator[tenure.Coordinator]:
    """A coordinator on a store in memory."""
    with tenure.connect("memory://multi", namespace=space, ttl=2) as connected:
        yield connected


@pytest.fixture
def other(space: str) -> Iterator[tenure.Coordinator]:
    """Another coordinator on the same store."""
    with tenure.connect("memory://multi", namespace=space, ttl=2) as connected:
        yield connected


def free(client: tenure.Coordinator, *names: str) -> bool:
    """Whether somebody else could have all of the locks now."""
    lease = client.multi_lock(names).try_acquire()
    if lease is not None:
        lease.release()
    return lease is not None


def test_the_order_is_by_name(coordinator: tenure.Coordinator) -> None:
    """Whatever the order given, they are acquired by name, each once, and released backwards."""
    calls: list[tuple[str, str]] = []
    driver: Any = coordinator._session.driver
    claim, withdraw = driver.claim, driver.withdraw

    async def claimed(session: str, roster: str, *rest: Any) -> Any:
        calls.append(("claim", roster))
        return await claim(session, roster, *rest)

    async def withdrawn(session: str, roster: str, *rest: Any) -> None:
        calls.append(("withdraw", roster))
        await withdraw(session, roster, *rest)

    driver.claim, driver.withdraw = claimed, withdrawn
    with coordinator.multi_lock([*NAMES, "a"]) as lease:
        assert lease.names == ("a", "b", "c")
        assert list(lease.tokens) == ["a", "b", "c"]
    assert calls == [("claim", "a"), ("claim", "b"), ("claim", "c")] + [
        ("withdraw", name) for name in "cba"
    ]


def test_a_failure_on_the_way_gives_back(
    coordinator: tenure.Coordinator, other: tenure.Coordinator
) -> None:
    """An error at the last of the locks leaves none of them held."""
    driver: Any = coordinator._session.driver
    claim = driver.claim

    async def broken(session: str, roster: str, *rest: Any) -> Any:
        if roster == "c":
            raise Unavailable("an experiment")
        return await claim(session, roster, *rest)

    driver.claim = broken
    with pytest.raises(Unavailable, match="an experiment"):
        coordinator.multi_lock(NAMES).try_acquire()
    driver.claim = claim
    assert free(other, *NAMES)


def test_a_session_that_is_lost_on_the_way(
    coordinator: tenure.Coordinator, other: tenure.Coordinator
) -> None:
    """Locks that were lost while the others were acquired are acquired again, all of them."""
    session: Any = coordinator._session
    claim = session.driver.claim
    lives: list[Any] = []

    async def losing(id: str, roster: str, *rest: Any) -> Any:
        if roster == "b" and not lives:
            lives.append(session.alive)
            session.lose(session.alive, "an experiment")
        return await claim(id, roster, *rest)

    session.driver.claim = losing
    lease = coordinator.multi_lock(NAMES).acquire(timeout=10)
    assert lease.held()
    assert {each._life for each in lease._leases} == {session.alive} != set(lives)
    lease.release()
    assert free(other, *NAMES)


def test_a_failed_release_gives_back_the_rest(
    coordinator: tenure.Coordinator, other: tenure.Coordinator
) -> None:
    """When the release of one lock is not confirmed, the others are released, and it is said."""
    lease = coordinator.multi_lock(NAMES).acquire()
    driver: Any = coordinator._session.driver
    withdraw = driver.withdraw

    async def broken(session: str, roster: str, *rest: Any) -> None:
        if roster == "c":
            raise Unavailable("an experiment")
        await withdraw(session, roster, *rest)

    driver.withdraw = broken
    with pytest.raises(Unavailable, match="an experiment"):
        lease.release()
    assert not lease.held()
    assert free(other, "a", "b")
    driver.withdraw = withdraw
    lease.release()
    other.lock("c").acquire(timeout=5).release()


def test_an_interrupted_release_gives_back_the_rest(
    coordinator: tenure.Coordinator, other: tenure.Coordinator
) -> None:
    """A release that is interrupted at the first lock gives back all the others before it ends."""
    lease = coordinator.multi_lock(NAMES).acquire()
    driver: Any = coordinator._session.driver
    withdraw = driver.withdraw

    async def interrupted(session: str, roster: str, *rest: Any) -> None:
        if roster == "c":
            raise KeyboardInterrupt
        await withdraw(session, roster, *rest)

    driver.withdraw = interrupted
    with pytest.raises(KeyboardInterrupt):
        lease.release()
    driver.withdraw = withdraw
    assert free(other, "a", "b")
    other.lock("c").acquire(timeout=5).release()


def test_cancelled_at_every_await(space: str) -> None:
    """An acquire that is cancelled after 0, 1, 2 … steps of the loop leaves none of the locks."""

    async def main() -> None:
        async with (
            tenure.aio.connect("memory://multi", namespace=space, ttl=2) as a,
            tenure.aio.connect("memory://multi", namespace=space, ttl=2) as b,
        ):
            blocker = await b.lock("b").acquire()
            for names in (NAMES, ("d", "e")):
                for steps in range(40):
                    task = asyncio.ensure_future(a.multi_lock(names).acquire(10))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await (await task).release()
            await blocker.release()
            for names in (NAMES, ("d", "e")):
                lease = await b.multi_lock(names).try_acquire()
                assert lease is not None
                await lease.release()

    asyncio.run(main())


def test_the_body_is_cancelled_on_loss(space: str) -> None:
    """In asyncio the loss of one lock cancels the body of `cancel_on_loss`."""

    async def main() -> None:
        async with tenure.aio.connect("memory://multi", namespace=space, ttl=2) as a:
            lease = await a.multi_lock(NAMES).acquire()
            loop, session = asyncio.get_running_loop(), a._session
            assert session.alive is not None
            loop.call_later(0.02, session.lose, session.alive, "an experiment")
            with pytest.raises(LeaseLost, match="an experiment"):
                async with lease.cancel_on_loss():
                    await asyncio.sleep(30)

    asyncio.run(main())


def test_a_lease_of_many_answers_as_one(coordinator: tenure.Coordinator) -> None:
    """State, deadline, signal and repr are those of all of them together."""
    lease = coordinator.multi_lock(NAMES, timeout=1).acquire()
    assert str(lease.state) == "held"
    assert lease.owner == coordinator.owner
    assert tenure.now() < lease.deadline
    assert "'a'=" in repr(lease)
    assert "held" in repr(lease)
    life = lease._leases[0]._life
    life.doubt = "an experiment"
    assert str(lease.state) == "in doubt"
    life.doubt = None
    assert not lease.lost
    assert lease.reason is None
    assert lease.lost.wait(0) is False
    lease.release()
    lease.release()
    assert lease.lost.wait(5) is False, "a wait for a loss ends with the release"
    assert "released" in repr(lease)
    with pytest.raises(LeaseLost, match="it was released"):
        lease.check()


def test_the_loss_of_all_is_told_once(coordinator: tenure.Coordinator) -> None:
    """When the session and with it every lock is lost, the callback is called once."""
    calls: list[Any] = []
    lease = coordinator.multi_lock(NAMES).acquire()
    lease.on_lost(calls.append)

    def broken(lease: object) -> None:
        raise RuntimeError("a broken callback")

    lease.on_lost(broken)
    coordinator._session.lose(lease._leases[0]._life, "an experiment")
    assert calls == [lease]
    lease.on_lost(calls.append)
    assert calls == [lease, lease], "a late callback must be called at once"
    assert lease.lost.wait(0)
    assert "lost: 'a': an experiment" in repr(lease)
    with pytest.raises(LeaseLost) as caught:
        lease.release()
    assert caught.value.lease is lease


def test_a_block_that_loses_says_so(coordinator: tenure.Coordinator) -> None:
    """Leaving a block whose locks were lost raises; an error of the block's own stays."""
    multi = coordinator.multi_lock(NAMES)
    session = coordinator._session
    with pytest.raises(LeaseLost), multi as lease:
        session.lose(lease._leases[0]._life, "an experiment")

    def fail() -> None:
        with multi as lease:
            session.lose(lease._leases[0]._life, "an experiment")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    assert "an experiment" in caught.value.__notes__[0]


def test_it_is_a_decorator(coordinator: tenure.Coordinator, other: tenure.Coordinator) -> None:
    """A decorated function runs while all the locks are held."""
    multi = coordinator.multi_lock(NAMES)
    assert repr(multi) == "<multi-lock 'a', 'b', 'c'>"

    @multi
    def work() -> bool:
        return any(free(other, name) for name in NAMES)

    assert not work()
    assert free(other, *NAMES)


@pytest.mark.parametrize("names", ["abc", [], (), 7, None, [f"{n}" for n in range(1001)]])
def test_names_that_cannot_be(coordinator: tenure.Coordinator, names: Any) -> None:
    """A text is not a list of names, and from 1 to 1,000 are needed."""
    with pytest.raises(InvalidArgument, match="names"):
        coordinator.multi_lock(names)


def test_each_name_is_checked(coordinator: tenure.Coordinator) -> None:
    """Each of the names is one as a lock can have it; a timeout is for all of them."""
    for names in ([""], ["a", 3], [b"a"]):
        with pytest.raises(InvalidName):
            coordinator.multi_lock(names)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        coordinator.multi_lock(["a"], timeout=-1)
    with coordinator.lock("b"), pytest.raises(AcquireTimeout, match="one of"):
        coordinator.multi_lock(NAMES, timeout=0.01).acquire()


def test_a_reader_writer_lock_needs_shared_locks(
    coordinator: tenure.Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the driver has no shared locks, `rwlock` says so, and not only its readers."""
    driver = type(coordinator._session.driver)
    monkeypatch.setattr(driver, "traits", driver.traits._replace(shared=False))
    with pytest.raises(Unsupported, match="shared"):
        coordinator.rwlock("a")


def test_a_close_ends_all(coordinator: tenure.Coordinator, other: tenure.Coordinator) -> None:
    """Closing the coordinator releases all the locks, and the lease knows."""
    lease = coordinator.multi_lock(NAMES).acquire()
    drive(coordinator._session.close())
    assert not lease.held()
    assert free(other, *NAMES)
