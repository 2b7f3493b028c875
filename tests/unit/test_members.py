"""Two readings of a group, and what is between them, found out once for all who ask."""

from __future__ import annotations

import json

from tenure._model import Claim
from tenure._recipes.members import Members


def reading(*tokens: int) -> Members:
    """A group of which each member has one of the tokens."""
    bodies = {token: json.dumps({"id": f"m{token}", "token": token, "at": 0}) for token in tokens}
    return Members("g", [Claim("@group/g", f"c{at}", "s", at, "o", bodies[at]) for at in tokens])


def test_many_watchers_find_the_changes_once() -> None:
    """Who compares the same two readings gets the same changes, in a list of its own."""
    before, after = reading(1, 2), reading(2, 3)
    first, second = before.changes(after), before.changes(after)
    assert [change.kind for change in first] == ["left", "joined"]
    assert all(one is other for one, other in zip(first, second, strict=True))
    first.clear()
    assert before.changes(after) == second


def test_another_reading_is_compared_anew() -> None:
    """What is remembered is of one pair of readings, and of no other."""
    one, two, three = reading(1), reading(2), reading(1, 2, 3)
    assert len(one.changes(three)) == 2
    assert [change.member.id for change in two.changes(three) if change.member] == ["m1", "m3"]
    assert len(one.changes(three)) == 2
    assert reading(1).changes(one) == []


def test_old_readings_are_let_go() -> None:
    """A reading that was compared remembers the one before, and not those before that."""
    one, two, three = reading(1), reading(2), reading(3)
    remembered = []
    for before, after in ((one, two), (two, three)):
        before.changes(after)
        remembered.append([each._since is not None for each in (one, two, three)])
    assert remembered == [[False, True, False], [False, False, True]]
