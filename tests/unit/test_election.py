"""Elections beyond what the kit asks of every driver: lost replies, races, and what is refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tenure
import tenure.aio
from tenure import errors
from tenure._model import Claim
from tenure._recipes import candidates, election

LIMIT = 10.0
TTL = 1.0
ROSTERS = ("@election/job", "@leader/job", "@candidate/job")


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition to come true."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.002)


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """A store of the test's own."""
    return f"memory://{request.node.name.partition('[')[0].replace('_', '-')}"


@pytest.fixture
def connect(url: str) -> Iterator[Callable[[str], tenure.Coordinator]]:
    """Coordinators by the names of their owners, closed at the end."""
    opened: list[tenure.Coordinator] = []

    def opener(owner: str) -> tenure.Coordinator:
        opened.append(tenure.connect(url, owner=owner, ttl=TTL))
        return opened[-1]

    yield opener
    for client in opened:
        client.close()


Connect = Callable[[str], tenure.Coordinator]


def drive(work: Any) -> Any:
    """Run a driver's coroutine, which never suspends here."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it suspended")


def claims(client: tenure.Coordinator) -> int:
    """How many claims the election has at the backend."""
    return sum(len(drive(client._session.driver.census(roster))) for roster in ROSTERS)


def failing(
    client: tenure.Coordinator,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    times: int,
    *,
    done: bool = True,
) -> list[int]:
    """Have the replies of a driver's verb be lost so many times; returns a list of the calls."""
    driver = client._session.driver
    real = getattr(driver, verb)
    calls: list[int] = []

    async def lossy(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > times:
            return await real(*arguments)
        if done:
            await real(*arguments)
            raise errors.OutcomeUnknown("no reply")
        raise errors.Unavailable("no route")

    monkeypatch.setattr(driver, verb, lossy)
    return calls


def campaigning(client: tenure.Coordinator) -> tuple[threading.Thread, list[tenure.Term]]:
    """A campaign in a thread, once it is listed."""
    won: list[tenure.Term] = []
    the_election = client.election("job")
    thread = threading.Thread(target=lambda: won.append(the_election.campaign(LIMIT)))
    thread.start()
    until(lambda: client.owner in [each.owner for each in the_election.candidates()])
    return thread, won


# -- pure readings ---------------------------------------------------------------


def claim(body: str, token: int = 1, owner: str = "me") -> Claim:
    return Claim("@leader/job", f"id-{token}", "session", token, owner, body)


def test_foreign_claims_are_nobody() -> None:
    """What Tenure has not written is neither a leader, nor a candidate, nor a nomination."""
    foreign = [
        claim(body, token)
        for token, body in enumerate(
            ("", "{", "[]", "null", '"text"', "{}", '{"token": "7"}', '{"since": "x"}')
        )
    ]
    assert election.leader(foreign) is None
    assert candidates.candidates(foreign) == ()
    assert candidates.nomination(foreign) is None


def test_the_greatest_token_leads() -> None:
    """Of two posts, one of which is dying, that of the later term counts, wherever it stands."""
    posts = [
        claim('{"token": 9, "since": 2, "value": "new"}', 1, "new"),
        claim('{"token": 8, "since": 1, "value": "old"}', 2, "old"),
    ]
    assert election.leader(posts) == tenure.Leader("new", 9, "new", 2)
    assert election.leader(reversed(posts)) == tenure.Leader("new", 9, "new", 2)


def test_the_newest_nomination_counts_while_its_heir_waits() -> None:
    """A nomination whose heir is gone is void, and does not bring back an older one."""
    waiting = claim('{"since": 1}', 1)
    older = claim('{"heir": "id-1", "seconds": 5}', 2)
    newer = claim('{"heir": "id-9", "seconds": 5}', 3)
    found = candidates.nomination([waiting, older])
    assert found == candidates.Nomination("id-2", "id-1", 5)
    assert candidates.nomination([waiting, older, newer]) is None
    assert candidates.nomination([older]) is None


# -- what is refused ----------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), {1, 2}, {"key": b""}, {3: "x"}, "x" * 70_000])
def test_a_value_that_cannot_be_is_refused_first(connect: Connect, bad: Any) -> None:
    """A bad value is refused before anything is asked of the backend; the message says value."""
    client = connect("me")
    for call in (client.election("job").campaign, client.election("job").try_campaign):
        with pytest.raises(tenure.InvalidArgument, match="value"):
            call(value=bad)
    assert claims(client) == 0


def test_bad_names_and_timeouts(connect: Connect) -> None:
    """Names and timeouts are checked as for locks."""
    client = connect("me")
    with pytest.raises(tenure.InvalidName, match="1 to 1,000"):
        client.election("")
    with pytest.raises(tenure.InvalidArgument, match="timeout"):
        client.election("job").campaign(-1)
    with client.election("job").campaign() as term, pytest.raises(tenure.InvalidArgument):
        term.stand_down(to="me", timeout=-1)


def test_what_is_what(connect: Connect) -> None:
    """The repr of election, term and watch tell what is held, by whom, with which token."""
    client = connect("me")
    the_election = client.election("job")
    assert repr(the_election) == "<election 'job'>"
    with the_election.campaign() as term, the_election.observe() as watch:
        assert repr(term).startswith(f"<term 'job' token={term.token} owner='me' held")
        assert watch.wait(LIMIT)
        assert "owner='me'" in repr(watch)
    assert "released" in repr(term)
    assert "closed" in repr(watch)


def test_the_import_is_late() -> None:
    """`import tenure` does not load what elections need; asking for a name does."""
    code = (
        "import sys, tenure\n"
        "assert 'tenure._recipes.election' not in sys.modules\n"
        "tenure.Election, tenure.Term\n"
        "assert 'tenure._recipes.election' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- lost replies -------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["claim", "census", "withdraw"])
@pytest.mark.parametrize("done", [True, False])
def test_lost_replies_harm_nothing(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, verb: str, done: bool
) -> None:
    """Whichever reply is lost, carried out or not, one leads, and nothing is left in the end."""
    client, other = connect("me"), connect("other")
    calls = failing(client, monkeypatch, verb, 1, done=done)
    term = client.election("job").campaign(LIMIT)
    leader = other.election("job").leader()
    assert leader is not None
    assert leader.token == term.token
    term.resign()
    assert len(calls) > 1, "the fault did not bite"
    until(lambda: claims(other) == 0)
    other.election("job").campaign(LIMIT).resign()


def test_a_publication_whose_reply_was_lost_is_found_again(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a publication that failed although it was carried out, the next one succeeds."""
    client = connect("me")
    the_election = client.election("job")
    with the_election.campaign(value=1) as term:
        failing(client, monkeypatch, "amend", 1)
        monkeypatch.setattr(client._session, "retry", _once)
        with pytest.raises(tenure.OutcomeUnknown):
            term.publish(2)
        monkeypatch.undo()
        leader = the_election.leader()
        assert leader is not None
        assert (leader.value, term.value) == (2, 1)
        term.publish(3)
        leader = the_election.leader()
        assert leader is not None
        assert leader.value == term.value == 3
        term.check()


async def _once(life: Any, call: Callable[[], Any], until: Any, budget: float) -> Any:
    return await call()


def test_who_cannot_look_does_not_lead(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it cannot be known whether somebody was chosen, the lock is given back."""
    client, other = connect("me"), connect("other")
    failing(client, monkeypatch, "census", 1000, done=False)
    with pytest.raises(tenure.Unavailable):
        client.election("job").try_campaign()
    other.election("job").campaign(LIMIT).resign()


def test_publishing_while_resigning(connect: Connect) -> None:
    """A publication that races with the end fails by itself: the session lives on."""
    client = connect("me")
    lease = client.lock("beside").acquire()
    for _ in range(50):
        term = client.election("job").campaign(LIMIT)
        outcomes: list[Exception] = []
        publisher = threading.Thread(target=lambda t=term, o=outcomes: _publish_on(t, o))
        publisher.start()
        term.resign()
        publisher.join()
        assert [type(each) for each in outcomes] == [tenure.LeaseLost]
        lease.check()
    assert claims(client) == 0
    lease.release()


def _publish_on(term: tenure.Term, outcomes: list[Exception]) -> None:
    number = 0
    try:
        while True:
            number += 1
            term.publish(number)
    except tenure.TenureError as error:
        outcomes.append(error)


# -- candidates -----------------------------------------------------------------------


def test_a_candidate_is_listed_again_in_another_session(connect: Connect) -> None:
    """A candidate whose session was lost while it waited is listed anew, and still elected."""
    a, b = connect("a"), connect("b")
    term = a.election("job").campaign()
    thread, won = campaigning(b)
    first = a.election("job").candidates()[0]
    life = b._session.alive
    assert life is not None
    b._session.lose(life, "an experiment")
    until(lambda: [each.id for each in a.election("job").candidates()] not in ([], [first.id]))
    again = [each for each in a.election("job").candidates() if each.id != first.id]
    assert [each.owner for each in again] == ["b"]
    term.resign()
    thread.join()
    won[0].resign()
    until(lambda: claims(a) == 0)


def test_a_nomination_that_stays_keeps_nobody_for_ever(connect: Connect) -> None:
    """If whoever stood down is frozen, and the chosen one too, the others wait for its time."""
    a, b = connect("a"), connect("b")
    session = a._session
    life = drive(session.life())
    heir, wish = life.next_id(), life.next_id()
    drive(session.driver.claim(life.id, "@candidate/job", heir, '{"since": 1}', None))
    text = f'{{"heir": "{heir}", "seconds": 0.4}}'
    drive(session.driver.claim(life.id, "@candidate/job", wish, text, None))
    assert b.election("job").try_campaign() is None
    began = tenure.now()
    with pytest.raises(tenure.AcquireTimeout):
        b.election("job").campaign(0.1)
    assert tenure.now() - began < 0.4
    began = tenure.now()
    term = b.election("job").campaign(LIMIT)
    assert 0.4 <= tenure.now() - began < LIMIT / 2
    term.resign()


def test_who_stood_down_and_died_is_not_obeyed(connect: Connect) -> None:
    """The nomination of a session that ended is void at once."""
    a, b = connect("a"), connect("b")
    session = a._session
    life = drive(session.life())
    keeper = connect("keeper")._session
    other = drive(keeper.life())
    drive(keeper.driver.claim(other.id, "@candidate/job", "heir", '{"since": 1}', None))
    text = '{"heir": "heir", "seconds": 600}'
    drive(session.driver.claim(life.id, "@candidate/job", life.next_id(), text, None))
    assert b.election("job").try_campaign() is None
    a.close()
    term = b.election("job").campaign(LIMIT)
    term.resign()


def test_closing_ends_a_campaign(connect: Connect) -> None:
    """A coordinator that is closed while it campaigns leaves no candidacy behind."""
    a, b = connect("a"), connect("b")
    term = a.election("job").campaign()
    failed: list[BaseException] = []

    def stand() -> None:
        try:
            b.election("job").campaign()
        except tenure.ClosedError as error:
            failed.append(error)

    thread = threading.Thread(target=stand)
    thread.start()
    until(a.election("job").candidates)
    b.close()
    thread.join(LIMIT)
    assert len(failed) == 1
    assert a.election("job").candidates() == ()
    term.resign()
    assert claims(a) == 0


# -- watching -----------------------------------------------------------------------------


def test_a_watch_outlives_an_outage(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that cannot see for a whole TTL says so, and goes on when it is asked again."""
    client = connect("me")
    with client.election("job").observe() as watch:
        assert watch.wait(LIMIT)
        assert not watch.wait(0.01)
        failing(client, monkeypatch, "census", 1000, done=False)
        with pytest.raises(tenure.Unavailable):
            watch.wait(LIMIT)
        monkeypatch.undo()
        term = client.election("job").campaign(LIMIT)
        leader = next(watch)
        assert leader is not None
        assert leader.token == term.token


def test_closing_a_watch_ends_the_iteration(connect: Connect) -> None:
    """Whoever iterates over the leaders is told when the watch is closed elsewhere."""
    client = connect("me")
    watch = client.election("job").observe()
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.extend(watch))
    thread.start()
    until(lambda: watch._watch._told)
    watch.close()
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert seen == [None]
    assert not watch.wait(0)


def test_closing_the_coordinator_ends_a_watch(connect: Connect) -> None:
    """Whoever iterates when the coordinator is closed gets the error that says so."""
    client = connect("me")
    watch = client.election("job").observe()
    assert next(watch) is None
    threading.Timer(0.05, client.close).start()
    with pytest.raises(tenure.ClosedError):
        next(watch)


def test_a_broken_callback_is_logged(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """A callback that fails is logged, and is called again for the next leader."""
    client = connect("me")
    called: list[tenure.Leader | None] = []

    def broken(leader: tenure.Leader | None) -> None:
        called.append(leader)
        raise RuntimeError("a broken callback")

    with client.election("job").on_change(broken):
        until(lambda: called == [None])
        with client.election("job").campaign() as term:
            until(lambda: len(called) == 2)
        until(lambda: len(called) == 3)
    assert [each and each.token for each in called] == [None, term.token, None]
    assert "callback failed" in caplog.text


# -- run_as_leader ------------------------------------------------------------------------------


def test_what_the_work_raises_is_raised(connect: Connect) -> None:
    """An error of the work ends it, after the resignation; so does another lease's loss."""
    client = connect("me")

    def fail(term: tenure.Term) -> None:
        raise ZeroDivisionError

    def lose_another(term: tenure.Term) -> None:
        raise tenure.LeaseLost("another", lease=None, reason="")

    with pytest.raises(ZeroDivisionError):
        client.election("job").run_as_leader(fail)
    with pytest.raises(tenure.LeaseLost, match="another"):
        client.election("job").run_as_leader(lose_another)
    assert client.election("job").leader() is None


def test_work_waits_for_the_backend(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that is away for longer than a campaign waits is waited for all the same."""
    client = connect("me")
    driver = client._session.driver
    start, away, paused = driver.start, [True], []

    async def lossy(*arguments: Any) -> str:
        if away:
            raise tenure.Unavailable("no route")
        return await start(*arguments)

    async def pause(recipe: Any) -> None:
        paused.append(recipe.name)
        away.clear()

    monkeypatch.setattr(driver, "start", lossy)
    monkeypatch.setattr(election.ElectionRecipe, "pause", pause)
    assert client.election("job").run_as_leader(lambda term: term.token) > 0
    assert paused == ["job"]


def test_cancelled_work_resigns(url: str) -> None:
    """With asyncio, cancelling `run_as_leader` cancels the work and resigns."""

    async def main() -> None:
        started = asyncio.Event()

        async def work(term: tenure.aio.Term) -> None:
            started.set()
            await asyncio.sleep(LIMIT)

        async with tenure.aio.connect(url, ttl=TTL) as client:
            the_election = client.election("job")
            task = asyncio.create_task(the_election.run_as_leader(work))
            await asyncio.wait_for(started.wait(), LIMIT)
            assert await the_election.leader() is not None
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await the_election.leader() is None

    asyncio.run(main())


def test_a_loss_cancels_the_work_once(url: str) -> None:
    """With asyncio, a loss cancels the work and no more: the next term's work runs."""

    async def main() -> None:
        runs: list[int] = []

        async with tenure.aio.connect(url, ttl=TTL) as client:

            async def work(term: tenure.aio.Term) -> str:
                runs.append(term.token)
                if len(runs) == 1:
                    client._session.lose(term._life, "an experiment")
                    await asyncio.sleep(LIMIT)
                    return "not cancelled"
                await asyncio.sleep(0)
                return "done"

            assert await client.election("job").run_as_leader(work) == "done"
        assert len(runs) == 2
        assert runs[0] < runs[1]

    asyncio.run(main())
