"""The status in detail: what it costs, what only some backends tell, and what is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import tenure
from tenure import _names, _verdicts
from tenure._model import Claim, Taken
from tenure._runtime.thread import drive
from tenure.drivers.base import Mutex
from tenure.errors import OutcomeUnknown, Unsupported

URL = "memory://status"
VERBS = ("claim", "withdraw", "read", "census", "rosters", "recall", "record", "recorded", "start")
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


def driver_of(client: tenure.Coordinator) -> Any:
    return client._session.driver


def counted(client: tenure.Coordinator, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The driver's calls from now on."""
    calls: list[str] = []
    driver = driver_of(client)

    def count(verb: str) -> None:
        real = getattr(driver, verb)

        async def call(*args: Any, **options: Any) -> Any:
            calls.append(verb)
            return await real(*args, **options)

        monkeypatch.setattr(driver, verb, call)

    for verb in VERBS:
        count(verb)
    return calls


def test_looking_only_reads(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no session and writes nothing; members' locks and estates cost nothing more."""
    holder, viewer = connect(), connect()
    held = [
        holder.lock("a").acquire(),
        holder.lock("b").acquire(),
        holder.election("c").campaign(),
        *(holder.group("d").join(member=str(number), estate=1) for number in range(20)),
        holder.semaphore("e", 1).acquire(),
    ]
    calls = counted(viewer, monkeypatch)
    assert len(viewer.status()) == 5
    assert sorted(calls) == [
        *("census",) * 5,  # two locks, the leader, the group, the semaphore
        *("recall", "recorded", "rosters"),
    ]
    assert viewer._session.alive is None
    for lease in held:
        lease.release()


def test_claims_are_told_by_group_and_slot(connect: Connect) -> None:
    """The slots that a member has claimed are held, under the names of its group and the slot."""
    client = connect(owner="me")
    with client.group("1:a/b").join() as member, member.claims(["one", "2:xy/two"]) as claims:
        give_up = tenure.now() + 20
        while len(claims.held()) < 2:
            assert tenure.now() < give_up, "the slots are not claimed"
        found = [each for each in client.status() if each.kind == "claim"]
        assert [(each.name, each.holders[0].owner) for each in found] == [
            ("1:a/b/2:xy/two", "me"),
            ("1:a/b/one", "me"),
        ]


class _Native(Mutex):
    """A mutex that says what it is told to."""

    def __init__(self, taken: Sequence[Taken]) -> None:
        self._taken = taken

    async def seize(self, *args: Any, **options: Any) -> None:
        raise AssertionError

    async def unseize(self, grant: Any) -> None:
        raise AssertionError

    async def taken(self) -> Sequence[Taken]:
        return self._taken


def test_what_a_native_mutex_tells(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its locks are told by what they are for; those of members and leaders elsewhere."""
    client = connect()
    one = (tenure.Holder("me", 3, 5.0),)
    found = [
        Taken(None, one, None),
        Taken("@election/led", one),
        Taken(_names.of("member", "group", "id"), one),
        Taken(_names.of("claims", "gro/up", "slot"), one, 1),
        Taken("@@at", one, 2, shared=True),
        Taken("b\N{HORIZONTAL ELLIPSIS}", one, 0),
        Taken("@semaphore/cut\N{HORIZONTAL ELLIPSIS}", one, 0),
    ]
    monkeypatch.setattr(driver_of(client), "mutex", _Native(found))
    assert client.status() == (
        tenure.Status("lock", "@at", one, 2, shared=True),
        tenure.Status("lock", "b\N{HORIZONTAL ELLIPSIS}", one, 0),
        tenure.Status("lock", None, one, None),
        tenure.Status("election", "led"),
        tenure.Status("claim", "gro/up/slot", one, 1),
    )


def test_a_driver_with_nothing_but_a_mutex(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are no rosters and no records, the locks are told all the same."""
    client = connect()
    driver = driver_of(client)

    async def unsupported(prefix: str) -> Sequence[str]:
        raise Unsupported("not here")

    monkeypatch.setattr(driver, "rosters", unsupported)
    monkeypatch.setattr(driver, "recorded", unsupported)
    assert client.status() == ()
    monkeypatch.setattr(driver, "mutex", _Native([Taken("a", (tenure.Holder("me"),), 0)]))
    assert client.status() == (tenure.Status("lock", "a", (tenure.Holder("me"),), 0),)


def test_what_others_wrote_harms_nobody(connect: Connect) -> None:
    """A damaged record, a post that nobody can read and an unknown kind leave the rest readable."""
    client = connect()
    driver = driver_of(client)
    life = drive(client._session.life())
    for number, kind in enumerate(("semaphore", "barrier", "latch", "group", "estate")):
        assert drive(driver.record(f"@{kind}/x", "{" if number % 2 else "[]", None)) is not None
    for number, kind in enumerate(("leader", "candidate", "group", "member", "unheard", "")):
        drive(driver.claim(life.id, f"@{kind}/x", f"id-{number}", "[", None))
    lease = client.lock("x").acquire()
    found = {each.kind: each for each in client.status() if each.name == "x"}
    assert set(found) == {"lock", "semaphore", "election", "group", "barrier", "latch"} - {
        *("semaphore", "latch")  # whose records say nothing
    }
    assert found["lock"].holders[0].token == lease.token
    assert (found["election"].holders, found["election"].waiters) == ((), 0)
    assert (found["barrier"].limit, found["barrier"].waiters) == (None, 0)
    assert found["group"].members == ()


def test_what_goes_meanwhile_is_left_out(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was listed and has gone since is not told, and who has left is no orphan."""
    client = connect()
    lock, permit = client.lock("a").acquire(), client.semaphore("b", 1).acquire()
    member = client.group("c").join(estate=1)
    driver = driver_of(client)
    real = driver.recorded

    async def last_moment(prefix: str) -> Any:
        found = await real(prefix)
        if not prefix:
            for each in (lock, permit, member):
                each.release()
        return found

    monkeypatch.setattr(driver, "recorded", last_moment)
    semaphore, group = client.status()
    assert (semaphore.kind, semaphore.holders, semaphore.limit) == ("semaphore", (), 1)
    assert (group.kind, group.members, group.orphans) == ("group", (), ())


def test_a_lost_reply_is_asked_for_again(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that never came costs another request, and not the answer."""
    client = connect()
    lease = client.lock("a").acquire()
    for verb in ("rosters", "recorded", "census"):
        real = getattr(driver_of(client), verb)
        lost: list[int] = []

        async def failing(name: str, real: Any = real, lost: list[int] = lost) -> Any:
            if not lost:
                lost.append(1)
                raise OutcomeUnknown("the reply never came")
            return await real(name)

        with monkeypatch.context() as patch:
            patch.setattr(driver_of(client), verb, failing)
            (status,) = client.status()
        assert lost
        assert status.holders[0].token == lease.token


def test_who_was_let_through_waits_no_more(connect: Connect) -> None:
    """At a barrier, those wait who came after it was opened last."""
    client = connect()
    driver = driver_of(client)
    life = drive(client._session.life())
    for number in range(3):
        drive(driver.claim(life.id, "@barrier/x", f"id-{number}", "here", None))
    second = drive(driver.census("@barrier/x"))[1].token
    drive(driver.record("@barrier/x", f'{{"parties":2,"upto":{second},"trips":[]}}', None))
    assert client.status() == (tenure.Status("barrier", "x", (), 1, 2),)


def test_a_closed_coordinator_says_so(connect: Connect) -> None:
    """Once it is closed, a coordinator has nothing to tell."""
    client = connect()
    client.close()
    with pytest.raises(tenure.ClosedError):
        client.status()


@pytest.mark.parametrize(
    "names", [("group", "id"), ("a/b", "c/d"), ("3:abc/x", "1:y/z"), ("", ""), ("日本/", "5:")]
)
def test_names_that_were_put_together_come_apart(names: tuple[str, str]) -> None:
    """Whatever two names are, they are told from each other again."""
    assert _names.split(_names.read(_names.of("member", *names)).name) == names


@pytest.mark.parametrize(
    "name", ["", "x", "x:y", ":/", "5:abc", "99999999999999999999:a", "²:ab/c"]
)
def test_what_was_not_put_together_stays_whole(name: str) -> None:
    """A name that is none of two, or was cut, is not taken apart, and harms nobody."""
    assert _names.split(name) == ("", name)


def test_who_holds() -> None:
    """The first claims hold; behind a reader, all readers up to the first writer."""

    def held(modes: str, width: int) -> str:
        claims = [Claim("r", str(at), "s", at, shared=mode == "r") for at, mode in enumerate(modes)]
        return "".join(claim.id for claim in _verdicts.holding(claims, width))

    assert held("", 1) == ""
    assert held("www", 1) == "0"
    assert held("www", 2) == "01"
    assert held("www", 5) == "012"
    assert held("rrwr", 1) == "01"
    assert held("wrr", 1) == "0"
