"""The session and the lock's way through it, with a clock that the test moves by hand."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

import tenure
from tenure._lease import State
from tenure._model import Claim, Event, Interest, Roll, Traits
from tenure._recipes.lock import LockRecipe
from tenure._runtime.thread import ThreadRuntime, ThreadSignal, drive
from tenure._session import Life, Session
from tenure._sync import Lease
from tenure._url import Url
from tenure.drivers.base import Driver, Lost, Wake
from tenure.errors import (
    ClosedError,
    ForkedError,
    LeaseLost,
    OutcomeUnknown,
    ProtocolError,
    SessionLost,
    StorageError,
    Unavailable,
)

TTL = 6.0
MARGIN = 0.6
T = TypeVar("T")


class HandSignal(ThreadSignal):
    """A wait that is not over at once takes its whole time, by the hand-moved clock."""

    def __init__(self, runtime: HandRuntime) -> None:
        super().__init__()
        self._runtime = runtime

    async def wait(self, until: float | None) -> bool:
        if not self.is_set():
            assert until is not None, "a wait without a bound"
            self._runtime.pass_time(until - self._runtime.time)
        return self.is_set()


class HandTimer:
    """A timer that fires when the test says so."""

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call = call

    def cancel(self) -> None:
        """Timers of the core are never cancelled."""


class HandJob:
    """A background job that runs when the test says so."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self.main = main
        self.name = name

    def cancel(self) -> None:
        """Never running, so there is nothing to cancel."""

    def ended(self) -> bool:
        return False

    async def join(self, until: float) -> bool:
        return True


class HandRuntime:
    """The thread runtime, with time and background work in the test's hands."""

    flavour = ThreadRuntime.flavour
    lock = ThreadRuntime.lock
    mutex = ThreadRuntime.mutex
    blocking = ThreadRuntime.blocking
    finish = ThreadRuntime.finish

    def __init__(self) -> None:
        self.time = 1000.0
        self.dice = 1.0
        self.timers: list[HandTimer] = []
        self.jobs: list[HandJob] = []
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    def random(self) -> float:
        return self.dice

    def unique(self) -> str:
        return "unique"

    def caller(self) -> object:
        return 1

    def cancelling(self) -> bool:
        return False

    def signal(self) -> HandSignal:
        return HandSignal(self)

    async def sleep(self, until: float) -> None:
        self.sleeps.append(until - self.time)
        self.pass_time(until - self.time)

    def call_at(self, when: float, call: Callable[[], None]) -> HandTimer:
        self.timers.append(HandTimer(when, call))
        return self.timers[-1]

    def spawn(self, main: Callable[[], Coroutine[Any, Any, None]], name: str) -> HandJob:
        self.jobs.append(HandJob(main, name))
        return self.jobs[-1]

    def pass_time(self, seconds: float) -> None:
        self.time += max(0.0, seconds)

    def fire(self) -> None:
        """Call every timer that is due."""
        due = [timer for timer in self.timers if timer.when <= self.time]
        self.timers = [timer for timer in self.timers if timer.when > self.time]
        for timer in due:
            timer.call()


class ScriptedDriver(Driver):
    """Answers like a backend that nobody else uses, unless the script says otherwise."""

    traits = Traits(scope="hosts")

    def __init__(self, runtime: Any, ttl: float = TTL) -> None:
        super().__init__(Url("scripted"), runtime, "tests", ttl)
        self.calls: list[tuple[str, ...]] = []
        self.script: dict[str, list[Any]] = {}
        """By verb, what happens instead: an error to raise, or a function to call first."""
        self.lost: Lost | None = None
        self.sessions = 0

    def _act(self, verb: str, *arguments: str) -> None:
        self.calls.append((verb, *arguments))
        steps = self.script.get(verb)
        step = steps.pop(0) if steps else None
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            step()

    def verbs(self) -> list[str]:
        return [call[0] for call in self.calls]

    async def open(self) -> None:
        self._act("open")

    async def close(self) -> None:
        self._act("close")

    def abandon(self) -> None:
        self._act("abandon")

    async def start(self, owner: str, lost: Lost) -> str:
        self.lost = lost
        self._act("start", owner)
        self.sessions += 1
        return f"s{self.sessions}"

    async def renew(self, session: str) -> None:
        self._act("renew", session)

    async def end(self, session: str) -> None:
        self._act("end", session)

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        self._act("claim", session, id)
        claim = Claim(roster, id, session, len(self.calls))
        return Roll((claim,), claim, 0, None)

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        self._act("withdraw", session, id)

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        self._act("read", session, id)
        claim = Claim(roster, id, session, len(self.calls))
        return Roll((claim,), claim, 0, None)

    async def listen(self, interest: Interest, wake: Wake) -> None:
        self._act("listen", interest.id)


class ForeverDriver(ScriptedDriver):
    """A backend that keeps a session until it is told otherwise."""

    traits = Traits(scope="hosts", expires=False)


class Held:
    """What the session tells to a lease."""

    def __init__(self, release: Callable[[], None] = lambda: None) -> None:
        self.told: list[str] = []
        self._release = release

    def end(self, reason: str) -> None:
        self.told.append(f"lost: {reason}")

    def tell(self) -> None:
        """It has been said above."""

    def doubt(self, reason: str) -> None:
        self.told.append(f"in doubt: {reason}")

    async def release_at_close(self) -> None:
        self.told.append("released")
        self._release()


class Scene:
    """A session over a scripted driver, with the clock in hand."""

    def __init__(self, driver: type[ScriptedDriver] = ScriptedDriver) -> None:
        self.runtime = HandRuntime()
        self.driver = driver(self.runtime)
        self.events: list[Event] = []
        self.session = Session(self.runtime, self.driver, "me", TTL, self.events.append)

    def life(self) -> Life:
        return drive(self.session.life())

    def holding(self) -> tuple[Life, Held]:
        life, held = self.life(), Held()
        self.session.hold(life, held)
        return life, held

    def renew(self, life: Life) -> None:
        drive(self.session._renew(life))

    def clean(self) -> None:
        drive(self.session._clean())

    def takes(self, seconds: float) -> Callable[[], None]:
        return lambda: self.runtime.pass_time(seconds)

    def recipe(self) -> LockRecipe[Lease]:
        return LockRecipe(self.session, "name", False, Lease)

    def acquired(self, until: float | None = None) -> Lease:
        lease = drive(self.recipe().acquire(until))
        assert lease is not None
        return lease


@pytest.fixture
def scene() -> Scene:
    """A session that has not begun a life."""
    return Scene()


# -- the deadline --------------------------------------------------------------


def test_the_deadline_counts_from_the_request(scene: Scene) -> None:
    """However long the backend takes, the deadline is sent + TTL - margin, from start and renew."""
    scene.driver.script = {"start": [scene.takes(0.5)], "renew": [scene.takes(1.5)]}
    sent = scene.runtime.time
    life = scene.life()
    assert life.deadline == pytest.approx(sent + TTL - MARGIN)
    assert life.renew_at == pytest.approx(sent + TTL / 3)
    scene.runtime.pass_time(1)
    sent = scene.runtime.time
    scene.renew(life)
    assert life.deadline == pytest.approx(sent + TTL - MARGIN)
    assert [(event.kind, event.seconds) for event in scene.events] == [("renewed", 1.5)]


def test_renewals_are_spread(scene: Scene) -> None:
    """The next renewal is due after 90 to 100 % of a third of the TTL, so that many do not meet."""
    due = []
    for dice in (0.0, 0.5, 1.0):
        scene.runtime.dice = dice
        life = Life()
        scene.session._extend(life, 0.0)
        due.append(life.renew_at)
    assert due == pytest.approx([0.9 * TTL / 3, 0.95 * TTL / 3, TTL / 3])


def test_the_margin_is_a_second_at_most() -> None:
    """A tenth of the TTL is kept back, but never more than a second."""
    runtime = HandRuntime()
    for ttl, margin in ((0.5, 0.05), (5.0, 0.5), (60.0, 1.0)):
        assert Session(runtime, ScriptedDriver(runtime, ttl), "me", ttl).margin == margin


def test_the_timer_ends_a_life_without_being_asked(scene: Scene) -> None:
    """At the deadline, and not before, the timer tells every lease; nothing else is needed."""
    life, held = scene.holding()
    scene.runtime.pass_time(TTL - MARGIN - 0.001)
    scene.runtime.fire()
    assert held.told == []
    scene.runtime.pass_time(0.001)
    scene.runtime.fire()
    assert len(held.told) == 1
    assert "not renewed within its TTL of 6 s" in held.told[0]
    assert life.reason is not None
    assert not scene.runtime.timers


def test_the_timer_follows_renewals(scene: Scene) -> None:
    """A timer that fires after a renewal sets itself again to the new deadline."""
    life, held = scene.holding()
    scene.runtime.pass_time(2)
    scene.renew(life)
    scene.runtime.pass_time(TTL - MARGIN - 2)
    scene.runtime.fire()
    assert held.told == []
    assert [timer.when for timer in scene.runtime.timers] == [life.deadline]
    scene.runtime.pass_time(2)
    scene.runtime.fire()
    assert len(held.told) == 1


def test_a_question_ends_an_overdue_life(scene: Scene) -> None:
    """After a pause the first question to a lease finds the deadline passed, timer or not."""
    lease = scene.acquired()
    assert lease.held()
    scene.runtime.pass_time(TTL)
    assert lease.state is State.LOST
    with pytest.raises(LeaseLost, match="not renewed"):
        lease.check()
    assert [event.kind for event in scene.events].count("lost") == 1


def test_a_backend_that_keeps_sessions_sets_no_deadline() -> None:
    """Where sessions do not expire there is neither deadline nor timer, but still a keepalive."""
    scene = Scene(ForeverDriver)
    life = scene.life()
    assert life.deadline == math.inf
    assert life.renew_at < math.inf
    assert not scene.runtime.timers
    assert [job.name for job in scene.runtime.jobs] == ["keepalive"]


def test_a_late_success_does_not_revive(scene: Scene) -> None:
    """A renewal whose reply comes after the deadline ends the life, although it succeeded."""
    life, held = scene.holding()
    deadline = life.deadline
    scene.driver.script["renew"] = [scene.takes(TTL)]
    scene.renew(life)
    assert life.deadline == deadline
    assert len(held.told) == 1
    assert scene.events == []


# -- loss and doubt --------------------------------------------------------------


def test_losing_is_idempotent(scene: Scene) -> None:
    """The first reason counts; leases are told once, and waiters wake."""
    life, held = scene.holding()
    waiter = scene.runtime.signal()
    scene.session.waiting(life, waiter)
    scene.session.lose(life, "first")
    scene.session.lose(life, "second")
    assert life.reason == "first"
    assert held.told == ["lost: first"]
    assert waiter.is_set()


def test_what_comes_after_the_end_learns_of_it(scene: Scene) -> None:
    """A lease or waiter that comes when the life is over is refused, or woken at once."""
    life = scene.life()
    scene.session.lose(life, "gone")
    with pytest.raises(SessionLost, match="gone"):
        scene.session.hold(life, Held())
    waiter = scene.runtime.signal()
    scene.session.waiting(life, waiter)
    assert waiter.is_set()
    assert scene.life() is not life


def test_a_lease_that_comes_after_the_deadline_is_refused(scene: Scene) -> None:
    """A grant that arrives when the deadline has passed is no lease, and ends the life."""
    life = scene.life()
    scene.runtime.pass_time(TTL)
    with pytest.raises(SessionLost, match="not renewed"):
        scene.session.hold(life, Held())
    assert life.reason is not None


def test_a_released_lease_is_not_told(scene: Scene) -> None:
    """What was dropped, or waits no longer, hears nothing of a later loss."""
    life, held = scene.holding()
    waiter = scene.runtime.signal()
    scene.session.waiting(life, waiter)
    scene.session.drop(life, held)
    scene.session.not_waiting(life, waiter)
    scene.session.lose(life, "later")
    assert held.told == []
    assert not waiter.is_set()


def test_a_failed_renewal_is_a_doubt(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """The first failure is told and logged, the next come soon, and a success ends the doubt."""
    life, held = scene.holding()
    deadline = life.deadline
    scene.driver.script["renew"] = [Unavailable("no route"), OutcomeUnknown("no reply")]
    scene.renew(life)
    scene.renew(life)
    assert held.told == ["in doubt: no route"]
    assert (life.doubt, life.deadline, life.reason) == ("no reply", deadline, None)
    assert life.renew_at == scene.runtime.time + TTL / 12 * 1.5
    scene.runtime.pass_time(1)
    scene.renew(life)
    assert life.doubt is None
    assert life.deadline == deadline + 1
    assert len([record for record in caplog.records if "in doubt" in record.message]) == 1


def test_the_loss_names_the_last_failure(scene: Scene) -> None:
    """When a life runs out after failed renewals, its reason says why they failed."""
    life, held = scene.holding()
    scene.driver.script["renew"] = [Unavailable("no route to host")]
    scene.renew(life)
    scene.runtime.pass_time(TTL)
    scene.runtime.fire()
    assert "last renewal: no route to host" in held.told[-1]


def test_a_bug_in_a_driver_is_a_doubt(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that no driver should raise is logged with its traceback, and is a doubt."""
    life, held = scene.holding()
    scene.driver.script["renew"] = [ZeroDivisionError()]
    scene.renew(life)
    assert held.told == ["in doubt: ZeroDivisionError"]
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


def test_a_refused_renewal_is_a_loss(scene: Scene) -> None:
    """When the backend says that the session is gone, its leases are lost at once."""
    life, held = scene.holding()
    scene.driver.script["renew"] = [SessionLost("never heard of it")]
    scene.renew(life)
    assert held.told == ["lost: never heard of it"]
    assert life.reason == "never heard of it"


def test_a_broken_hook_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What the event hook raises is logged and goes no farther."""

    def broken(event: Event) -> None:
        raise LookupError("my own mistake")

    runtime = HandRuntime()
    session = Session(runtime, ScriptedDriver(runtime), "me", TTL, broken)
    session.emit(Event("renewed", "", 0, "me", 0.0))
    assert "the event hook failed" in caplog.text
    assert "my own mistake" in caplog.text


# -- the beginning ---------------------------------------------------------------


def test_a_failed_open_is_closed_again(scene: Scene) -> None:
    """A driver whose `open` fails is closed, and the error is the caller's."""
    scene.driver.script["open"] = [Unavailable("nobody there")]
    with pytest.raises(Unavailable, match="nobody there"):
        drive(scene.session.open())
    assert scene.driver.verbs() == ["open", "close"]


def test_a_failed_start_is_tried_anew(scene: Scene) -> None:
    """A session that could not be started leaves no life behind; the next acquire starts one."""
    scene.driver.script["start"] = [Unavailable("not now")]
    with pytest.raises(Unavailable):
        scene.life()
    assert not scene.runtime.jobs
    assert not scene.runtime.timers
    assert scene.life() is scene.life()
    assert scene.driver.verbs() == ["start", "start"]


def test_a_session_that_ends_while_it_starts_is_lost(scene: Scene) -> None:
    """A loss that the driver tells of before `start` has returned is not forgotten."""

    def lose() -> None:
        assert scene.driver.lost is not None
        scene.driver.lost("the connection broke")

    scene.driver.script["start"] = [lose]
    with pytest.raises(SessionLost, match="the connection broke"):
        scene.life()
    assert scene.life().reason is None


def test_a_session_that_never_got_an_id_is_not_ended(scene: Scene) -> None:
    """A start that told of a loss and then failed leaves nothing to end at the backend."""

    def lose_and_fail() -> None:
        assert scene.driver.lost is not None
        scene.driver.lost("the connection broke")
        raise Unavailable("the connection broke")

    scene.driver.script["start"] = [lose_and_fail]
    with pytest.raises(Unavailable):
        scene.life()
    scene.life()
    scene.clean()
    assert ("end", "") not in scene.driver.calls


def test_ids_are_unique(scene: Scene) -> None:
    """Every claim of every life has an id of its own."""
    ids = set()
    for _ in range(3):
        life = scene.life()
        ids |= {life.next_id() for _ in range(3)}
        scene.session.lose(life, "an experiment")
    assert len(ids) == 9


# -- retries and debts -------------------------------------------------------------


def attempt(scene: Scene, life: Life, steps: list[Any], until: float | None = None) -> str:
    async def call() -> str:
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        scene.runtime.pass_time(0.1)
        if isinstance(step, Exception):
            raise step
        return str(step)

    return drive(scene.session.retry(life, call, until, budget=3.0))


def test_retries_end_with_an_answer(scene: Scene) -> None:
    """A call that finds nobody is repeated, ever more slowly, until the backend answers."""
    away: list[Any] = [Unavailable("away")] * 4
    assert attempt(scene, scene.life(), [*away, "here"]) == "here"
    sleeps = scene.runtime.sleeps
    assert sleeps == sorted(sleeps)
    assert len(sleeps) == 4
    assert sleeps[-1] <= scene.driver.patience * 1.5


def test_retries_have_a_budget(scene: Scene) -> None:
    """When the budget or the caller's time is over, the last error is raised."""
    life = scene.life()
    for until, seconds in ((None, 3.0), (1.0, 1.0)):
        began = scene.runtime.time
        limit = None if until is None else began + until
        with pytest.raises(Unavailable, match="away"):
            attempt(scene, life, [Unavailable("away")], limit)
        assert seconds <= scene.runtime.time - began <= seconds + 0.2


def test_retries_end_with_the_life(scene: Scene) -> None:
    """When the life is lost meanwhile, it is no use to go on."""
    life = scene.life()
    scene.session.lose(life, "gone")
    with pytest.raises(SessionLost, match="gone"):
        attempt(scene, life, [Unavailable("away")])


def test_a_refusal_is_not_retried(scene: Scene) -> None:
    """Only what may be different the next time is tried again."""
    with pytest.raises(ProtocolError):
        attempt(scene, scene.life(), [ProtocolError("rubbish"), "here"])
    assert scene.runtime.sleeps == []


def test_a_debt_is_repaid_for_a_whole_ttl(scene: Scene) -> None:
    """A claim that may yet arrive is withdrawn again and again for a TTL, and then forgotten."""
    life = scene.life()
    began = scene.runtime.time
    scene.driver.script["withdraw"] = [Unavailable("not now"), ProtocolError("rubbish")]
    scene.session.owe(life, "name", "c1")
    scene.clean()
    withdrawals = [call for call in scene.driver.calls if call[0] == "withdraw"]
    assert set(withdrawals) == {("withdraw", "s1", "c1")}
    assert len(withdrawals) >= 4
    assert TTL <= scene.runtime.time - began <= TTL * 1.5
    assert scene.session._debts == []


def test_a_debt_that_cannot_be_repaid_is_kept(scene: Scene) -> None:
    """While the backend refuses to withdraw a claim, the debt stands, also beyond the TTL."""
    scene.driver.script["withdraw"] = [Unavailable("away")] * 20
    scene.session.owe(scene.life(), "name", "c1")
    scene.clean()
    assert scene.driver.verbs().count("withdraw") == 21


def test_a_debt_dies_with_the_session(scene: Scene) -> None:
    """What a lost session owed went with it: nothing is withdrawn, and nothing is owed anew."""
    life = scene.life()
    scene.session.owe(life, "name", "c1")
    scene.session.lose(life, "gone")
    scene.session.owe(life, "name", "c2")
    scene.clean()
    assert scene.driver.verbs() == ["start", "end"]
    assert scene.session._debts == []


def test_a_lost_session_is_ended_at_the_backend(scene: Scene) -> None:
    """What the backend may still keep of a lost session is freed, even if that fails at first."""
    life, _ = scene.holding()
    scene.session.lose(life, "gone")
    scene.driver.script["end"] = [Unavailable("away")]
    scene.life()
    scene.clean()
    assert ("end", "s1") in scene.driver.calls
    assert ("end", "s2") not in scene.driver.calls


# -- the end -----------------------------------------------------------------------


def test_close_releases_ends_and_closes(scene: Scene) -> None:
    """`close` frees every lease, ends the session, closes the driver, in that order, and once."""
    life = scene.life()
    order: list[str] = []
    held = [Held(lambda: order.append("released")) for _ in range(2)]
    for each in held:
        scene.session.hold(life, each)
    scene.driver.script = {
        "end": [lambda: order.append("ended")],
        "close": [lambda: order.append("closed")],
    }
    drive(scene.session.close())
    drive(scene.session.close())
    assert order == ["released", "released", "ended", "closed"]
    with pytest.raises(ClosedError):
        scene.life()
    with pytest.raises(ClosedError):
        scene.session.check_open()


def test_close_of_an_unused_session_only_closes(scene: Scene) -> None:
    """A coordinator that never acquired anything has no session to end."""
    drive(scene.session.close())
    assert scene.driver.verbs() == ["close"]


def test_close_is_bounded(scene: Scene) -> None:
    """Leases whose release hangs share one patience; the rest go with the session."""
    life = scene.life()
    patience = scene.driver.patience
    held = [Held(scene.takes(patience * 0.6)) for _ in range(50)]
    for each in held:
        scene.session.hold(life, each)
    began = scene.runtime.time
    scene.driver.script["end"] = [Unavailable("away")]
    drive(scene.session.close())
    assert scene.runtime.time - began <= 2 * patience
    released = [each for each in held if "released" in each.told]
    assert len(released) == 2
    assert all(each.told[-1] == "lost: the coordinator was closed" for each in held)
    assert scene.driver.verbs()[-2:] == ["end", "close"]


def test_close_ends_what_is_being_started() -> None:
    """A session that another thread was starting when `close` came is ended, too."""
    runtime = ThreadRuntime()
    driver = ScriptedDriver(runtime)
    session = Session(runtime, driver, "me", TTL)
    starting, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        starting.set()
        assert go_on.wait(10)

    driver.script["start"] = [slowly]
    errors: list[Exception] = []

    def begin() -> None:
        try:
            drive(session.life())
        except ClosedError as error:
            errors.append(error)

    beginner = threading.Thread(target=begin)
    beginner.start()
    assert starting.wait(10)
    closer = threading.Thread(target=lambda: drive(session.close()))
    closer.start()
    give_up = tenure.now() + 10
    while session._closed is None:
        assert tenure.now() < give_up
    go_on.set()
    beginner.join(10)
    closer.join(10)
    assert driver.verbs() == ["start", "end", "close"]
    with pytest.raises(ClosedError):
        drive(session.life())


def test_a_forked_child_touches_nothing(scene: Scene) -> None:
    """After `abandon` nothing is asked of the backend, and every question says why."""
    lease = scene.acquired()
    before = len(scene.driver.calls)
    scene.session.abandon()
    assert lease.state is State.LOST
    assert "forked" in str(lease.reason)
    with pytest.raises(ForkedError):
        scene.life()
    with pytest.raises(LeaseLost):
        drive(lease._release())
    drive(scene.session.close())
    assert scene.driver.verbs()[before:] == ["abandon"]


# -- the lock's way through the session ------------------------------------------------


def test_a_lost_reply_is_asked_for_again(scene: Scene) -> None:
    """A claim without a reply is made again under the same id, and counts as unsure."""
    scene.driver.script["claim"] = [OutcomeUnknown("no reply")]
    lease = scene.acquired()
    claims = [call for call in scene.driver.calls if call[0] == "claim"]
    assert claims == [("claim", "s1", "s1.1")] * 2
    assert lease.unsure
    drive(lease._release())
    assert [debt[2] for debt in scene.session._debts] == ["s1.1"]


def test_an_acquire_that_failed_is_withdrawn(scene: Scene) -> None:
    """An acquire that never got a reply owes its claim's withdrawal, and leaves the gate."""
    scene.driver.script["claim"] = [OutcomeUnknown("no reply")] * 1000
    with pytest.raises(OutcomeUnknown):
        scene.acquired(until=scene.runtime.time + 1)
    assert not scene.session.gates._gates
    scene.clean()
    assert ("withdraw", "s1", "s1.1") in scene.driver.calls


def test_an_acquire_that_is_refused_is_withdrawn(scene: Scene) -> None:
    """Whatever a claim raises, what it may have written is withdrawn."""
    scene.driver.script["claim"] = [ProtocolError("rubbish")]
    with pytest.raises(ProtocolError):
        scene.acquired()
    assert scene.driver.verbs()[-1] == "withdraw"
    assert scene.session._debts


def test_a_dead_session_is_replaced(scene: Scene) -> None:
    """An acquire whose session is gone begins another one and claims anew under it."""
    scene.driver.script["claim"] = [SessionLost("gone")]
    lease = scene.acquired()
    assert [call for call in scene.driver.calls if call[0] == "claim"] == [
        ("claim", "s1", "s1.1"),
        ("claim", "s2", "s2.1"),
    ]
    assert lease.held()


def test_sessions_that_keep_dying_are_no_busy_loop(scene: Scene) -> None:
    """When one session after another dies, an acquire pauses in between, and ends in time."""
    scene.driver.script["claim"] = [SessionLost("gone")] * 1000
    began = scene.runtime.time
    lease = drive(scene.recipe().acquire(began + 3.0))
    assert lease is None
    assert scene.driver.verbs().count("start") <= 20
    assert 3.0 <= scene.runtime.time - began <= 4.0


def test_a_try_does_not_go_on_for_ever(scene: Scene) -> None:
    """`try_acquire` gives up when a second session dies under it."""
    scene.driver.script["claim"] = [SessionLost("gone")] * 1000
    with pytest.raises(Unavailable, match="lost again: gone"):
        drive(scene.recipe().try_acquire())
    assert scene.driver.verbs().count("start") == 2
    assert not scene.session.gates._gates


def test_each_absence_of_the_backend_has_its_own_ttl(scene: Scene) -> None:
    """A backend that was away long ago gets a whole TTL again when it is away once more."""
    away: list[Any] = [Unavailable("away")] * 3

    def an_hour() -> None:
        scene.runtime.pass_time(3600)
        raise SessionLost("restarted")

    scene.driver.script = {"start": [*away, None, *away], "claim": [an_hour]}
    assert scene.acquired().held()
    assert scene.driver.verbs().count("start") == 8


def test_a_backend_that_stays_away_is_unavailable(scene: Scene) -> None:
    """An acquire without a time limit gives up when nobody answers for a whole TTL."""
    scene.driver.script["start"] = [Unavailable("away")] * 1000
    began = scene.runtime.time
    with pytest.raises(Unavailable, match="away"):
        scene.acquired()
    assert TTL <= scene.runtime.time - began <= TTL + 1


def test_a_loss_during_the_release_is_told(scene: Scene) -> None:
    """A lease that is lost while its release is under way raises `LeaseLost`, not silence."""
    lease = scene.acquired()
    life = scene.life()
    scene.driver.script["withdraw"] = [lambda: scene.session.lose(life, "too late")]
    with pytest.raises(LeaseLost, match="too late"):
        drive(lease._release())
    assert [event.kind for event in scene.events].count("released") == 0


def test_a_failed_release_is_owed(scene: Scene) -> None:
    """A release without a reply raises, holds no more, and is repaid in the background."""
    lease = scene.acquired()
    scene.driver.script["withdraw"] = [OutcomeUnknown("no reply")] * 1000
    with pytest.raises(OutcomeUnknown):
        drive(lease._release())
    assert lease.state is State.RELEASED
    assert [debt[2] for debt in scene.session._debts] == ["s1.1"]
    assert not scene.session.gates._gates


def test_a_claim_that_storage_refuses_to_withdraw_is_owed(scene: Scene) -> None:
    """An acquire that fails, and whose withdrawal fails as well, is repaid in the background."""
    scene.driver.script["claim"] = [StorageError("full")]
    scene.driver.script["withdraw"] = [StorageError("still full")]
    with pytest.raises(StorageError, match="full"):
        scene.acquired()
    assert [debt[2] for debt in scene.session._debts] == ["s1.1"]
    assert not scene.session.gates._gates


def test_every_callback_is_called_once() -> None:
    """Callbacks that come while the lease is being lost are called, and none of them twice."""
    for _ in range(200):
        scene = Scene()
        lease = scene.acquired()
        life = scene.life()
        calls: list[int] = []
        failures: list[BaseException] = []
        together = threading.Barrier(3)

        def register(
            numbers: range,
            lease: Lease = lease,
            calls: list[int] = calls,
            failures: list[BaseException] = failures,
            together: threading.Barrier = together,
        ) -> None:
            together.wait(10)
            try:
                for number in numbers:
                    lease.on_lost(lambda lease, number=number: calls.append(number))  # type: ignore[misc]
            except TypeError as error:
                failures.append(error)

        threads = [
            threading.Thread(target=register, args=(range(start, start + 5),)) for start in (0, 5)
        ]
        for thread in threads:
            thread.start()
        together.wait(10)
        scene.session.lose(life, "an experiment")
        for thread in threads:
            thread.join(10)
        assert not failures
        assert sorted(calls) == list(range(10))
