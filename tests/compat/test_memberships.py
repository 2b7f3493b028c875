"""What threads of one coordinator do to each other while one of them joins a group."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tenure.compat.tooz import ToozError, coordination
from tenure.compat.tooz._driver import TenureDriver
from tenure.compat.tooz._memberships import Memberships

from .suite import lose, stop, until


@pytest.fixture
def pair() -> Iterator[tuple[TenureDriver, TenureDriver]]:
    """Two clients of one id; the first is in the group `g`, and the second waits long to join."""
    url = f"memory://{uuid.uuid4().hex}"
    made: list[TenureDriver] = []
    for wait in (0, 20):
        client = coordination.get_coordinator(url, b"m", join_timeout=wait)
        assert isinstance(client, TenureDriver)
        client.start()
        made.append(client)
    made[0].join_group_create(b"g")
    yield made[0], made[1]
    for client in made:
        stop(client)


def test_a_join_that_waits_holds_up_nothing_else(pair: tuple[TenureDriver, TenureDriver]) -> None:
    """Meanwhile another group can be joined and left, and the heart beats."""
    first, second = pair
    thread = threading.Thread(target=lambda: second.join_group(b"g").get(), daemon=True)
    thread.start()
    until(lambda: second._memberships._turns)
    began = time.monotonic()
    second.join_group_create(b"other")
    second.heartbeat()
    second.leave_group(b"other").get()
    assert time.monotonic() - began < 10
    assert thread.is_alive()
    first.leave_group(b"g").get()
    thread.join(10)
    assert not thread.is_alive()
    assert second.get_members(b"g").get() == {b"m"}


def test_a_heart_does_not_wait_for_its_turn(pair: tuple[TenureDriver, TenureDriver]) -> None:
    """What was lost, and is being joined again by the program, is left to it."""
    _, client = pair
    client.join_group_create(b"other")
    lose(client)
    turn = client._memberships._turn("other")
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with turn:
            held.set()
            over.wait(20)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    assert held.wait(10)
    client.heartbeat()
    assert thread.is_alive()
    over.set()
    thread.join(10)

    def again() -> bool:
        try:
            client.heartbeat()
        except coordination.MemberAlreadyExist:  # what the old one had is freed in the background
            return False
        return client.get_members(b"other").get() == {b"m"}

    until(again)


def test_who_stops_while_it_joins_is_no_member(
    pair: tuple[TenureDriver, TenureDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The join fails, and no heartbeat after the next start repeats it."""
    first, client = pair
    joined = Memberships._join

    def join(self: Memberships, *args: Any) -> Any:
        member = joined(self, *args)
        client.stop()
        return member

    with monkeypatch.context() as patched:
        patched.setattr(Memberships, "_join", join)
        with pytest.raises(ToozError, match="stopped"):
            client.join_group_create(b"other")
    client.start()
    client.heartbeat()
    assert first.get_members(b"other").get() == set()


def test_a_start_wants_to_be_nowhere(pair: tuple[TenureDriver, TenureDriver]) -> None:
    """What a stop that was interrupted has not forgotten, is forgotten by the next start."""
    first, client = pair
    client.join_group_create(b"other")
    wishes = dict(client._memberships._wishes)
    client.stop()
    client._memberships._wishes.update(wishes)
    client.start()
    client.heartbeat()
    assert first.get_members(b"other").get() == set()
