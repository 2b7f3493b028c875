"""Groups in detail: round trips, lost replies, races at their narrowest, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tenure
from tenure import errors
from tenure._model import Claim
from tenure._recipes import payload
from tenure._recipes.members import Members
from tenure._runtime.thread import drive

URL = "memory://groups"


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., tenure.Coordinator]]:
    """Coordinators over one store in memory, in a namespace of the test's own."""
    opened = []

    def connect(**options: Any) -> tenure.Coordinator:
        options = {"namespace": request.node.name, "ttl": 1.0} | options
        opened.append(tenure.connect(URL, **options))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


Connect = Callable[..., tenure.Coordinator]
VERBS = (
    *("claim", "amend", "withdraw", "read", "census", "rosters", "recall", "record", "recorded"),
    *("last_seen", "renew"),
)


def driver_of(client: tenure.Coordinator) -> Any:
    return client._session.driver


def counted(client: tenure.Coordinator) -> list[str]:
    """The driver's calls from now on, each of them a round trip; renewals are left out."""
    calls: list[str] = []
    driver = driver_of(client)

    def count(verb: str) -> None:
        real = getattr(driver, verb)

        async def call(*args: Any, **options: Any) -> Any:
            calls.append(verb)
            return await real(*args, **options)

        setattr(driver, verb, call)

    for verb in VERBS:
        if verb != "renew":
            count(verb)
    return calls


def before(client: tenure.Coordinator, verb: str, act: Callable[[], object]) -> None:
    """Have something happen right before the client's next call of a driver's verb."""
    driver = driver_of(client)
    real = getattr(driver, verb)

    async def call(*args: Any, **options: Any) -> Any:
        setattr(driver, verb, real)
        act()
        return await real(*args, **options)

    setattr(driver, verb, call)


def lose_reply(client: tenure.Coordinator, verb: str, then: Callable[[], object] = int) -> None:
    """The client's next call of a verb is carried out, and its reply is lost."""
    driver = driver_of(client)
    real = getattr(driver, verb)

    async def call(*args: Any, **options: Any) -> Any:
        setattr(driver, verb, real)
        await real(*args, **options)
        then()
        raise errors.OutcomeUnknown("the reply is lost")

    setattr(driver, verb, call)


def die(client: tenure.Coordinator) -> None:
    """End the session at the backend, without a word to the client."""
    session = client._session
    drive(session.driver.end(drive(session.life()).id))


# -- round trips -------------------------------------------------------------------


def test_round_trips(connect: Connect) -> None:
    """Joining takes three round trips, leaving two, and reading the members one.

    Who must not make the group looks for it first, once: afterwards the look that ends every
    join tells it that the group is gone.
    """
    a = connect()
    group = a.group("workers")
    group.create()
    drive(a._session.life())
    calls = counted(a)

    def taken() -> list[str]:
        done = calls.copy()
        calls.clear()
        return done

    member = group.join({"zone": "a"})
    assert taken() == ["claim", "claim", "recall"]
    group.members()
    assert taken() == ["census"]
    member.update(1)
    assert taken() == ["amend"]
    group.member(member.id)
    assert taken() == ["census", "last_seen"]
    member.leave()
    assert taken() == ["withdraw", "withdraw"]
    member = group.join(estate=1, create=False)
    assert taken() == ["claim", "claim", "recall", "recall", "record"]
    member.bequeath(2)
    assert taken() == ["record"]
    member.leave()
    assert taken() == ["record", "withdraw", "withdraw"]

    other = connect()
    drive(other._session.life())
    calls = counted(other)
    member = other.group("workers").join(create=False)
    assert taken() == ["recall", "claim", "claim", "recall"]
    group.delete(force=True)
    member.leave()
    taken()
    with pytest.raises(tenure.GroupNotFound):
        other.group("workers").join(create=False)
    assert taken() == ["claim", "claim", "recall", "withdraw", "withdraw"]
    with pytest.raises(tenure.GroupNotFound):
        other.group("workers").join(create=False)
    assert taken() == ["recall"]


def test_a_watch_reads_only_when_something_happened(connect: Connect) -> None:
    """A consumer that keeps up reads the group once for each change, and once to begin."""
    a, b = connect(), connect()
    with b.group("workers").watch() as watch:
        calls = counted(b)
        for _ in range(3):
            with a.group("workers").join():
                assert watch.next(timeout=5) is not None
            assert watch.next(timeout=5) is not None
        assert set(calls) == {"census"}
        assert len(calls) <= 12


# -- lost replies ------------------------------------------------------------------


def test_a_lost_reply_to_create_is_no_mystery(connect: Connect) -> None:
    """Who created the group knows so, also when the reply was lost and another was there."""
    a, b = connect(), connect()
    lose_reply(a, "record")
    a.group("workers").create()
    with pytest.raises(tenure.GroupExists):
        b.group("workers").create()
    with pytest.raises(tenure.GroupExists):
        a.group("workers").create()


def test_a_lost_reply_to_delete_deletes_once(connect: Connect) -> None:
    """A deletion whose reply was lost is done, and spares a group that another made since."""
    a, b = connect(), connect()
    group, theirs = a.group("workers"), b.group("workers")
    for lost in (1, 2):  # the reply to the mark, and to the deletion
        group.create()
        if lost == 2:
            before(a, "recorded", lambda: lose_reply(a, "record", theirs.create))
        else:
            lose_reply(a, "record")
        group.delete()
        assert theirs.exists() == (lost == 2)


def test_a_lost_reply_to_a_will_is_no_loss(connect: Connect) -> None:
    """An estate whose reply was lost is known again, and can be changed and taken away."""
    a, b = connect(), connect()
    lose_reply(a, "record")
    member = a.group("workers").join(member="one", estate=1)
    lose_reply(a, "record")
    member.bequeath(2)
    die(a)
    orphan = b.group("workers").inherit()
    assert orphan is not None
    assert orphan.estate == 2
    with pytest.raises(tenure.LeaseLost):
        member.bequeath(3)
    lose_reply(b, "record")
    orphan.settle()
    assert b.group("workers").orphans() == ()


def test_a_join_that_fails_at_its_estate_leaves_none(connect: Connect) -> None:
    """When the backend goes away in the middle of a join, no estate is left for an heir."""
    a, b = connect(ttl=0.6), connect()
    group = a.group("workers")
    group.create()

    def refuse() -> None:
        raise errors.ProtocolError("an experiment")

    lose_reply(a, "record", refuse)
    with pytest.raises(errors.ProtocolError):
        group.join(member="one", estate=1)
    assert b.group("workers").orphans() == ()
    assert not b.group("workers").members().ids
    b.group("workers").join(member="one").leave()
    b.group("workers").delete()


# -- races at their narrowest ------------------------------------------------------


@pytest.mark.parametrize("verb", ["recall", "record", "census", "recorded"])
def test_a_join_at_any_step_of_a_deletion_prevents_it(connect: Connect, verb: str) -> None:
    """Whenever somebody joins while the group is being deleted, the group stays."""
    a, b = connect(), connect()
    joined: list[tenure.Member] = []
    a.group("workers").create()
    before(a, verb, lambda: joined.append(b.group("workers").join(create=False)))
    with pytest.raises(tenure.GroupNotEmpty):
        a.group("workers").delete()
    assert b.group("workers").members().ids == (joined[0].id,)
    record = drive(driver_of(b).recall("@group/workers"))
    assert '"deleting": false' in record.text, "the mark of the deletion was left behind"
    joined[0].leave()
    a.group("workers").delete()


@pytest.mark.parametrize("verb", ["claim", "recall"])
@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_a_deletion_at_any_step_of_a_join(
    connect: Connect, verb: str, create: bool, known: bool
) -> None:
    """Whenever the group is deleted while somebody joins, either the join or the group wins."""
    a, b = connect(), connect()
    b.group("workers").create()
    if known:
        assert a.group("workers").exists()
    gone: list[bool] = []

    def delete() -> None:
        try:
            b.group("workers").delete()
        except tenure.GroupNotEmpty:
            return
        gone.append(True)

    before(a, verb, delete)
    try:
        member = a.group("workers").join(create=create)
    except tenure.GroupNotFound:
        assert gone
        assert not create
        assert not b.group("workers").exists()
    else:
        assert b.group("workers").members().ids == (member.id,)
        member.leave()


@pytest.mark.parametrize("verb", ["recall", "record", "read"])
def test_a_deletion_by_force_in_the_middle_of_a_join(connect: Connect, verb: str) -> None:
    """Who joins while the group is deleted by force is a member of the group that is there then."""
    a, b = connect(), connect()
    if verb == "recall":
        b.group("workers").create()

    def delete() -> None:
        b.group("workers").create(exist_ok=True)
        b.group("workers").delete(force=True)

    before(a, verb, delete)
    member = a.group("workers").join()
    assert b.group("workers").members().ids == (member.id,)
    member.update(1)
    member.leave()


def test_a_mark_of_a_dead_client_is_in_nobodys_way(connect: Connect) -> None:
    """When a client dies between marking a group and deleting it, others join and delete it."""
    a, b = connect(), connect()

    def stop() -> None:
        raise KeyboardInterrupt

    for act in (b.group("workers").join, b.group("workers").delete):
        a.group("workers").create()
        before(a, "census", stop)
        with pytest.raises(KeyboardInterrupt):
            a.group("workers").delete()
        assert b.group("workers").exists()
        left = act()
        if left is not None:
            left.leave()
            b.group("workers").delete()


# -- capabilities ------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, word",
    [
        (float("inf"), "inf"),
        ({"a": [0, {"b": float("nan")}]}, r"\['a'\]\[1\]\['b'\] is nan"),
        ({"a": {"b": b""}}, r"\['a'\]\['b'\] is of type bytes"),
        ({None: 1}, "key None must be text"),
        (["\ud800"], r"\[0\] has a character"),
        ({"\ud800": 1}, "UTF-8"),
        (10**5000, "cannot be written as JSON"),
        ("é" * 11_000, "65,536 bytes"),
        (object, "of type type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "value",
)
def test_what_is_no_json_is_refused(value: Any, word: str) -> None:
    """What JSON cannot say is refused with the path to it."""
    with pytest.raises(tenure.InvalidArgument, match=word):
        payload.encode(value, "capabilities")


def test_what_is_nested_without_end_is_refused() -> None:
    """A list in itself is refused, and so is what lies too deep."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(tenure.InvalidArgument, match="nested more than 100 deep"):
        payload.encode({"a": endless}, "capabilities")


def test_what_is_published_is_a_copy(connect: Connect) -> None:
    """A value that the caller changes afterwards, or that a reader changes, changes nothing."""
    value: dict[str, Any] = {"jobs": (1, 2)}
    member = connect().group("workers").join(value, estate=value)
    value["jobs"] = ()
    member.capabilities["jobs"].append(3)
    member.estate["jobs"].append(3)
    assert member.capabilities == member.estate == {"jobs": [1, 2]}


# -- snapshots ---------------------------------------------------------------------


def claim(id: str, token: int, capabilities: str = "null", session: str = "s") -> Claim:
    body = f'{{"id":"{id}","token":{token},"at":0,"capabilities":{capabilities}}}'
    return Claim("@group/g", f"{session}.{token}", session, token, "owner", body)


def test_snapshots_differ_by_who_left_changed_and_joined() -> None:
    """Departures come first, then changes, then who joined; another token is another member."""
    old = Members("g", [claim("a", 1), claim("b", 2), claim("c", 3, "1"), claim("d", 4)])
    new = Members("g", [claim("d", 4), claim("c", 3, "true"), claim("b", 5), claim("e", 6)])
    changes = [(each.kind, each.member and each.member.id) for each in old.changes(new)]
    assert changes == [
        *(("left", "a"), ("left", "b")),
        *(("changed", "c"),),  # 1 and true are equal in Python, and not in JSON
        *(("joined", "b"), ("joined", "e")),
    ]
    assert old.changes(old) == []


def test_of_two_with_one_id_the_newer_counts() -> None:
    """While a backend has not buried a dead member yet, its successor is the one that is seen."""
    members = Members("g", [claim("a", 7, "1", "old"), claim("b", 8), claim("a", 9, "2", "new")])
    assert members.ids == ("b", "a")
    assert members[1].capabilities == 2
    assert members.session_of("a") == "new"
    assert members.get("c") is None
    assert [each.id for each in members] == ["b", "a"]
    assert repr(members) == "<2 members of 'g': 'b', 'a'>"


# -- arguments and appearances -----------------------------------------------------


def test_bad_arguments_are_named(connect: Connect) -> None:
    """What cannot be a name, an id, a timeout, a snapshot or a buffer is refused at once."""
    a = connect()
    group = a.group("workers")
    with pytest.raises(tenure.InvalidName, match="name"):
        a.group("")
    with pytest.raises(tenure.InvalidName, match="member id"):
        group.join(member="")
    with pytest.raises(tenure.InvalidArgument, match="timeout"):
        group.join(timeout=-1)
    with pytest.raises(tenure.InvalidArgument, match="the estate is of type set"):
        group.join(estate={1})
    with pytest.raises(tenure.InvalidArgument, match="since"):
        group.watch(since=())  # type: ignore[arg-type]
    with pytest.raises(tenure.InvalidArgument, match="buffer"):
        group.watch(buffer=0)
    assert not group.exists()


def test_an_operator_can_read_them(connect: Connect) -> None:
    """The repr of each says what it is, whose, with which token, and in which state."""
    a, b = connect(owner="host:1"), connect()
    group = a.group("workers")
    member = group.join(member="w1", estate=1)
    words = f"<member 'w1' of 'workers' token={member.token} owner='host:1' held"
    assert repr(member).startswith(words)
    assert repr(group) == "<group 'workers'>"
    watch = b.group("workers").watch()
    with watch:
        assert "1 member of 'workers': 'w1'" in repr(watch)
    assert "closed" in repr(watch)
    with b.group("workers").on_change(print) as subscription:
        assert repr(subscription) == "<watching the group 'workers'>"
    assert "closed" in repr(subscription)
    die(a)
    orphan = b.group("workers").inherit()
    assert repr(orphan).startswith("<orphan 'w1' of 'workers' token=")
    assert orphan is not None
    orphan.release()


# -- background --------------------------------------------------------------------


def test_a_watch_bears_with_a_backend_that_is_away(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """While the backend is away a watch says so once in the log; afterwards it goes on."""
    a, b = connect(owner="a"), connect(ttl=0.5)
    driver = driver_of(b)
    with b.group("workers").watch() as watch:
        census = driver.census

        async def away(roster: str) -> Any:
            raise errors.Unavailable("an experiment")

        driver.census = away
        member = a.group("workers").join()
        assert watch.next(timeout=0.3) is None
        assert watch.next(timeout=0) is None
        driver.census = census
        change = watch.next(timeout=5)
        assert change is not None
        assert change.kind == "joined"
        assert [each.levelname for each in caplog.records].count("WARNING") == 1
        member.leave()


def test_a_callback_goes_on_after_an_error_of_the_backend(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the backend is logged, and the callbacks go on; they end with the client."""
    a, b = connect(owner="a"), connect(ttl=0.5)
    driver, heard = driver_of(b), b._session.runtime.signal()
    subscription = b.group("workers").on_change(lambda change: heard.set())
    census = driver.census

    async def broken(roster: str) -> Any:
        driver.census = census
        raise errors.ProtocolError("an experiment")

    driver.census = broken
    with a.group("workers").join():
        assert drive(heard.wait(b._session.now() + 5))
    assert any("an experiment" in each.message for each in caplog.records)
    logged = len(caplog.records)
    b.close()
    assert drive(subscription._callbacks._job.join(tenure.now() + 5))
    assert subscription._callbacks.closed
    subscription.close()
    assert len(caplog.records) == logged


def test_a_callback_may_end_its_own_subscription(connect: Connect) -> None:
    """A callback that closes what calls it does not wait for itself."""
    a, b = connect(), connect()
    heard: list[tenure.Change] = []
    ended = b._session.runtime.signal()

    def once(change: tenure.Change) -> None:
        heard.append(change)
        subscriptions[0].close()
        ended.set()

    subscriptions = [b.group("workers").on_change(once)]
    with a.group("workers").join():
        assert drive(ended.wait(tenure.now() + 5))
    assert drive(subscriptions[0]._callbacks._job.join(tenure.now() + 5))
    assert len(heard) == 1


def test_closing_a_watch_wakes_who_waits(connect: Connect) -> None:
    """Whoever waits for a change is told at once that the watch is closed, not when it looks."""
    b = connect(ttl=60)
    watch = b.group("workers").watch().__enter__()
    heard = b._session.runtime.signal()
    waiting = b._session.runtime.signal()

    async def wait() -> None:
        waiting.set()
        assert watch.next() is None
        heard.set()

    job = b._session.runtime.spawn(wait, "waiting")
    assert drive(waiting.wait(tenure.now() + 5))
    watch.close()
    assert drive(heard.wait(tenure.now() + 5))
    assert drive(job.join(tenure.now() + 5))


# -- estates -----------------------------------------------------------------------


def test_a_death_is_inherited_as_soon_as_it_is_seen(connect: Connect) -> None:
    """A survivor need not wait for its own regular look."""
    a, b = connect(), connect(ttl=60)
    done = b._session.runtime.signal()
    a.group("workers").join(member="one", estate=1)
    with b.group("workers").on_orphan(lambda orphan: done.set()):
        die(a)
        assert drive(done.wait(tenure.now() + 5))


def test_what_an_heir_gives_up_is_found_soon(connect: Connect) -> None:
    """While somebody else is at an estate, a survivor looks often what becomes of it."""
    a, b, c = connect(), connect(), connect(ttl=4)
    done = c._session.runtime.signal()
    a.group("workers").join(member="one", estate=1)
    die(a)
    orphan = b.group("workers").inherit()
    assert orphan is not None
    calls = counted(c)
    with c.group("workers").on_orphan(lambda orphan: done.set()):
        while "claim" not in calls:  # it tries, and finds it taken
            assert not drive(done.wait(tenure.now() + 0.01))
        orphan.release()
        assert drive(done.wait(tenure.now() + 2.5))


def test_an_heir_that_comes_late_finds_nothing(connect: Connect) -> None:
    """An estate that another settles meanwhile is not handed out again, and its id is free."""
    a, b, c = connect(), connect(), connect()
    a.group("workers").join(member="one", estate=1)
    die(a)

    def settle() -> None:
        orphan = c.group("workers").inherit()
        assert orphan is not None
        orphan.settle()

    before(b, "claim", settle)
    assert b.group("workers").inherit() is None
    c.group("workers").join(member="one").leave()


def test_a_late_member_does_not_write_over_its_successor(connect: Connect) -> None:
    """Who is given up while it joins neither takes nor harms the estate of who came after."""
    a, b = connect(owner="a"), connect(owner="b")
    later: list[tenure.Member] = []

    def succeed() -> None:
        die(a)
        later.append(b.group("workers").join(member="one", estate="the later one's", timeout=5))

    a.group("workers").create()
    before(a, "record", succeed)
    with pytest.raises(tenure.Unavailable, match="lost"):
        a.group("workers").join(member="one", estate="the late one's")
    assert later[0].estate == "the later one's"
    later[0].bequeath("more")
    assert b.group("workers").members()[0].owner == "b"
    later[0].leave()
    assert b.group("workers").orphans() == ()


def test_a_join_never_returns_a_lost_member(connect: Connect) -> None:
    """Who loses its session while it joins is told so, and nothing of it is left."""
    a, b = connect(owner="a"), connect()
    group = a.group("workers")
    life = drive(a._session.life())
    before(a, "recall", lambda: a._session.lose(life, "an experiment"))
    with pytest.raises(tenure.Unavailable, match="an experiment"):
        group.join()
    with group.join(timeout=5) as member:
        assert b.group("workers").members()[0].token == member.token


def test_an_heir_that_lost_its_session_goes_on(connect: Connect) -> None:
    """A loss in the middle of taking over is logged, and the next look takes over."""
    a, b = connect(), connect(ttl=0.5)
    done = b._session.runtime.signal()
    a.group("workers").join(member="one", estate=1)
    life = drive(b._session.life())
    before(b, "recall", lambda: b._session.lose(life, "an experiment"))
    held: list[bool] = []

    def inherit(orphan: tenure.Orphan) -> None:
        held.append(orphan.held())
        done.set()

    with b.group("workers").on_orphan(inherit):
        die(a)
        assert drive(done.wait(tenure.now() + 10))
    assert held == [True]


def test_who_let_go_cannot_settle(connect: Connect) -> None:
    """An orphan that was released can be inherited again, and not be settled any more."""
    a, b = connect(), connect()
    a.group("workers").join(member="one", estate=1)
    die(a)
    orphan = b.group("workers").inherit()
    assert orphan is not None
    orphan.release()
    with pytest.raises(tenure.LeaseLost):
        orphan.settle()
    assert b.group("workers").orphans() == ("one",)


def test_an_heir_that_fails_is_called_again(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that raises leaves the estate, and is called again after a while."""
    a, b = connect(), connect(ttl=0.5)
    calls: list[int] = []
    times: list[float] = []
    done = b._session.runtime.signal()

    def inherit(orphan: tenure.Orphan) -> None:
        calls.append(orphan.token)
        times.append(tenure.now())
        if len(calls) == 1:
            raise LookupError("an experiment")
        done.set()

    a.group("workers").join(member="one", estate=1)
    with b.group("workers").on_orphan(inherit):
        die(a)
        assert drive(done.wait(tenure.now() + 10))
    assert calls[0] < calls[1]
    assert times[1] - times[0] >= b.ttl
    assert b.group("workers").orphans() == ()
    assert any(each.exc_info and each.levelno == logging.ERROR for each in caplog.records)


def test_a_block_settles_unless_it_raises(connect: Connect) -> None:
    """Leaving the block of an orphan settles the estate; an error leaves it to others."""
    a, b = connect(), connect()
    a.group("workers").join(member="one", estate=1)
    die(a)
    group = b.group("workers")
    orphan = group.inherit()
    assert orphan is not None
    with pytest.raises(LookupError), orphan:
        raise LookupError
    assert group.orphans() == ("one",)
    again = group.inherit()
    assert again is not None
    assert again.token > orphan.token
    with again:
        pass
    assert group.orphans() == ()
    assert again.state is tenure.State.RELEASED


def test_a_foreign_record_is_left_alone(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """What is no estate is not taken for one, and not deleted but by force."""
    a = connect()
    group = a.group("workers")
    group.create()
    drive(driver_of(a).record("@estate/7:workers/one", "junk", None))
    assert group.inherit() is None
    assert group.orphans() == ("one",)
    assert any("no estate" in each.message for each in caplog.records)
    with pytest.raises(tenure.GroupNotEmpty, match="estate"):
        group.delete()
    group.delete(force=True)
    assert group.orphans() == ()
