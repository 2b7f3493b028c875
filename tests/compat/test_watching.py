"""What a callback that raises, and a time that is over, leave to the next `run_watchers`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tenure._runtime import _clock
from tenure.compat.tooz import coordination
from tenure.compat.tooz._driver import TenureDriver

GROUP = b"g"


@pytest.fixture
def clients() -> Iterator[list[TenureDriver]]:
    """A client that watches the group of the others, in which nobody is yet."""
    url = f"memory://{uuid.uuid4().hex}"
    made = [coordination.get_coordinator(url, b"%d" % number) for number in range(4)]
    for client in made:
        client.start()
    made[0].create_group(GROUP).get()
    yield [client for client in made if isinstance(client, TenureDriver)]
    for client in made:
        client.stop()


def test_an_event_whose_callback_raised_is_told_again(clients: list[TenureDriver]) -> None:
    """It, and what came after it, are told by the next call, and nothing twice."""
    watching, *others = clients
    told: list[bytes] = []

    def flaky(event: Any) -> None:
        told.append(event.member_id)
        if len(told) == 2:
            raise RuntimeError("once")

    watching.watch_join_group(GROUP, flaky)
    for other in others:
        other.join_group(GROUP).get()
    with pytest.raises(RuntimeError, match="once"):
        watching.run_watchers()
    assert watching.run_watchers() == [None, None]
    assert told == [b"1", b"2", b"2", b"3"]
    assert watching.run_watchers() == []


def test_what_there_was_no_time_for_is_told_the_next_time(
    clients: list[TenureDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is looked at before each event, and before each attempt to lead."""
    watching, *others = clients
    clock = 0.0
    told: list[bytes] = []
    monkeypatch.setattr(_clock, "now", lambda: clock)

    def slow(event: Any) -> None:
        nonlocal clock
        clock += 2
        told.append(event.member_id)

    watching.watch_join_group(GROUP, slow)
    for other in others:
        other.join_group(GROUP).get()
    with pytest.raises(coordination.OperationTimedOut, match="time"):
        watching.run_watchers(timeout=3)
    assert told == [b"1", b"2"]
    assert watching.run_watchers(timeout=3) == [None]
    assert told == [b"1", b"2", b"3"]
    watching.watch_elected_as_leader(GROUP, slow)
    others[0].leave_group(GROUP).get()
    others[0].join_group(GROUP).get()
    with pytest.raises(coordination.OperationTimedOut):
        watching.run_watchers(timeout=1)
    assert watching.get_leader(GROUP).get() is None
    watching.run_watchers(timeout=1)
    assert watching.get_leader(GROUP).get() == b"0"


def test_a_read_is_repeated_for_as_long_as_there_is_time(
    clients: list[TenureDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that does not answer is asked no longer than the call may take."""
    from tenure.errors import Unavailable

    watching = clients[0]
    watching.watch_join_group(GROUP, print)

    async def away(*_: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(watching.tenure._session.driver, "census", away)
    began = _clock.now()
    with pytest.raises(coordination.OperationTimedOut) as caught:
        watching.run_watchers(timeout=0.1)
    assert isinstance(caught.value.cause, coordination.ToozConnectionError)
    assert _clock.now() - began < watching.tenure.ttl / 3


def test_a_callback_may_run_the_watchers(clients: list[TenureDriver]) -> None:
    """What is being told is not told by the call inside of it as well."""
    watching, other, *_ = clients
    told: list[bytes] = []

    def again(event: Any) -> None:
        told.append(event.member_id)
        watching.run_watchers()

    watching.watch_join_group(GROUP, again)
    other.join_group(GROUP).get()
    watching.run_watchers()
    assert told == [b"1"]


def test_a_callback_may_take_the_next_ones_away(clients: list[TenureDriver]) -> None:
    """A group that is watched no more, when its turn comes, is not followed again."""
    watching, other, *_ = clients
    watching.create_group(b"h").get()

    def unwatch(_: Any) -> None:
        watching.unwatch_join_group(b"h", print)

    watching.watch_join_group(GROUP, unwatch)
    watching.watch_join_group(b"h", print)
    second = watching._watchers["h"]
    other.join_group(GROUP).get()
    watching.run_watchers()
    assert second._subscription is None


def test_a_partitioner_outlives_its_coordinator(clients: list[TenureDriver]) -> None:
    """It can be stopped after the coordinator was, and after that was started again."""
    client = clients[0]
    first, second = map(client.join_partitioned_group, (b"p", b"q"))
    client.stop()
    first.stop()
    client.start()
    client.join_group(b"q").get()
    client.leave_partitioned_group(second)
    assert not client._watchers
