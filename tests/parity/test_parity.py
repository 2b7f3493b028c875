"""The two APIs are twins: same names, same parameters, same words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import tenure
import tenure.aio

CLASSES = (
    "Barrier",
    "Characteristic",
    "Claims",
    "Coordinator",
    "Election",
    "Group",
    "HashRing",
    "Latch",
    "LeaderWatch",
    "Lease",
    "Level",
    "Lock",
    "Loss",
    "Member",
    "MultiLease",
    "MultiLock",
    "Orphan",
    "Permit",
    "RWLock",
    "Ring",
    "Semaphore",
    "Subscription",
    "Term",
    "Watch",
)
ONLY_ASYNCIO = {"cancel_on_loss"}
"""A thread cannot be cancelled, so there is nothing that a lease could offer in its place."""

FOR_THE_SESSION = {"end", "doubt", "release_at_close"}
"""What the session calls on a lease, in both flavours alike."""

DUNDERS = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
COMPARED_DUNDERS = {
    *("__enter__", "__exit__", "__call__", "__bool__", "__repr__", "__init__"),
    *("__iter__", "__next__"),
}

AWAITED = {
    "Barrier": {"wait", "waiting"},
    "Characteristic": set(),
    "Coordinator": {"close", "groups", "status", "__enter__", "__exit__"},
    "Group": {
        *("create", "delete", "exists", "join", "member", "members"),
        *("on_change", "orphans", "inherit", "on_orphan"),
    },
    "Election": {
        *("campaign", "try_campaign", "run_as_leader", "leader", "candidates", "on_change"),
    },
    "LeaderWatch": {"close", "wait", "__enter__", "__exit__", "__next__"},
    "Term": {"resign", "publish", "stand_down", "release", "__enter__", "__exit__"},
    "Latch": {"count", "count_down", "wait", "reset", "delete"},
    "Lease": {"release", "__enter__", "__exit__"},
    "Level": set(),
    "Lock": {"acquire", "try_acquire", "holder", "__enter__", "__exit__"},
    "Loss": {"wait"},
    "MultiLease": {"release", "__enter__", "__exit__"},
    "MultiLock": {"acquire", "try_acquire", "__enter__", "__exit__"},
    "Permit": {"release", "__enter__", "__exit__"},
    "RWLock": set(),
    "HashRing": set(),
    "Claims": {"open", "close", "__enter__", "__exit__"},
    "Ring": {"open", "close", "on_change", "__enter__", "__exit__"},
    "Semaphore": {"acquire", "try_acquire", "limit", "resize", "__enter__", "__exit__"},
    "Member": {"bequeath", "leave", "release", "update", "__enter__", "__exit__"},
    "Orphan": {"release", "settle", "__enter__", "__exit__"},
    "Subscription": {"close", "__enter__", "__exit__"},
    "Watch": {"close", "next", "__next__", "__enter__", "__exit__"},
}
"""What waits, or talks to the backend. Everything else is answered at once in both APIs."""

# Words that must differ; each is read as its synchronous twin.
WORDS = (
    (r"`async with", "`with"),
    (r"`await ", "`"),
    (r"\btask(s?)\b", r"thread\1"),
    (r"\ba coroutine function\b", "a function"),
)


def members(owner: type) -> dict[str, Any]:
    """What a class offers, under its synchronous name."""
    found = {}
    for name in dir(owner):
        twin = DUNDERS.get(name, name)
        value = inspect.getattr_static(owner, name)
        own = any(name in vars(base) for base in owner.__mro__ if base is not object)
        public = not name.startswith("_") and name not in FOR_THE_SESSION
        if own and (public or twin in COMPARED_DUNDERS):
            found[twin] = value
    return found


def words(value: Any) -> str:
    text = " ".join((inspect.getdoc(value) or "").split())
    for pattern, twin in WORDS:
        text = re.sub(pattern, twin, text)
    return text


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    signature = inspect.signature(function)
    return [(each.name, each.kind, each.default) for each in signature.parameters.values()]


def pairs() -> list[tuple[str, str, Any, Any]]:
    found = []
    for owner in CLASSES:
        there = members(getattr(tenure.aio, owner))
        for name, value in members(getattr(tenure, owner)).items():
            found.append((owner, name, value, there.get(name)))
    return found


@pytest.mark.parametrize("owner", CLASSES)
def test_same_names(owner: str) -> None:
    """A class has the same public names in both APIs, but for what asyncio alone can do."""
    here, there = members(getattr(tenure, owner)), members(getattr(tenure.aio, owner))
    is_lease = issubclass(getattr(tenure, owner), tenure.Lease | tenure.MultiLease)
    assert set(there) - set(here) == (ONLY_ASYNCIO if is_lease else set())
    assert set(here) <= set(there)


@pytest.mark.parametrize(
    "owner, name, here, there", pairs(), ids=[f"{each[0]}.{each[1]}" for each in pairs()]
)
def test_twins(owner: str, name: str, here: Any, there: Any) -> None:
    """Twins are of one kind, take the same parameters and are described in the same words."""
    assert type(here) is type(there)
    assert words(here) == words(there)
    if inspect.isfunction(here):
        assert parameters(here) == parameters(there)
        assert not inspect.iscoroutinefunction(here)
        assert inspect.iscoroutinefunction(there) == (name in AWAITED[owner])


@pytest.mark.parametrize("owner", CLASSES)
def test_classes_are_described_alike(owner: str) -> None:
    """The docstrings of the classes are the same but for task and thread."""
    assert words(getattr(tenure, owner)) == words(getattr(tenure.aio, owner))


def test_connect() -> None:
    """`connect` takes the same parameters; its words differ in the first sentence alone."""
    assert parameters(tenure.connect) == parameters(tenure.aio.connect)
    here, there = words(tenure.connect), words(tenure.aio.connect)
    assert here.partition(" `url` defaults")[2] == there.partition(" `url` defaults")[2] != ""


def test_all_is_all() -> None:
    """`__all__` names what is there, sorted, in both APIs; every public class has words."""
    for module in (tenure, tenure.aio):
        assert list(module.__all__) == sorted(module.__all__)
        for name in module.__all__:
            assert getattr(module, name).__doc__
    assert set(tenure.aio.__all__) == {*CLASSES, "connect"}
    assert set(tenure.aio.__all__) <= set(tenure.__all__)


def test_every_error_is_exported() -> None:
    """Every exception of `tenure.errors` can be caught as `tenure.<name>`."""
    from tenure import errors

    assert set(errors.__all__) <= set(tenure.__all__)
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert defined == set(errors.__all__)
