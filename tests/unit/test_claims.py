"""Claims in detail: what callbacks are told, what is lost in between, and what is refused."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tenure
from tenure import errors
from tenure._recipes import claims as recipe

SLOTS = [f"s{number}" for number in range(6)]
SECONDS_MAX = 10.0
URL = "memory://claims"

Connect = Callable[..., tenure.Coordinator]


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Coordinators over one store in memory, in a namespace of the test's own."""
    opened = []

    def connect(**options: Any) -> tenure.Coordinator:
        options = {"namespace": request.node.name, "ttl": 1.0} | options
        opened.append(tenure.connect(URL, **options))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def until(condition: Callable[[], object], what: str) -> None:
    give_up = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        threading.Event().wait(0.002)


class Told:
    """The callbacks of one member, and what they were told."""

    def __init__(self) -> None:
        self.news: list[tuple[str, str]] = []
        self.options: Any = {
            "on_gain": lambda slot, lease: self.news.append(("gain", slot)),
            "on_release": lambda slot, lease: self.news.append(("release", slot)),
            "on_lost": lambda slot, lease: self.news.append(("lost", slot)),
        }

    def of(self, kind: str) -> set[str]:
        return {slot for each, slot in self.news if each == kind}


def counted(client: tenure.Coordinator, verb: str) -> list[str]:
    """The rosters of the driver's calls of a verb from now on."""
    calls: list[str] = []
    driver: Any = client._session.driver
    real = getattr(driver, verb)

    async def call(session: str, roster: str, *args: Any) -> Any:
        calls.append(roster)
        return await real(session, roster, *args)

    setattr(driver, verb, call)
    return calls


def test_a_free_slot_costs_one_round_trip(connect: Connect) -> None:
    """Whoever is alone takes many slots with one claim each, and gives each back with one call."""
    client = connect()
    member = client.group("g").join()
    entered, left = counted(client, "claim"), counted(client, "withdraw")
    slots = [f"s{number}" for number in range(200)]
    with member.claims(slots) as claims:
        until(lambda: len(claims.held()) == 200, "all slots")
        assert list(claims.held()) == slots == list(claims.assigned) == list(claims.slots)
        assert len({lease.name for lease in claims.held().values()}) == 200
    assert len(entered) == len(left) == 200
    assert claims.held() == {}
    assert member.held()


def test_what_others_keep_costs_few_tries(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While many slots are taken by others, only some are tried between two waits; what becomes
    free is found."""
    monkeypatch.setattr(recipe, "WAIT_SECONDS", 0.02)
    client, other = connect(), connect()
    slots = [f"s{number}" for number in range(50)]
    keeper = other.group("g").join(member="keeper")
    claims = keeper.claims(slots, ignore={"me"})
    claims.open()
    until(lambda: len(claims.held()) == 50, "all slots")
    me = client.group("g").join(member="me")
    entered = counted(client, "claim")
    with me.claims(slots, ignore={"keeper"}) as mine:
        until(lambda: len(entered) > 60, "some rounds")
        assert len(set(entered)) > 40  # another part of them each time
        assert mine.held() == {}
        free = claims.held()["s49"]
        free.release()
        until(lambda: "s49" in mine.held(), "the free one")
        assert len(set(entered[:20])) == 20
        assert entered[20] == entered[0]  # which it waits for, having tried as many as it may
        claims.close()
        until(lambda: len(mine.held()) == 50, "all of them")


def test_a_failing_callback_keeps_nothing(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of a callback is logged, and the slot is taken or released all the same."""
    client = connect()
    member = client.group("g").join()

    def fail(slot: str, lease: tenure.Lease) -> None:
        raise LookupError(slot)

    with member.claims(["one"], on_gain=fail, on_release=fail) as claims:
        until(lambda: len(caplog.records) == 1, "the first error")
        assert set(claims.held()) == {"one"}
    assert [each.levelno for each in caplog.records] == [logging.ERROR] * 2
    assert client.status() is not None
    with member.claims(["one"]) as claims:
        until(claims.held, "the slot, which must be free")


def test_a_callback_may_close_its_claims(connect: Connect) -> None:
    """Closing from a callback does not wait for itself; the slots go."""
    member = connect().group("g").join()
    closed = threading.Event()

    def close(slot: str, lease: tenure.Lease) -> None:
        claims.close()
        closed.set()

    claims = member.claims(SLOTS, on_gain=close)
    claims.open()
    assert closed.wait(SECONDS_MAX)
    until(lambda: not claims.held(), "the slots to be released")
    with pytest.raises(tenure.ClosedError, match="closed"):
        claims.open()


def test_a_slow_callback_outlives_close(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """`close` waits for a callback for a time; the slot is released when it returns, not before."""
    monkeypatch.setattr(recipe, "CLOSE_SECONDS_MAX", 0.05)
    client, other = connect(), connect()
    finish = threading.Event()
    member = client.group("g").join()
    claims = member.claims(["one"], on_release=lambda slot, lease: finish.wait(SECONDS_MAX))
    claims.open()
    until(claims.held, "the slot")
    until(lambda: all(each.gained for each in claims._recipe._slots.values()), "the callback")
    claims.close()
    assert set(claims.held()) == {"one"}
    with other.group("g").join(member="b").claims(["one"], ignore={member.id}) as others:
        until(lambda: others.assigned == ("one",), "what is due")
        assert others.held() == {}
        finish.set()
        until(others.held, "the slot")


def test_a_lost_session_takes_everything(connect: Connect) -> None:
    """When the session is lost, each slot is told as lost, once and at once, though the backend is
    away; nothing is taken in the next session."""
    client = connect(ttl=60.0)

    async def fail(roster: str) -> Any:
        raise errors.Unavailable("nobody there")

    told = Told()
    member = client.group("g").join()
    with member.claims(SLOTS, **told.options) as claims:
        until(lambda: told.of("gain") == set(SLOTS), "all slots")
        session = client._session
        session.driver.census = fail  # type: ignore[method-assign]
        assert session.alive is not None
        session.lose(session.alive, "an experiment")
        assert claims.held() == {}
        client.lock("another session").acquire()
        until(lambda: told.of("lost") == set(SLOTS), "to be told")
        assert claims.assigned == ()
    assert len(told.news) == 12
    with pytest.raises(tenure.LeaseLost):
        member.claims(SLOTS).open()


def test_a_slot_taken_in_a_later_session_is_not_kept(connect: Connect) -> None:
    """A slot that is granted after the member's session was lost is given back at once."""
    client, other = connect(), connect()
    member = client.group("g").join(member="me")
    keeper = other.group("g").join(member="keeper").claims(["one"], ignore={"me"})
    keeper.open()
    until(keeper.held, "the slot")
    claims = member.claims(["one"], ignore={"keeper"})
    claims.open()
    session = client._session
    recipe_ = claims._recipe
    lock = recipe_._locks["one"]
    real = lock.acquire

    class Losing:
        async def try_acquire(self) -> tenure.Lease | None:
            return None

        async def acquire(self, until: float | None) -> tenure.Lease | None:
            if session.alive is not None and session.alive is member._life:
                session.lose(session.alive, "an experiment")
                keeper.close()
            return await real(until)

    recipe_._locks["one"] = Losing()  # type: ignore[assignment]
    until(lambda: not member.held(), "the loss")
    with other.group("g").join(member="third").claims(["one"], ignore={"me", "keeper"}) as third:
        until(third.held, "the slot, which must be free")
        assert claims.held() == {}
    claims.close()


def test_a_deadline_that_passes_unseen(connect: Connect) -> None:
    """The first to ask may be the claims themselves, just when they deal: that is no deadlock."""
    client = connect()
    member = client.group("g").join()
    with member.claims(SLOTS) as claims:
        until(lambda: len(claims.held()) == 6, "all slots")
        member._life.deadline = -1.0
        done = threading.Thread(target=claims._recipe._assign, daemon=True)
        done.start()
        done.join(SECONDS_MAX)
        assert not done.is_alive()
        assert claims.assigned == ()


def test_a_loss_while_the_slots_are_dealt(connect: Connect) -> None:
    """A loss between the question whether it is a member and the answer what is due is heeded."""
    client = connect()
    member = client.group("g").join()
    with member.claims(SLOTS) as claims:
        until(lambda: len(claims.held()) == 6, "all slots")
        inner = claims._recipe
        real = inner._assigning

        class Losing:
            def __enter__(self) -> None:
                inner._assigning = real
                client._session.lose(member._life, "an experiment")
                real.__enter__()

            def __exit__(self, *error: object) -> None:
                real.__exit__(None, None, None)

        inner._assigning = Losing()  # type: ignore[assignment]
        inner._assign()
        assert claims.assigned == ()


def test_a_slot_that_is_due_again(connect: Connect) -> None:
    """A slot that comes back while its release is awaited is released and taken once more, soon."""
    client, other = connect(ttl=60.0), connect(ttl=60.0)
    begun, finish = threading.Event(), threading.Event()
    told = Told()
    member = client.group("g").join(member="me")

    def wait(slot: str, lease: tenure.Lease) -> None:
        begun.set()
        finish.wait(SECONDS_MAX)

    told.options["on_release"] = wait
    with member.claims(["a", "b"], **told.options) as claims:
        until(lambda: len(told.news) == 2, "both slots")
        tokens = {slot: lease.token for slot, lease in claims.held().items()}
        with other.group("g").join(member="another"):
            until(lambda: len(claims.assigned) == 1, "the other's share")
            (given,) = set(tokens) - set(claims.assigned)
            assert begun.wait(SECONDS_MAX)
        until(lambda: len(claims.assigned) == 2, "it to come back")
        finish.set()
        until(lambda: len(claims.held()) == 2 and len(told.news) == 3, "both again")
        again = {slot: lease.token for slot, lease in claims.held().items()}
        assert again.pop(given) > tokens.pop(given)
        assert again == tokens


def test_a_group_deleted_by_force(connect: Connect) -> None:
    """A member that is removed from its group gives its slots up in good order, and loses the
    membership alone."""
    client, other = connect(), connect()
    told = Told()
    lease = client.lock("something else").acquire()
    member = client.group("g").join()
    with member.claims(SLOTS, **told.options) as claims:
        until(lambda: told.of("gain") == set(SLOTS), "all slots")
        other.group("g").delete(force=True)
        until(lambda: told.of("release") == set(SLOTS), "to be told")
        until(lambda: not claims.held(), "the slots to go")
    assert not member.held()
    assert lease.held()
    assert told.of("lost") == set()


def test_a_slot_that_is_lost_alone_is_told_and_taken_again(connect: Connect) -> None:
    """A lease that somebody released behind the claims' back is noticed, and taken anew."""
    client = connect()
    told = Told()
    member = client.group("g").join()
    with member.claims(["one"], **told.options) as claims:
        until(lambda: told.of("gain"), "the slot")
        token = claims.held()["one"].token
        claims.held()["one"].release()
        claims._recipe._work.set()
        until(lambda: claims.held() and claims.held()["one"].token > token, "another lease")
    assert [kind for kind, _ in told.news] == ["gain", "lost", "gain", "release"]


def test_a_backend_that_is_away(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """While the backend does not answer, that is logged once; afterwards the slots are taken."""
    client = connect()
    member = client.group("g").join()
    driver: Any = client._session.driver
    real, failures = driver.claim, []

    async def fail(*args: Any) -> Any:
        failures.append(args)
        raise errors.Unavailable("nobody there")

    driver.claim = fail
    with member.claims(SLOTS) as claims:
        until(lambda: caplog.records, "the error")
        logged = len(failures)
        until(lambda: len(failures) > 2 * logged + 2, "more tries")
        driver.claim = real
        until(lambda: len(claims.held()) == 6, "all slots")
    (record,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert "cannot take slots of <member" in record.getMessage()


def test_weights_share_unequally(connect: Connect) -> None:
    """A member of twice the weight gets twice as many slots."""
    client, other = connect(), connect()

    def weigh(info: tenure.MemberInfo) -> float:
        return float(info.capabilities)

    small = client.group("g").join(1, member="small")
    large = other.group("g").join(2, member="large")
    with small.claims(SLOTS, weights=weigh) as few, large.claims(SLOTS, weights=weigh) as many:
        until(lambda: (len(few.held()), len(many.held())) == (2, 4), "two and four")
        assert not few.held().keys() & many.held().keys()


def test_what_cannot_be_is_refused(connect: Connect) -> None:
    """Bad slots and callbacks are refused, and the message names them."""
    member = connect().group("g").join()
    bad: Any
    for bad, words in (
        ("slots", "not the one text 'slots'"),
        ([], "from 1 to 10,000 slots, not 0"),
        (["a", "b", "a"], "the slot 'a' is named twice"),
        (["a", ""], "a slot has from 1 to 1,000 characters"),
        ([7], "a slot is text, not int"),
    ):
        with pytest.raises(tenure.InvalidArgument, match=words):
            member.claims(bad)
    with pytest.raises(tenure.InvalidArgument, match="a callback is a function"):
        member.claims(["a"], on_gain="print")  # type: ignore[arg-type]
    with pytest.raises(tenure.InvalidArgument, match="weights must be a function"):
        member.claims(["a"], weights=2)  # type: ignore[arg-type]
    member.leave()
    with pytest.raises(tenure.LeaseLost, match="it was released"):
        member.claims(["a"]).open()


def test_eyes_can_read_them(connect: Connect) -> None:
    """Claims show whose they are, and what is held by which token."""
    member = connect().group("g").join(member="w1")
    with member.claims(["a", "b"]) as claims:
        until(lambda: len(claims.held()) == 2, "both")
        assert (claims.group, claims.member) == ("g", "w1")
        assert repr(claims) == (
            "<claims of 'w1' in 'g': 2 held, 2 due of 2: 'a' (token 1), 'b' (token 1)>"
        )
    assert repr(claims) == "<claims of 'w1' in 'g', closed: 0 held, 0 due of 2>"
