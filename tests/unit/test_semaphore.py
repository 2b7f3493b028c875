"""Semaphores: round trips, limits that change under way, bad input, and their ends."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tenure
import tenure.aio
from tenure._recipes import semaphore as recipe
from tenure._runtime.thread import drive
from tenure.errors import (
    AcquireTimeout,
    ClosedError,
    InvalidArgument,
    InvalidName,
    LeaseLost,
    LimitMismatch,
    SessionLost,
    Unavailable,
)


@pytest.fixture
def space() -> str:
    """A namespace that nobody else uses."""
    return uuid.uuid4().hex


@pytest.fixture
def coordinator(space: str) -> Iterator[tenure.Coordinator]:
    """A coordinator on a store in memory."""
    with tenure.connect("memory://semaphores", namespace=space, ttl=2) as connected:
        yield connected


@pytest.fixture
def other(space: str) -> Iterator[tenure.Coordinator]:
    """Another coordinator on the same store."""
    with tenure.connect("memory://semaphores", namespace=space, ttl=2) as connected:
        yield connected


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, for ten seconds at most."""
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.001)


def counted(coordinator: tenure.Coordinator) -> list[str]:
    """The verbs that the coordinator's driver is asked for from now on."""
    driver: Any = coordinator._session.driver
    verbs: list[str] = []

    def count(verb: str) -> None:
        call = getattr(driver, verb)

        async def counting(*arguments: Any) -> Any:
            verbs.append(verb)
            return await call(*arguments)

        setattr(driver, verb, counting)

    for verb in ("claim", "withdraw", "read", "recall", "record", "census", "start"):
        count(verb)
    return verbs


def test_round_trips(coordinator: tenure.Coordinator) -> None:
    """An acquire costs two round trips, a release one, a failed try two; also for an object that
    is new."""
    coordinator.semaphore("s", 1).acquire().release()
    verbs = counted(coordinator)
    permit = coordinator.semaphore("s", 1).acquire()
    assert verbs == ["claim", "recall"]
    assert coordinator.semaphore("s").try_acquire() is None
    assert verbs == ["claim", "recall"] * 2
    permit.release()
    assert verbs == [*["claim", "recall"] * 2, "withdraw"]


def test_a_mismatch_is_found_before_anything_is_claimed(
    coordinator: tenure.Coordinator, other: tenure.Coordinator
) -> None:
    """A limit that is not the one set is refused by reading alone."""
    other.semaphore("s", 2).acquire().release()
    verbs = counted(coordinator)
    with pytest.raises(LimitMismatch):
        coordinator.semaphore("s", 3).acquire()
    assert verbs == ["recall"]


def test_a_user_that_agreed_once_follows_a_resize(
    coordinator: tenure.Coordinator, other: tenure.Coordinator
) -> None:
    """Who agreed with the limit when it began goes on after a resize; who begins then does not."""
    semaphore = coordinator.semaphore("s", 1)
    held = semaphore.acquire()
    other.semaphore("s").resize(2)
    second = semaphore.try_acquire()
    assert second is not None
    with pytest.raises(LimitMismatch) as caught:
        coordinator.semaphore("s", 1).try_acquire()
    assert (caught.value.given, caught.value.found) == (1, 2)
    held.release()
    second.release()


def test_a_hint_that_is_wrong_leaves_nothing(
    coordinator: tenure.Coordinator, other: tenure.Coordinator
) -> None:
    """A limit that was changed since it was read last is found after the claim, which goes."""
    coordinator.semaphore("s", 5).acquire().release()
    other.semaphore("s").resize(1)
    held = other.semaphore("s").acquire()
    with pytest.raises(LimitMismatch):
        coordinator.semaphore("s", 5).acquire()
    assert coordinator.semaphore("s").try_acquire() is None
    session = coordinator._session
    census = drive(session.driver.census("@semaphore/s"))
    assert [claim.token for claim in census] == [held.token]


def test_a_shrink_between_claim_and_verdict_counts(
    coordinator: tenure.Coordinator, other: tenure.Coordinator
) -> None:
    """A permit that the limit had room for when it was claimed is not granted if it has none when
    the limit is read."""
    first = other.semaphore("s", 2).acquire()
    semaphore = coordinator.semaphore("s", 2)
    semaphore.acquire().release()
    driver: Any = coordinator._session.driver
    claim = driver.claim

    async def claimed(*arguments: Any) -> Any:
        roll = await claim(*arguments)
        other.semaphore("s").resize(1)
        return roll

    driver.claim = claimed
    assert semaphore.try_acquire() is None
    with pytest.raises(AcquireTimeout):
        semaphore.acquire(timeout=0.05)
    first.release()
    assert len(drive(driver.census("@semaphore/s"))) == 0


def test_waiters_go_through_one_gate_and_tries_do_not(coordinator: tenure.Coordinator) -> None:
    """Of many local waiters one stands at the backend; granted, it lets the next one ask."""
    semaphore = coordinator.semaphore("s", 2)
    held = [semaphore.acquire(), semaphore.acquire()]
    gates = coordinator._session.gates
    assert not gates._gates, "a holder stays in the gate"
    granted: list[Any] = []
    threads = [
        threading.Thread(target=lambda: granted.append(semaphore.acquire(timeout=10)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    driver = coordinator._session.driver
    until(lambda: gates.waiting("@semaphore/s") == 3)
    until(lambda: len(drive(driver.census("@semaphore/s"))) == 3)
    assert len(drive(driver.census("@semaphore/s"))) == 3
    semaphore.resize(7)
    for thread in threads:
        thread.join(10)
    assert len(granted) == 4
    held.append(semaphore.try_acquire())  # type: ignore[arg-type]
    assert semaphore.try_acquire() is None
    for permit in (*held, *granted):
        permit.release()
    assert not gates._gates


def test_a_permit_of_a_wider_time_wakes_by_the_present_limit(
    coordinator: tenure.Coordinator, other: tenure.Coordinator
) -> None:
    """A release after a shrink withdraws with the width that its coordinator knows of now."""
    semaphore = coordinator.semaphore("s", 3)
    permit = semaphore.acquire()
    semaphore.resize(2)
    widths: list[int] = []
    driver: Any = coordinator._session.driver
    withdraw = driver.withdraw

    async def noted(session: str, roster: str, id: str, width: int = 1) -> None:
        widths.append(width)
        await withdraw(session, roster, id, width)

    driver.withdraw = noted
    permit.release()
    assert widths == [2]


def test_a_limit_that_is_lost_is_set_anew(coordinator: tenure.Coordinator) -> None:
    """When the backend has lost the record, who gave a limit sets it; who did not, is told."""
    semaphore = coordinator.semaphore("s", 2)
    semaphore.acquire().release()
    driver = coordinator._session.driver
    record = drive(driver.recall("@semaphore/s"))
    assert record is not None
    drive(driver.record("@semaphore/s", None, record.version))
    with pytest.raises(InvalidArgument, match="no limit yet"):
        coordinator.semaphore("s").acquire()
    semaphore.acquire().release()
    assert semaphore.limit() == 2


def test_a_session_that_is_lost_while_waiting(
    coordinator: tenure.Coordinator, other: tenure.Coordinator
) -> None:
    """A waiter whose session was lost is granted in a new one; the permits of the old are lost."""
    held = other.semaphore("s", 1).acquire()
    granted: list[Any] = []
    semaphore = coordinator.semaphore("s", 1)
    thread = threading.Thread(target=lambda: granted.append(semaphore.acquire(timeout=10)))
    thread.start()
    session = coordinator._session
    until(lambda: session.alive is not None and session.alive.waiters)
    old = session.alive
    assert old is not None
    session.lose(old, "an experiment")
    held.release()
    thread.join(10)
    assert granted[0]._life is not old
    session.lose(granted[0]._life, "another")
    assert granted[0].state is tenure.State.LOST
    with pytest.raises(LeaseLost):
        granted[0].release()
    assert "lost: another" in repr(granted[0])


@pytest.mark.parametrize("error", [Unavailable("away"), SessionLost("gone")])
def test_a_limit_that_cannot_be_read_leaves_nothing(
    coordinator: tenure.Coordinator, error: Exception
) -> None:
    """When the limit cannot be read after the claim, the claim is withdrawn, soon at the latest."""
    semaphore = coordinator.semaphore("s", 2)
    semaphore.acquire().release()
    driver: Any = coordinator._session.driver
    recall, times = driver.recall, 0

    async def broken(name: str) -> Any:
        nonlocal times
        times += 1
        raise error

    driver.recall = broken
    with pytest.raises(Unavailable):
        semaphore.try_acquire()
    assert times
    driver.recall = recall
    until(lambda: not drive(driver.census("@semaphore/s")))
    semaphore.acquire(timeout=5).release()


def test_closing_turns_waiters_away(
    coordinator: tenure.Coordinator, other: tenure.Coordinator
) -> None:
    """A coordinator that is closed frees its permits, and its waiters hear of it."""
    held = other.semaphore("s", 1).acquire()
    ends: list[BaseException] = []

    def wait() -> None:
        try:
            coordinator.semaphore("s", 1).acquire()
        except ClosedError as error:
            ends.append(error)

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: coordinator._session.gates.waiting("@semaphore/s"))
    coordinator.close()
    for thread in threads:
        thread.join(10)
    assert len(ends) == 2
    assert len(drive(other._session.driver.census("@semaphore/s"))) == 1
    held.release()
    with pytest.raises(ClosedError):
        coordinator.semaphore("s", 1).try_acquire()


@pytest.mark.parametrize("limit", [0, -1, 10_001, True, 2.0, "2"])
def test_limits_that_cannot_be(coordinator: tenure.Coordinator, limit: Any) -> None:
    """A limit is an integer from 1 to 10,000, when it is given and when it is changed."""
    with pytest.raises(InvalidArgument, match="1 to 10,000"):
        coordinator.semaphore("s", limit)
    with pytest.raises(InvalidArgument, match="limit"):
        coordinator.semaphore("s").resize(limit)
    assert coordinator.semaphore("s").limit() is None


def test_names_and_timeouts_are_checked(coordinator: tenure.Coordinator) -> None:
    """A semaphore's name and timeout are checked as a lock's are, at once."""
    with pytest.raises(InvalidName):
        coordinator.semaphore("", 1)
    with pytest.raises(InvalidArgument):
        coordinator.semaphore("s", 1, timeout=-1)
    semaphore = coordinator.semaphore("s", 1, timeout=0.01)
    with semaphore, pytest.raises(AcquireTimeout, match="no permit left after"):
        semaphore.acquire()


def test_hints_have_a_bound(
    coordinator: tenure.Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that uses names without end remembers the limits of so many."""
    monkeypatch.setattr(recipe, "HINTS_MAX", 3)
    for number in range(10):
        coordinator.semaphore(f"s{number}", 1).acquire().release()
    assert len(coordinator._session.limits) <= 3


def test_it_tells_what_it_is(coordinator: tenure.Coordinator) -> None:
    """The reprs name the kind, the name, the limit and the token."""
    semaphore = coordinator.semaphore("nightly", 2)
    assert repr(semaphore) == "<semaphore 'nightly' limit=2>"
    assert repr(coordinator.semaphore("nightly")) == "<semaphore 'nightly'>"
    with semaphore as permit:
        assert repr(permit).startswith(f"<permit 'nightly' token={permit.token} owner=")
        assert isinstance(permit, tenure.Permit)
        assert isinstance(permit, tenure.Lease)

    @semaphore
    def work() -> int:
        return len(drive(coordinator._session.driver.census("@semaphore/nightly")))

    assert work() == 1


def test_growth_wakes(
    coordinator: tenure.Coordinator, other: tenure.Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits hears of a limit that rises, and does not depend on looking from time to time."""
    driver = type(coordinator._session.driver)
    monkeypatch.setattr(driver, "traits", driver.traits._replace(poll=60.0))
    held = other.semaphore("s", 1).acquire()
    granted: list[Any] = []
    semaphore = coordinator.semaphore("s", 1)
    thread = threading.Thread(target=lambda: granted.append(semaphore.acquire(timeout=20)))
    thread.start()
    store: Any = coordinator._session.driver
    until(lambda: any(key[1] == "@semaphore/s" for key in store._store.watchers))
    began = time.monotonic()
    other.semaphore("s").resize(2)
    thread.join(20)
    assert time.monotonic() - began < 10
    assert len(granted) == 1
    assert not store._store.watchers, "somebody still listens"
    held.release()
