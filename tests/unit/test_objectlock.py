"""The object lock in detail: connecting, templates, threads that end, foreign drivers."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tenure
import tenure.aio
import tenure.aio.objectlock
from tenure import objectlock
from tenure._sync import objectlock as made

EXAMPLE = Path(__file__).parents[2] / "examples" / "tenure-sqlite-document" / "src"


@pytest.fixture
def locks(request: pytest.FixtureRequest) -> Iterator[objectlock.LockService]:
    """A service over a store in memory, in a namespace of the test's own."""
    with objectlock.service("memory://objects", namespace=request.node.name) as locks:
        yield locks


def test_it_connects_when_it_is_first_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making one touches nothing; the first lock connects, whoever of many threads it is."""
    connected = []

    def connect(*args: Any, **options: Any) -> tenure.Coordinator:
        connected.append(args)
        return tenure.connect(*args, **options)

    monkeypatch.setattr(made, "connect", connect)
    locks = objectlock.LockService("memory://objects", namespace="lazy")
    assert repr(locks) == "<lock service: not connected>"
    with pytest.raises(tenure.NotHeld, match="this thread does not hold 'a'"):
        locks.unlock("a")
    assert connected == []

    @locks.locked("n{number}")
    def work(number: int) -> None:
        locks.check(f"n{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(connected) == 1
    locks.close()
    locks.close()
    with pytest.raises(tenure.ClosedError, match="lock service is closed"):
        locks.lock("a")
    assert repr(locks) == "<lock service: closed>"


def test_one_that_was_never_used_can_be_closed() -> None:
    """Closing without having connected is all right, and final."""
    locks = objectlock.service("memory://objects")
    locks.close()
    with pytest.raises(tenure.ClosedError):
        locks.open()


def test_a_wrong_url_shows_when_it_is_opened() -> None:
    """`open` raises what `connect` raises, and can be tried again."""
    locks = objectlock.service("nosuch://host")
    for _ in range(2):
        with pytest.raises(tenure.UnknownDriver, match="nosuch"):
            locks.open()


def test_blocks_hold(locks: objectlock.LockService) -> None:
    """A block holds the object, nests, and gives it back, also when it raises."""
    with locks.holding("a") as token, locks.holding("a", timeout=1) as again:
        assert token == again == locks.token("a")
        assert ": 1 held: 'a' (token " in repr(locks)
    with pytest.raises(LookupError), locks.holding("a"):
        raise LookupError
    with pytest.raises(tenure.NotHeld):
        locks.check("a")


def test_a_loss_does_not_hide_the_error(locks: objectlock.LockService) -> None:
    """A block whose object is lost raises `LeaseLost`, or the block's own error with a note."""
    assert locks._coordinator is not None
    session = locks._coordinator._session

    def lose() -> None:
        assert session.alive is not None
        session.lose(session.alive, "an experiment")

    with pytest.raises(tenure.LeaseLost, match="an experiment"), locks.holding("a"):
        lose()

    def fail() -> None:
        with locks.holding("a"):
            lose()
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine") as error:
        fail()
    assert "an experiment" in error.value.__notes__[0]


def test_a_thread_that_ended_leaves_its_place_to_nobody(locks: objectlock.LockService) -> None:
    """A new thread with the number of one that ended while it held an object holds nothing."""
    idents = []

    def leave() -> None:
        idents.append(threading.get_ident())
        locks.lock("a")

    def take() -> None:
        idents.append(threading.get_ident())
        with pytest.raises(tenure.AcquireTimeout):
            locks.lock("a", block=False)

    for target in (leave, take, take, take):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert len(idents) == 4


def test_ids_come_from_arguments(locks: objectlock.LockService) -> None:
    """Templates may use parameters by name, their defaults, attributes, items and formats."""

    def held() -> str:
        return ",".join(object_id for _, object_id in locks._held)

    @locks.locked("{kind}-{port.id:03d}-{tags[0]!r}-{rest[zone]}")
    def by_template(port: Any, *tags: str, kind: str = "p", **rest: str) -> str:
        return held()

    @locks.locked(lambda port, **rest: f"port-{port.id}")
    def by_function(port: Any, zone: str) -> str:
        return held()

    port = SimpleNamespace(id=7)
    assert by_template(port, "x", zone="z") == "p-007-'x'-z"
    assert by_template(port, "x", kind="q", zone="z") == "q-007-'x'-z"
    assert by_function(port, zone="z") == "port-7"
    assert by_template.__name__ == "by_template"
    with pytest.raises(TypeError):
        by_template()  # type: ignore[call-arg]
    assert held() == ""


def test_what_cannot_be_is_refused(locks: objectlock.LockService) -> None:
    """Bad ids, templates, timeouts and functions are refused, and the message names them."""

    def work(port_id: str) -> None:
        raise AssertionError("it ran")

    async def coroutine(port_id: str) -> None:
        raise AssertionError("it ran")

    for bad, words in (
        ("{port}", "names 'port', which is no parameter of .*work; it has 'port_id'"),
        ("{}", "names ''"),
        ("{port_id:{width}}", "names 'width'"),
        ("{port_id", "is no template"),
        (7, "is a template such as 'port-{port_id}'"),
    ):
        with pytest.raises(tenure.InvalidArgument, match=words):
            locks.locked(bad)(work)  # type: ignore[arg-type]
    with pytest.raises(tenure.InvalidArgument, match=r"use tenure\.aio"):
        locks.locked("a")(coroutine)
    with pytest.raises(tenure.InvalidArgument, match="is not a coroutine function"):
        tenure.aio.objectlock.service().locked("a")(work)  # type: ignore[arg-type]
    with pytest.raises(tenure.InvalidName, match="1 to 1,000 characters, not 0"):
        locks.locked("{port_id}")(work)("")
    with pytest.raises(tenure.InvalidName, match="a given object id is text, not int"):
        locks.locked(lambda port_id: 7)(work)("x")  # type: ignore[arg-type, return-value]
    with pytest.raises(tenure.InvalidArgument, match="has no timeout"):
        locks.lock("a", False, timeout=1)
    with pytest.raises(tenure.InvalidArgument, match="timeout"):
        locks.holding("a", timeout=-1)
    with pytest.raises(tenure.InvalidArgument, match="timeout"):
        objectlock.service(timeout=float("nan"))


def test_the_services_own_timeout() -> None:
    """A service's timeout is that of every lock that does not say otherwise."""
    with (
        objectlock.service("memory://objects", namespace="timeout", timeout=0.01) as locks,
        tenure.connect("memory://objects", namespace="timeout") as client,
        client.lock("a"),
    ):
        with pytest.raises(tenure.AcquireTimeout, match=r"0\.01"):
            locks.lock("a")
        with pytest.raises(tenure.AcquireTimeout, match=r"0\.02"):
            locks.lock("a", timeout=0.02)


def test_a_forked_child_holds_nothing(locks: objectlock.LockService) -> None:
    """In a child process, what the parent has locked counts as lost, and is not unlocked."""
    locks.lock("a")
    child = os.fork()
    if not child:
        code = 1
        try:
            locks.lock("a")
        except tenure.LeaseLost:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    locks.check("a")
    locks.unlock("a")


def test_a_driver_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that another distribution has registered is found by its URL, like our own."""
    installed = tmp_path / "tenure_sqlite_document-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Name: tenure-sqlite-document\nVersion: 0.1.0\n")
    (installed / "entry_points.txt").write_text(
        "[tenure.drivers]\nsqlite-document = tenure_sqlite_document:SqliteDocumentDriver\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLE))
    url = f"sqlite-document://{tmp_path}/locks.db"
    with objectlock.service(url) as locks, objectlock.service(url) as others:
        token = locks.lock("a")
        with pytest.raises(tenure.AcquireTimeout):
            others.lock("a", block=False)
        locks.unlock("a")
        assert others.lock("a") > token


def test_tasks_are_callers() -> None:
    """With asyncio, the caller is the task: a child of the task that holds an object waits."""

    async def main() -> None:
        async with tenure.aio.objectlock.service("memory://objects", namespace="aio") as locks:
            async with locks.holding("a"):
                child = asyncio.create_task(locks.lock("a"))
                await asyncio.sleep(0)
                assert not child.done()
            await child
            with pytest.raises(tenure.NotHeld, match="this task does not hold 'a'; another task"):
                await locks.unlock("a")

    asyncio.run(main())


def test_twins() -> None:
    """Both services have the same methods, parameters and words."""
    here, there = objectlock.LockService, tenure.aio.objectlock.LockService
    names = {name for name in vars(there) if not name.startswith("_")}
    assert {name for name in vars(here) if not name.startswith("_")} == names
    for name in names & {"lock", "unlock", "token", "check", "holding", "locked", "open", "close"}:
        one, two = inspect.signature(getattr(here, name)), inspect.signature(getattr(there, name))
        assert list(one.parameters) == list(two.parameters)
    assert objectlock.__all__ == tenure.aio.objectlock.__all__
