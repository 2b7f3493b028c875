"""The ring of a group in detail: weights, who is ignored, and what is refused."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator

import pytest

import tenure
import tenure.aio
from tenure._recipes import ring as recipe

KEYS = [f"key-{number}" for number in range(300)]
SECONDS_MAX = 10.0


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[tenure.Coordinator]:
    """A coordinator over a store in memory, in a namespace of the test's own."""
    with tenure.connect("memory://ring", namespace=request.node.name) as client:
        yield client


def test_weights_come_from_capabilities(
    client: tenure.Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    """The weight is what the function makes of a member; where it fails, it is 1, and is logged."""
    group = client.group("g")
    for id, cores in (("small", 1), ("large", 4), ("odd", None), ("huge", 10**9), ("out", 1)):
        group.join({"cores": cores}, member=id)
    with group.ring(weights=lambda info: info.capabilities["cores"], ignore={"out"}) as ring:
        assert ring.snapshot.nodes == {"small": 1, "large": 4, "odd": 1, "huge": 1}
        with group.ring(ignore="out") as other:
            assert set(other.snapshot.nodes.values()) == {1}
            assert "out" not in other
    errors = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert [each.args[1] for each in errors if isinstance(each.args, tuple)] == ["odd", "huge"]


def test_a_member_that_publishes_anew_weighs_anew(client: tenure.Coordinator) -> None:
    """When a member's capabilities change its weight, keys move; when they do not, none do."""
    group = client.group("g")
    a, b = group.join(1, member="a"), group.join(1, member="b")
    changes: list[tenure.RingChange] = []
    told = threading.Event()

    def follow(change: tenure.RingChange) -> None:
        changes.append(change)
        told.set()

    with group.ring(a, weights=lambda info: info.capabilities) as ring:
        ring.on_change(follow)
        mine = ring.mine(KEYS)
        b.update(1.0)
        a.update(3)
        assert told.wait(SECONDS_MAX)
        assert len(ring.mine(KEYS)) > len(mine)
        assert ring.owners("key", 5) in (("a", "b"), ("b", "a"))
    (change,) = changes
    assert change.joined == change.left == ()
    moves = change.moves(KEYS)
    assert moves
    assert {(move.before, move.after) for move in moves} == {("b", "a")}


def test_a_change_while_subscribing_is_told(
    client: tenure.Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes between the reading and the first wait of a subscriber is told, too."""
    group = client.group("g")
    told = threading.Event()

    class Late(recipe.Follower):
        def __init__(self, ring: recipe.RingRecipe) -> None:
            super().__init__(ring)
            group.join()
            give_up = time.monotonic() + SECONDS_MAX
            while not len(ring.latest):
                assert time.monotonic() < give_up

    monkeypatch.setattr(recipe, "Follower", Late)
    with group.ring() as ring:
        ring.on_change(lambda change: told.set())
        assert told.wait(SECONDS_MAX)


def test_a_subscription_can_be_closed_alone(client: tenure.Coordinator) -> None:
    """A subscriber that goes is told no more; the others are."""
    group = client.group("g")
    told, wrong = threading.Event(), threading.Event()
    with group.ring() as ring:
        ring.on_change(lambda change: told.set())
        with ring.on_change(lambda change: wrong.set()):
            pass
        group.join()
        assert told.wait(SECONDS_MAX)
    assert not wrong.is_set()


def test_a_callback_may_close_the_ring(client: tenure.Coordinator) -> None:
    """A callback that closes its own ring does not wait for itself."""
    group = client.group("g")
    done = threading.Event()
    ring = group.ring()
    ring.open()

    def close(change: tenure.RingChange) -> None:
        ring.close()
        done.set()

    ring.on_change(close)
    group.join()
    assert done.wait(SECONDS_MAX)
    assert repr(ring) == "<ring of the group 'g': closed>"


def test_a_member_that_is_lost_owns_nothing(client: tenure.Coordinator) -> None:
    """From the moment of the loss, whatever the ring shows yet."""
    group = client.group("g")
    member = group.join()
    with group.ring(member) as ring:
        assert ring.mine(KEYS) == KEYS
        ring._recipe._refresher._call = lambda change: None  # type: ignore[union-attr]
        client._session.lose(member._life, "an experiment")
        assert ring.mine(KEYS) == []
        assert not ring.is_mine("key")
        assert ring.owner("key") == member.id


def test_what_cannot_be_is_refused(client: tenure.Coordinator) -> None:
    """A member of another group, a ring that is not open, and questions without a member."""
    group, other = client.group("g"), client.group("other").join()
    with pytest.raises(tenure.InvalidArgument, match="not a member of the group 'g'"):
        group.ring(other)
    with pytest.raises(tenure.InvalidArgument, match="not a member of the group 'g'"):
        group.ring("me")  # type: ignore[arg-type]
    with pytest.raises(tenure.InvalidArgument, match="function of a MemberInfo, not 2"):
        group.ring(weights=2)  # type: ignore[arg-type]
    with pytest.raises(tenure.InvalidArgument, match="points"):
        group.ring(points=0)
    ring = group.ring()
    with pytest.raises(tenure.ClosedError, match="not open"):
        ring.owner("key")
    with ring, pytest.raises(tenure.InvalidArgument, match=r"group\.ring\(member\)"):
        ring.mine(["key"])
    assert ring.group == "g"
    with pytest.raises(tenure.ClosedError, match="is closed"):
        ring.open()


def test_eyes_can_read_it(client: tenure.Coordinator) -> None:
    """A ring shows its group and its members."""
    group = client.group("g")
    with group.join(member="w1"), group.ring() as ring:
        assert repr(ring) == "<ring of the group 'g': hash ring of 1: 'w1'>"
        assert len(ring) == 1


def test_a_coroutine_may_be_called_back() -> None:
    """With asyncio, a callback can be a coroutine function."""

    async def main() -> None:
        async with tenure.aio.connect("memory://ring", namespace="aio") as client:
            group = client.group("g")
            told = asyncio.Event()

            async def follow(change: tenure.RingChange) -> None:
                told.set()

            async with group.ring() as ring:
                await ring.on_change(follow)
                await group.join()
                await asyncio.wait_for(told.wait(), SECONDS_MAX)

    asyncio.run(main())
