"""The document rung over a dictionary, with a clock that the test moves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tenure._model import Roll, Traits
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers.document import DRIFT, SAVES_MAX, Document, DocumentDriver, encoded
from tenure.errors import SessionLost, Unavailable

TTL = 5.0


class Clock(ThreadRuntime):
    """Time that passes only when the test says so, or somebody sleeps."""

    def __init__(self) -> None:
        self.time = 0.0
        self.now = lambda: self.time

    async def sleep(self, until: float) -> None:
        self.time = max(self.time, until)


class Documents(DocumentDriver):
    """Documents in a dictionary that several drivers share."""

    traits = Traits(scope="threads")

    def __init__(self, clock: Clock, store: dict[tuple[str, str], tuple[Document, int]]) -> None:
        super().__init__(Url("dict"), clock, "tests", TTL)
        self.store = store
        self.saves = 0
        self.moved: list[str] = []
        self.before_save: list[Callable[[], None]] = []

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def load(self, kind: str, name: str) -> tuple[Document | None, Any]:
        return self.store.get((kind, name), (None, 0))

    async def save(self, kind: str, name: str, document: Document | None, version: Any) -> Any:
        self.saves += 1
        if self.before_save:
            self.before_save.pop()()
        if self.store.get((kind, name), (None, 0))[1] != version:
            return None
        if document is None:
            del self.store[kind, name]
            return version
        self.store[kind, name] = document, version + 1
        return version + 1

    async def names(self, kind: str) -> Sequence[str]:
        return [name for each, name in self.store if each == kind]

    async def moved_up(self, claim: Any) -> None:
        self.moved.append(claim.id)


class Pair:
    """Two clients of one store, each with a session."""

    def __init__(self) -> None:
        self.clock = Clock()
        store: dict[tuple[str, str], tuple[Document, int]] = {}
        self.a, self.b = Documents(self.clock, store), Documents(self.clock, store)
        self.of_a = drive(self.a.start("a", lambda reason: None))
        self.of_b = drive(self.b.start("b", lambda reason: None))


@pytest.fixture
def pair() -> Pair:
    """Two clients of one store."""
    return Pair()


def claim(driver: Documents, session: str, id: str, width: int | None = None) -> Roll:
    return drive(driver.claim(session, "roster", id, "", width))


def test_a_claim_is_entered_once(pair: Pair) -> None:
    """The same id twice is one claim with one token; a taken roster is not written for a try."""
    first = claim(pair.a, pair.of_a, "a1")
    assert first.mine is not None
    assert claim(pair.a, pair.of_a, "a1").mine == first.mine
    saves = pair.b.saves
    refused = claim(pair.b, pair.of_b, "b1", width=1)
    assert (refused.mine, refused.rank, refused.before) == (None, 1, "a1")
    assert pair.b.saves == saves
    second = claim(pair.b, pair.of_b, "b1")
    assert second.mine is not None
    assert second.mine.token == first.mine.token + 1
    assert (second.rank, second.before, second.claims) == (1, "a1", (first.mine,))


def test_a_lock_that_was_left_free_and_is_taken_since_is_not_granted(pair: Pair) -> None:
    """What one remembers of a roster grants nothing; a try on it is refused as well."""
    claim(pair.a, pair.of_a, "a1")
    drive(pair.a.withdraw(pair.of_a, "roster", "a1"))
    theirs = claim(pair.b, pair.of_b, "b1").mine
    assert theirs is not None
    refused = claim(pair.a, pair.of_a, "a2", width=1)
    assert (refused.mine, refused.rank, refused.before) == (None, 1, "b1")
    queued = claim(pair.a, pair.of_a, "a3")
    assert queued.mine is not None
    assert (queued.rank, queued.mine.token) == (1, theirs.token + 1)


def test_a_withdrawal_wakes_the_next_and_tokens_go_on(pair: Pair) -> None:
    """Who moves up is told; an empty roster remembers its last token."""
    claim(pair.a, pair.of_a, "a1")
    claim(pair.b, pair.of_b, "b1")
    drive(pair.a.withdraw(pair.of_a, "roster", "a1"))
    assert pair.a.moved == ["b1"]
    assert drive(pair.b.read(pair.of_b, "roster", "b1")).rank == 0
    drive(pair.b.withdraw(pair.of_b, "roster", "b1"))
    assert drive(pair.a.rosters("")) == []
    again = claim(pair.a, pair.of_a, "a2").mine
    assert again is not None
    assert again.token == 3
    assert drive(pair.a.rosters("ros")) == ["roster"]
    assert drive(pair.a.rosters("other")) == []


def test_a_late_claim_comes_to_nothing(pair: Pair) -> None:
    """A save that was under way when its claim was withdrawn finds another version, and fails."""
    _, version = drive(pair.a.load("roster", "roster"))
    drive(pair.a.withdraw(pair.of_a, "roster", "a1"))
    late = {"token": 1, "claims": [["a1", pair.of_a, 1, "a", ""]]}
    assert drive(pair.a.save("roster", "roster", late, version)) is None


def test_a_silent_session_is_buried_after_its_ttl(pair: Pair) -> None:
    """Whoever waits behind a session that shows no sign for a whole TTL buries it, not before."""
    claim(pair.a, pair.of_a, "a1")
    assert claim(pair.b, pair.of_b, "b1").rank == 1
    pair.clock.time += TTL * DRIFT - 0.001
    assert drive(pair.b.read(pair.of_b, "roster", "b1")).rank == 1
    pair.clock.time += 0.002
    assert drive(pair.b.read(pair.of_b, "roster", "b1")).rank == 0
    assert pair.b.moved == ["b1"]
    for late in (pair.a.renew(pair.of_a), pair.a.claim(pair.of_a, "roster", "a2", "", None)):
        with pytest.raises(SessionLost, match="buried"):
            drive(late)
    drive(pair.a.end(pair.of_a))


def test_a_renewed_session_is_not_buried(pair: Pair) -> None:
    """A renewal starts the TTL anew for whoever watches, also one in the moment of the burial."""
    claim(pair.a, pair.of_a, "a1")
    claim(pair.b, pair.of_b, "b1")
    pair.clock.time += TTL * 0.9
    drive(pair.a.renew(pair.of_a))
    drive(pair.b.read(pair.of_b, "roster", "b1"))
    pair.clock.time += TTL * 0.9
    assert drive(pair.b.read(pair.of_b, "roster", "b1")).rank == 1
    pair.clock.time += TTL
    pair.b.before_save = [lambda: drive(pair.a.renew(pair.of_a))]
    assert drive(pair.b.read(pair.of_b, "roster", "b1")).rank == 1
    assert not pair.b.before_save
    drive(pair.a.renew(pair.of_a))


def test_a_body_is_compared_and_set(pair: Pair) -> None:
    """Only who knows the present body may replace it, and only while the claim is there."""
    mine = claim(pair.a, pair.of_a, "a1").mine
    assert mine is not None
    amended = drive(pair.a.amend(mine, "new"))
    assert amended.body == "new"
    assert drive(pair.b.read(pair.of_b, "roster", "a1")).mine == amended
    with pytest.raises(SessionLost, match="amended by somebody else"):
        drive(pair.b.amend(mine, "newer"))
    drive(pair.a.withdraw(pair.of_a, "roster", "a1"))
    with pytest.raises(SessionLost, match="is gone"):
        drive(pair.a.amend(amended, "newest"))


def test_losing_every_race_has_an_end(pair: Pair) -> None:
    """When somebody else is always faster, a claim ends with `Unavailable` after a bounded time."""

    def overtake() -> None:
        document, version = pair.a.store.get(("roster", "roster"), ({"token": 0, "claims": []}, 0))
        pair.a.store["roster", "roster"] = document, version + 1

    pair.b.before_save = [overtake] * (SAVES_MAX * 2)
    saves = pair.b.saves
    with pytest.raises(Unavailable, match="too contended"):
        claim(pair.b, pair.of_b, "b1")
    assert pair.b.saves - saves == SAVES_MAX
    pair.b.before_save = []
    assert claim(pair.b, pair.of_b, "b1").rank == 0


@pytest.mark.parametrize(
    "document",
    [
        {"token": 7, "claims": []},
        {"token": 7, "claims": [["i", "s", 7, "o'w\"n\\\u00e9\U0001f512\0", "", False]]},
        {"token": 7, "claims": [["i", "s", 7, "o", "", True]]},
        {"token": 7, "claims": [["i", "s", 7, "o", "body", False]]},
        {"token": 8, "claims": [["i", "s", 7, "o", "", False], ["j", "s", 8, "o", "", False]]},
        {"token": 7, "claims": [], "more": 1},
        {"text": "a record"},
    ],
)
def test_a_document_is_encoded_as_json(document: Document) -> None:
    """The short cut for most rosters writes, to the byte, what the encoder would."""
    assert encoded(document) == json.dumps(document, separators=(",", ":"))
