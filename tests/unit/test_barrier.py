"""Barriers and latches: what crosses, what is lost on the way, and bad input."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tenure
import tenure.aio
from tenure._model import Claim
from tenure._recipes.barrier import FORGOTTEN, SKIPPED, WAITS, opened, standing
from tenure._runtime.thread import drive
from tenure.errors import (
    ClosedError,
    InvalidArgument,
    LimitMismatch,
    OutcomeUnknown,
    Unavailable,
    WaitTimeout,
)

ROSTER = "@barrier/b"


@pytest.fixture
def space() -> str:
    """A namespace that nobody else uses."""
    return uuid.uuid4().hex


@pytest.fixture
def clients(space: str) -> Iterator[list[tenure.Coordinator]]:
    """Three coordinators on one store in memory."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(tenure.connect("memory://barriers", namespace=space, ttl=2))
            for _ in range(3)
        ]


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, for ten seconds at most."""
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.001)


class Waiting:
    """A wait at a barrier in a thread of its own."""

    def __init__(self, barrier: tenure.Barrier, timeout: float | None = 10) -> None:
        self.place: int | None = None
        self.error: Exception | None = None

        def wait() -> None:
            try:
                self.place = barrier.wait(timeout)
            except tenure.TenureError as error:
                self.error = error

        self.thread = threading.Thread(target=wait)
        self.thread.start()

    def end(self) -> int | Exception | None:
        """What became of it."""
        self.thread.join(15)
        assert not self.thread.is_alive()
        return self.error or self.place


def claims(client: tenure.Coordinator) -> list[Claim]:
    """The claims at the barrier."""
    return list(drive(client._session.driver.census(ROSTER)))


def entry(upto: int, *trips: list[int]) -> dict[str, Any]:
    return {"parties": 2, "upto": upto, "trips": list(trips)}


def present(*tokens: int) -> list[Claim]:
    return [Claim("b", str(token), "s", token) for token in tokens]


def test_where_a_party_stands() -> None:
    """From the record alone: it waits, or has a place, or was gone, or nobody remembers."""
    record = entry(9, [0, 2, 3], [5, 6, 9])
    assert [standing(record, token) for token in (2, 3, 6, 9)] == [0, 1, 0, 1]
    assert standing(record, 10) == WAITS
    assert [standing(record, token) for token in (1, 7, 8)] == [SKIPPED] * 3
    assert [standing(record, token) for token in (4, 5)] == [FORGOTTEN] * 2


def test_who_is_let_through() -> None:
    """As many as must come, from the front, in groups; those who have passed do not count."""
    assert opened(entry(0), present(4), 2) is None
    assert opened(entry(4, [0, 2, 4]), present(2, 4, 7), 2) is None
    assert opened(entry(0), present(4, 6, 7), 2) == entry(6, [0, 4, 6])
    assert opened(entry(0), present(4, 6, 7, 9, 11), 2) == entry(9, [0, 4, 6], [6, 7, 9])


def test_what_is_remembered() -> None:
    """A group is remembered while one of it is there, and the last group always."""
    record = entry(9, [0, 1, 2], [2, 3, 4], [4, 8, 9])
    made = opened(record, present(4, 10, 12), 2)
    assert made == entry(12, [2, 3, 4], [4, 8, 9], [9, 10, 12])
    made = opened(entry(12, *made["trips"]), present(15, 16), 2)
    assert made == entry(16, [9, 10, 12], [12, 15, 16])


def test_who_gave_up_under_the_others_eyes_does_not_count(
    clients: list[tenure.Coordinator],
) -> None:
    """A party is seen by another, and leaves before that one can let them through: neither
    passes."""
    a, b, _ = clients
    b.barrier("b", 2).waiting()
    first = Waiting(a.barrier("b", 2), 0.1)
    until(lambda: claims(a))
    driver: Any = b._session.driver
    census = driver.census

    async def stale(roster: str) -> Any:
        seen = await census(roster)
        driver.census = census
        first.thread.join(10)
        return seen

    async def nobody(roster: str) -> Any:
        return ()

    driver.census, a._session.driver.census = stale, nobody  # type: ignore[method-assign]
    with pytest.raises(WaitTimeout):
        b.barrier("b", 2).wait(0.3)
    assert isinstance(first.end(), WaitTimeout)


def test_who_gives_up_too_late_has_passed(clients: list[tenure.Coordinator]) -> None:
    """A party that the others took with them while it gave up returns its place, not an error."""
    a, b, _ = clients
    driver: Any = a._session.driver
    withdraw = driver.withdraw
    second: list[Waiting] = []

    async def late(*arguments: Any) -> None:
        driver.withdraw = withdraw
        second.append(Waiting(b.barrier("b", 2)))
        second[0].thread.join(10)
        await withdraw(*arguments)

    driver.withdraw = late
    assert a.barrier("b", 2).wait(0.05) == 0
    assert second[0].end() == 1
    assert not claims(a)


def test_a_lost_session_comes_again_and_counts_once(clients: list[tenure.Coordinator]) -> None:
    """A party whose session is lost while it waits enters anew, and is one party, not two."""
    a, b, c = clients
    first = Waiting(a.barrier("b", 3))
    until(lambda: claims(a))
    old = claims(a)[0]
    life = a._session.alive
    assert life is not None
    a._session.lose(life, "an experiment")
    until(lambda: claims(a) and claims(a)[0].token > old.token)
    assert len(claims(a)) == 1
    second = Waiting(b.barrier("b", 3))
    until(lambda: len(claims(a)) == 2)
    assert first.place is None
    third = Waiting(c.barrier("b", 3))
    assert sorted(map(str, (first.end(), second.end(), third.end()))) == ["0", "1", "2"]


def test_a_session_that_is_lost_after_it_was_let_through(
    clients: list[tenure.Coordinator],
) -> None:
    """A party that was let through, and lost its session before it knew, finds its place."""
    a, b, _ = clients
    session = a._session
    first = Waiting(a.barrier("b", 2))
    until(lambda: session.watchers)
    life = session.alive
    assert life is not None
    look, deaf = session.driver.recall, True

    async def unheard(name: str) -> Any:
        if deaf and life.reason is None:
            until(lambda: life.reason is not None)
            raise Unavailable("away")
        return await look(name)

    session.driver.recall = unheard  # type: ignore[method-assign]
    assert b.barrier("b", 2).wait(5) == 1
    session.lose(life, "an experiment")
    assert first.end() == 0


def test_what_cannot_be_told_is_not_guessed(clients: list[tenure.Coordinator]) -> None:
    """A party whose claim was lost, and of whose group nothing is remembered, is told so."""
    a, b, _ = clients
    b.barrier("b", 2).waiting()
    driver: Any = a._session.driver
    claim = driver.claim

    async def claimed(*arguments: Any) -> Any:
        roll = await claim(*arguments)
        record = await driver.recall(ROSTER)
        text = '{"parties":2,"upto":99,"trips":[[90,98,99]]}'
        await driver.record(ROSTER, text, record.version)
        return roll

    driver.claim = claimed
    with pytest.raises(OutcomeUnknown, match="let through"):
        a.barrier("b", 2).wait(1)
    until(lambda: not claims(b))


def test_a_claim_that_was_gone_comes_anew(clients: list[tenure.Coordinator]) -> None:
    """A party whose claim somebody removed, and that the others passed by, enters again."""
    a, b, c = clients
    first = Waiting(a.barrier("b", 2))
    until(lambda: a._session.watchers)
    mine = claims(a)[0]
    drive(b._session.driver.withdraw(mine.session, ROSTER, mine.id))
    second, third = Waiting(b.barrier("b", 2)), Waiting(c.barrier("b", 2))
    assert sorted(map(str, (second.end(), third.end()))) == ["0", "1"]
    life = a._session.alive
    until(lambda: claims(a) and claims(a)[0].token > mine.token)
    assert a._session.alive is life, "one claim cost the session"
    assert b.barrier("b", 2).wait(5) == 1
    assert first.end() == 0


def test_a_backend_that_stays_away(clients: list[tenure.Coordinator]) -> None:
    """When the backend is lost while one waits, the outcome is unknown; the claim goes."""
    a, b, _ = clients
    driver: Any = a._session.driver
    b.barrier("b", 2).waiting()
    recall = driver.recall

    async def away(name: str) -> Any:
        raise Unavailable("away")

    waiting = Waiting(a.barrier("b", 2), 1)
    until(lambda: claims(b))
    until(lambda: a._session.watchers)
    driver.recall = away
    assert isinstance(waiting.end(), OutcomeUnknown)
    driver.recall = recall
    until(lambda: not claims(b))


def test_the_last_to_come_may_be_stopped(clients: list[tenure.Coordinator]) -> None:
    """When the last to come cannot let the others through, the first finds out by itself."""
    a, b, _ = clients
    first = Waiting(a.barrier("b", 2))
    until(lambda: a._session.watchers)
    driver: Any = b._session.driver
    goes_on = threading.Event()
    recall = driver.recall

    async def stopped(name: str) -> Any:
        if claims(a)[1:]:
            goes_on.wait(10)
        return await recall(name)

    driver.recall = stopped
    second = Waiting(b.barrier("b", 2))
    assert first.end() == 0
    goes_on.set()
    assert second.end() == 1


def test_closing_turns_away(clients: list[tenure.Coordinator]) -> None:
    """Who waits at a barrier or a latch hears that the coordinator is closed; no claim stays."""
    a, b, _ = clients
    at_barrier = Waiting(a.barrier("b", 2), None)
    ended: list[Exception] = []

    def at_latch() -> None:
        try:
            a.latch("l", 2).wait()
        except ClosedError as error:
            ended.append(error)

    thread = threading.Thread(target=at_latch)
    thread.start()
    until(lambda: len(a._session.watchers) == 2)
    a.close()
    assert isinstance(at_barrier.end(), ClosedError)
    thread.join(10)
    assert ended
    assert not claims(b)
    for call in (a.barrier("b", 2).wait, a.latch("l", 2).count, a.latch("l", 2).count_down):
        with pytest.raises(ClosedError):
            call()


def test_cancelled_at_every_await(space: str) -> None:
    """A wait that is cancelled after 0, 1, 2 … steps of the loop leaves no claim, and others meet
    without it."""

    async def main() -> None:
        async with (
            tenure.aio.connect("memory://barriers", namespace=space, ttl=2) as a,
            tenure.aio.connect("memory://barriers", namespace=space, ttl=2) as b,
        ):
            barrier = a.barrier("b", 2)
            for steps in range(60):
                task = asyncio.ensure_future(barrier.wait(10))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                assert not await a._session.driver.census(ROSTER)
            places = await asyncio.gather(barrier.wait(5), b.barrier("b", 2).wait(5))
            assert sorted(places) == [0, 1]
            assert not a._session.watchers

    asyncio.run(main())


def test_round_trips(clients: list[tenure.Coordinator]) -> None:
    """The last to come asks four times: it enters, reads both, lets through, and leaves one."""
    a, b, _ = clients
    b.barrier("b", 2).waiting()
    first = Waiting(a.barrier("b", 2))
    until(lambda: a._session.watchers)
    verbs: list[str] = []
    driver: Any = b._session.driver

    def count(verb: str) -> None:
        call = getattr(driver, verb)

        async def counting(*arguments: Any) -> Any:
            verbs.append(verb)
            return await call(*arguments)

        setattr(driver, verb, counting)

    drive(b._session.life())
    barrier = b.barrier("b", 2)
    barrier.waiting()
    for verb in ("claim", "withdraw", "read", "recall", "record", "census"):
        count(verb)
    barrier.wait(5)
    assert verbs == ["claim", "recall", "census", "record", "recall", "withdraw"]
    first.end()


@pytest.mark.parametrize("number", [0, -1, 1_000_001, True, 1.0, "1", None])
def test_numbers_that_cannot_be(clients: list[tenure.Coordinator], number: Any) -> None:
    """Parties and counts are integers from 1."""
    a = clients[0]
    with pytest.raises(InvalidArgument, match="number of parties"):
        a.barrier("b", number)
    if number is not None:
        for call in (lambda: a.latch("l", number), lambda: a.latch("l").reset(number)):
            with pytest.raises(InvalidArgument, match="count"):
                call()
    with pytest.raises(InvalidArgument, match="number"):
        a.latch("l", 3).count_down(number)


def test_parties_and_counts_are_agreed_upon(clients: list[tenure.Coordinator]) -> None:
    """Another number than is in use is refused with both, and leaves nothing."""
    a, b, _ = clients
    a.barrier("b", 2).waiting()
    for call in (b.barrier("b", 3).wait, b.barrier("b", 3).waiting):
        with pytest.raises(LimitMismatch) as caught:
            call()
        assert (caught.value.given, caught.value.found) == (3, 2)
    assert not claims(a)
    a.latch("l", 2).count_down()
    for wrong in (b.latch("l", 3).count, b.latch("l", 3).count_down, b.latch("l", 3).wait):
        with pytest.raises(LimitMismatch, match="count of 2, not of 3"):
            wrong()
    with pytest.raises(InvalidArgument, match="no count yet"):
        a.latch("other").count_down()
    with pytest.raises(InvalidArgument, match="no count yet"):
        a.latch("other").reset()
    a.latch("other").reset(4)
    assert b.latch("other").count() == 4


def test_an_opening_that_was_undone_is_not_missed(clients: list[tenure.Coordinator]) -> None:
    """Who waits at a latch passes if it was open meanwhile, even if it is closed when it looks."""
    a, b, _ = clients
    latch = b.latch("l", 1)
    latch.reset()
    session = a._session
    passed = threading.Event()

    def wait() -> None:
        a.latch("l", 1).wait(10)
        passed.set()

    recall, gate = session.driver.recall, threading.Event()
    reads = 0

    async def slow(name: str) -> Any:
        nonlocal reads
        reads += 1
        if reads > 2:
            gate.wait(10)
        return await recall(name)

    session.driver.recall = slow  # type: ignore[method-assign]
    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: reads >= 2)
    latch.count_down()
    latch.reset()
    gate.set()
    thread.join(10)
    assert passed.is_set()
    assert latch.count() == 1
    assert not session.watchers, "it still listens"


def test_they_tell_what_they_are(clients: list[tenure.Coordinator]) -> None:
    """The reprs name the kind, the name and the number."""
    a = clients[0]
    assert repr(a.barrier("b", 2)) == "<barrier 'b' parties=2>"
    assert repr(a.latch("l", 2)) == "<latch 'l' count=2>"
    assert repr(a.latch("l")) == "<latch 'l'>"
