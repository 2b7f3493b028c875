"""The local gate: first come, first served; nobody starved, nobody forgotten."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tenure
from tenure._gate import Gates, Ticket
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.thread import ThreadRuntime, ThreadSignal, drive
from tenure.errors import ClosedError

Step = tuple[str, int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["exclusive", "shared", "try", "try shared", "leave", "cancel"]),
        st.integers(0, 20),
    ),
    max_size=60,
)


async def enter(gates: Gates, name: str, shared: bool, until: float | None) -> Ticket | None:
    """What an acquire does at the gate."""
    ticket, got = Ticket(name, shared), False
    try:
        got = gates.enter_now(ticket) or await gates.enter(ticket, until)
    finally:
        if not got:
            gates.leave(ticket)
    return ticket if got else None


def enter_now(gates: Gates, name: str, shared: bool) -> Ticket | None:
    """The same, without waiting."""
    ticket = Ticket(name, shared)
    return ticket if gates.enter_now(ticket) else None


class Crowd:
    """Tasks at one gate, and the order in which they came, were let in, and left."""

    def __init__(self) -> None:
        self.gates = Gates(AsyncioRuntime())
        self.came: list[Ticket] = []
        self.let_in: list[Ticket] = []
        self.inside: list[Ticket] = []
        self.waiting: list[tuple[asyncio.Task[None], bool]] = []

    def admit(self, ticket: Ticket) -> None:
        self.let_in.append(ticket)
        self.inside.append(ticket)
        assert len(self.inside) == 1 or all(each.shared for each in self.inside)

    async def wait(self, shared: bool) -> None:
        ticket = await enter(self.gates, "name", shared, None)
        assert ticket is not None
        self.admit(ticket)

    async def step(self, what: str, which: int) -> None:
        if what in ("exclusive", "shared"):
            task = asyncio.ensure_future(self.wait(what == "shared"))
            self.waiting.append((task, what == "shared"))
        elif what in ("try", "try shared"):
            ticket = enter_now(self.gates, "name", what == "try shared")
            if ticket is not None:
                assert not self.waiting, "it pushed in"
                self.admit(ticket)
        elif what == "leave" and self.inside:
            self.gates.leave(self.inside.pop(which % len(self.inside)))
        elif what == "cancel" and self.waiting:
            task, _ = self.waiting.pop(which % len(self.waiting))
            task.cancel()
        await self.settle()

    async def settle(self) -> None:
        """Let everybody who can go in do so; they must be the first of those who wait."""
        for _ in range(4):
            await asyncio.sleep(0)
        done = [task.done() for task, _ in self.waiting]
        assert done == sorted(done, reverse=True), "somebody overtook"
        for task, _ in self.waiting[: sum(done)]:
            await task
        del self.waiting[: sum(done)]
        assert self.gates.waiting("name") == len(self.waiting)
        if self.waiting:
            assert self.inside, "the gate is empty and somebody waits"
            first_shared = self.waiting[0][1]
            assert not (first_shared and all(each.shared for each in self.inside))

    async def go_home(self) -> None:
        while self.inside or self.waiting:
            await self.step("leave", 0)
        assert not self.gates._gates, "an empty gate is kept"


@given(steps=STEPS)
@settings(max_examples=150, deadline=None, database=None)
def test_first_come_first_served(steps: list[Step]) -> None:
    """Whatever comes, leaves and is cancelled: turns are kept, and no one waits at an open gate."""

    async def main() -> None:
        crowd = Crowd()
        for what, which in steps:
            await crowd.step(what, which)
        await crowd.go_home()

    asyncio.run(main())


def test_readers_behind_a_writer_wait() -> None:
    """A reader that comes after a waiting writer does not pass it; the readers go together."""

    async def main() -> None:
        crowd = Crowd()
        for what in ("shared", "exclusive", "shared", "shared", "try shared", "exclusive"):
            await crowd.step(what, 0)
        assert len(crowd.inside) == 1
        await crowd.step("leave", 0)
        assert [each.shared for each in crowd.inside] == [False]
        await crowd.step("leave", 0)
        assert [each.shared for each in crowd.inside] == [True, True]
        await crowd.go_home()

    asyncio.run(main())


def test_a_time_out_hands_on_the_turn() -> None:
    """When a waiting writer gives up, the readers behind it are let in at once."""

    async def main() -> None:
        crowd = Crowd()
        await crowd.step("shared", 0)
        writer = asyncio.ensure_future(
            enter(crowd.gates, "name", False, crowd.gates._runtime.now() + 0.05)
        )
        await asyncio.sleep(0)
        reader = asyncio.ensure_future(enter(crowd.gates, "name", True, None))
        assert await writer is None
        async with asyncio.timeout(5):
            ticket = await reader
        assert ticket is not None
        crowd.gates.leave(ticket)
        await crowd.go_home()

    asyncio.run(main())


def test_a_turn_that_came_with_the_cancellation_is_handed_on() -> None:
    """A task that is cancelled in the very step in which it was let in passes its turn on."""

    async def main() -> None:
        gates = Gates(AsyncioRuntime())
        first = enter_now(gates, "name", False)
        assert first is not None
        second = asyncio.ensure_future(enter(gates, "name", False, None))
        third = asyncio.ensure_future(enter(gates, "name", False, None))
        await asyncio.sleep(0)
        gates.leave(first)
        second.cancel()
        async with asyncio.timeout(5):
            ticket = await third
        assert second.cancelled()
        assert ticket is not None
        gates.leave(ticket)
        assert not gates._gates

    asyncio.run(main())


def test_leaving_twice_lets_nobody_in_twice() -> None:
    """Leaving is idempotent, for one who was inside and for one who waited."""
    gates = Gates(ThreadRuntime())
    first = enter_now(gates, "name", False)
    assert first is not None
    assert drive(enter(gates, "name", False, tenure.now())) is None
    gates.leave(first)
    gates.leave(first)
    second = enter_now(gates, "name", False)
    assert second is not None
    gates.leave(first)
    assert enter_now(gates, "name", False) is None
    gates.leave(second)


def test_names_do_not_meet() -> None:
    """Each name has a gate of its own."""
    gates = Gates(ThreadRuntime())
    tickets = [enter_now(gates, name, False) for name in ("a", "b")]
    assert all(tickets)


def test_closing_turns_everybody_away() -> None:
    """Who waits when the gates close gets `ClosedError`, and nobody comes in afterwards."""
    gates = Gates(ThreadRuntime())
    ticket = enter_now(gates, "name", False)
    assert ticket is not None
    outcomes: list[str] = []

    def wait() -> None:
        try:
            drive(enter(gates, "name", False, None))
        except ClosedError:
            outcomes.append("turned away")

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    give_up = tenure.now() + 10
    while gates.waiting("name") < len(threads):
        assert tenure.now() < give_up
    gates.close()
    for thread in threads:
        thread.join(10)
    assert outcomes == ["turned away"] * len(threads)
    with pytest.raises(ClosedError):
        enter_now(gates, "name", False)
    gates.leave(ticket)
    assert not gates._gates


def test_closing_while_somebody_queues_up() -> None:
    """Who comes to the queue in the moment in which the gates close is turned away, too."""

    class Runtime(ThreadRuntime):
        def signal(self) -> ThreadSignal:
            gates.close()  # another thread, right between the first look and the queue
            return super().signal()

    gates = Gates(Runtime())
    assert enter_now(gates, "name", False) is not None
    with pytest.raises(ClosedError):
        drive(enter(gates, "name", False, tenure.now() + 10))
    assert gates.waiting("name") == 0
