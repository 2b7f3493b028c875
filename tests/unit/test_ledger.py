"""Records that are changed by compare and set, when replies are lost and others are faster."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

import tenure
from tenure._recipes import ledger
from tenure._recipes.ledger import Entry, Ledger
from tenure._runtime.thread import drive
from tenure.errors import OutcomeUnknown, ProtocolError, Unavailable

TTL = 0.5


@pytest.fixture
def session() -> Iterator[Any]:
    """A session on a store in memory of its own."""
    with tenure.connect("memory://ledger", ttl=TTL, namespace=uuid.uuid4().hex) as coordinator:
        yield coordinator._session


def more(old: Entry | None) -> Entry:
    return {"n": (old["n"] if old else 0) + 1}


def test_a_change_is_made(session: Any) -> None:
    """The record says what the change made of it; an empty object deletes it, None leaves it."""
    book = Ledger(session, "book")
    assert drive(book.read()) is None
    assert drive(book.change(more)) == {"n": 1}
    assert drive(book.change(lambda old: None)) == {"n": 1}
    assert drive(book.read()) == {"n": 1}
    assert drive(book.change(lambda old: {})) is None
    assert drive(book.change(lambda old: {})) is None
    assert drive(book.read()) is None


@pytest.mark.parametrize("others", [0, 1, 5])
def test_a_lost_reply_does_not_make_it_twice(session: Any, others: int) -> None:
    """A marked change whose reply was lost is found by its mark, also below those of others."""
    book, neighbour = Ledger(session, "book"), Ledger(session, "book")
    drive(book.change(more, marked=True))
    record, sent = session.driver.record, 0

    async def deaf(*arguments: Any) -> Any:
        nonlocal sent
        sent += 1
        done = await record(*arguments)
        if sent == 1:
            for _ in range(others):
                await neighbour.change(more, marked=True)
            raise OutcomeUnknown("the reply was lost")
        return done

    session.driver.record = deaf
    drive(book.change(more, marked=True))
    assert drive(book.read())["n"] == 2 + others  # type: ignore[index]


def test_a_request_that_comes_late_is_not_carried_out(session: Any) -> None:
    """A write that is on its way while it is tried again does nothing when it arrives."""
    book = Ledger(session, "book")
    record = session.driver.record
    late: list[Any] = []

    async def slow(*arguments: Any) -> Any:
        if not late:
            late.append(arguments)
            raise OutcomeUnknown("no reply yet")
        return await record(*arguments)

    session.driver.record = slow
    assert drive(book.change(more, marked=True))["n"] == 1  # type: ignore[index]
    assert drive(record(*late[0])) is None
    assert drive(book.read())["n"] == 1  # type: ignore[index]


def test_it_is_said_when_nobody_knows(session: Any) -> None:
    """When the reply is lost and the backend stays away, the outcome is unknown; when nothing was
    sent, it is not."""
    book = Ledger(session, "book")
    away = False
    recall = session.driver.recall

    async def lost(*arguments: Any) -> Any:
        nonlocal away
        away = True
        raise OutcomeUnknown("the reply was lost")

    async def gone(name: str) -> Any:
        if away:
            raise Unavailable("nobody there")
        return await recall(name)

    session.driver.record, session.driver.recall = lost, gone
    with pytest.raises(OutcomeUnknown, match="may be made"):
        drive(book.change(more))
    with pytest.raises(Unavailable) as caught:
        drive(book.change(more))
    assert not isinstance(caught.value, OutcomeUnknown)


def test_somebody_faster_is_not_overwritten(session: Any) -> None:
    """A change that meets another starts again from what the other has written."""
    book, neighbour = Ledger(session, "book"), Ledger(session, "book")
    recall, times = session.driver.recall, 0

    async def overtaken(name: str) -> Any:
        nonlocal times
        found = await recall(name)
        times += 1
        if times in (1, 3):
            await neighbour.change(more)
        return found

    session.driver.recall = overtaken
    assert drive(book.change(more))["n"] == 3  # type: ignore[index]


def test_contention_has_a_bound(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everybody else is always faster, it ends with an error after so many tries."""
    monkeypatch.setattr(ledger, "TRIES_MAX", 5)
    times = 0

    async def never(*arguments: Any) -> None:
        nonlocal times
        times += 1

    session.driver.record = never
    with pytest.raises(Unavailable, match="contended"):
        drive(Ledger(session, "book").change(more))
    assert times == 5


@pytest.mark.parametrize("text", ["", "no", "[1]", "{", "7"])
def test_a_damaged_record_is_named(session: Any, text: str) -> None:
    """What is no JSON object is a `ProtocolError` with the record's name, and is left alone."""
    drive(session.driver.record("book", text, None))
    with pytest.raises(ProtocolError, match="'book' is damaged"):
        drive(Ledger(session, "book").change(more))
    assert drive(session.driver.recall("book")).text == text


def test_marks_have_a_bound(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record keeps no more marks than it says, the latest."""
    monkeypatch.setattr(ledger, "MARKS_MAX", 3)
    book = Ledger(session, "book")
    seen = []
    for _ in range(5):
        entry = drive(book.change(more, marked=True))
        assert entry is not None
        seen.append(entry["by"][-1])
    entry = drive(book.read())
    assert entry is not None
    assert entry["by"] == seen[2:]


def test_a_wait_for_the_backend_ends_with_a_close(session: Any) -> None:
    """While the backend is away, closing the coordinator ends the tries."""
    book = Ledger(session, "book")

    async def gone(name: str) -> Any:
        session._closed = session._closed or tenure.ClosedError("closed")
        raise Unavailable("nobody there")

    session.driver.recall = gone
    with pytest.raises(tenure.ClosedError):
        drive(book.read())
    session._closed = None  # so that the fixture closes it properly
