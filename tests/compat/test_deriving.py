"""What the base classes do for a driver that somebody else has written."""

from __future__ import annotations

from typing import Any

import pytest

from tenure.compat.tooz import ToozError, coordination, partitioner
from tenure.compat.tooz._results import Settled


class Old(coordination.CoordinationDriverCachedRunWatchers):
    """A driver as one wrote it before there was a call for all members' capabilities."""

    def __init__(self, member_id: Any = "me") -> None:
        super().__init__(member_id, None, {})
        self.groups: dict[Any, dict[Any, Any]] = {}

    def heartbeat(self) -> float:
        return 0.01

    def join_group(
        self, group_id: Any, capabilities: Any = None
    ) -> coordination.CoordAsyncResult[None]:
        self.groups.setdefault(group_id, {})[self._member_id] = capabilities
        self._joined_groups.add(group_id)
        return Settled(lambda: None)

    def leave_group(self, group_id: Any) -> coordination.CoordAsyncResult[None]:
        self._joined_groups.discard(group_id)
        return Settled(lambda: self.groups[group_id].clear())

    def get_members(self, group_id: Any) -> coordination.CoordAsyncResult[set[Any]]:
        return Settled(lambda: {*self.groups[group_id], "gone"})

    def get_member_capabilities(
        self, group_id: Any, member_id: Any
    ) -> coordination.CoordAsyncResult[Any]:
        def work() -> Any:
            if member_id not in self.groups[group_id]:
                raise coordination.MemberNotJoined(group_id, member_id)
            return self.groups[group_id][member_id]

        return Settled(work)


def test_who_has_a_heartbeat_has_it_called() -> None:
    """The heart beats for a class that has overridden `heartbeat`, and for no other."""
    driver = Old()
    assert driver.requires_beating
    driver.start(start_heart=True)
    assert driver.heart.is_alive()
    driver.stop()
    assert not coordination.CoordinationDriver("m", None, {}).requires_beating


def test_the_capabilities_of_all_are_gathered() -> None:
    """They are asked for one by one, without the members that have left meanwhile."""
    driver = Old()
    driver.join_group("g", {"weight": 3}).get()
    found: Any = driver.get_members_with_capabilities("g").get()
    assert found == {"me": {"weight": 3}}
    assert len(driver.join_partitioned_group("p", weight=2).ring) == 64


def test_a_partitioner_that_cannot_be_made_watches_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its callbacks are taken away again, whichever call has failed."""
    for call in ("get_members_with_capabilities", "watch_leave_group"):
        driver = Old()
        driver.join_group("g").get()

        def fails(*_: Any) -> Any:
            raise ToozError("no")

        monkeypatch.setattr(driver, call, fails)
        with pytest.raises(ToozError, match="no"):
            partitioner.Partitioner(driver, "g")
        assert not driver._has_hooks_for_group("g")
        assert not driver._group_members


def test_an_event_whose_callback_raised_is_told_again() -> None:
    """It, and what came after it, are told by the next call, and nothing twice."""
    driver, told = Old(), list[Any]()
    driver.groups["g"] = {"w": None}

    def flaky(event: Any) -> None:
        told.append((type(event).__name__, event.member_id))
        if len(told) in (2, 5):
            raise RuntimeError("once")

    driver.watch_join_group("g", flaky)
    driver.watch_leave_group("g", flaky)
    driver.groups["g"] = {"x": None, "y": None, b"z": None}
    for _ in range(2):
        with pytest.raises(RuntimeError, match="once"):
            driver.run_watchers()
    driver.run_watchers()
    joined, left = "MemberJoinedGroup", "MemberLeftGroup"
    ids = ["x", "y", "y", b"z", "w", "w"]
    assert told == [(joined, id) for id in ids[:4]] + [(left, id) for id in ids[4:]]
    assert driver.run_watchers() == []


def test_it_knows_where_it_is_a_member() -> None:
    """A start forgets the groups of before, and a look those that it was removed from."""
    driver = Old()
    driver.start()
    driver.join_group("g").get()
    driver.watch_leave_group("g", print)
    driver.run_watchers()
    assert driver._joined_groups == {"g"}
    del driver.groups["g"]["me"]
    driver.run_watchers()
    assert driver._joined_groups == set()
    driver._joined_groups.add("h")
    driver._started = False  # as if `stop` had been interrupted
    driver.start()
    assert driver._joined_groups == set()
    driver.stop()


def test_it_has_the_names_that_subclasses_use() -> None:
    """An id is as it was given, and the cache of members is filled by one method."""
    driver = Old()
    assert driver._member_id == "me"
    assert Old(b"me")._member_id == b"me"
    driver.groups["g"] = {}
    driver._init_watch_group("g")
    assert driver._group_members == {"g": {"gone"}}
    assert coordination.get_coordinator("memory://x", "me")._member_id == b"me"
