"""Partitioning: hash rings and claims of slots."""

from __future__ import annotations

import asyncio
from typing import Any

import tenure

from ..._runtime.thread import drive
from ._base import Env, case
from .group import end_session

KEYS = [f"key-{number}" for number in range(60)]
SECONDS_MAX = 10.0
"""How long a change may take on a loaded machine, which is far more than it takes."""


class Told:
    """Collects what a callback is told."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def __call__(self, *news: Any) -> None:
        """For the background to call."""
        self.all.append(news[0] if len(news) == 1 else news)


@case(timed=True)
async def a_ring_follows_its_group(env: Env) -> None:
    """Two members' rings agree on every key, change when one leaves, and tell whose keys moved
    where."""
    a, b = await env.connect(owner="a"), await env.connect(owner="b")
    name = env.name()
    one = await env(a.group(name).join())
    ring, other = a.group(name).ring(one), b.group(name).ring()
    told = Told()
    await env(ring.open())
    await env(other.open())
    await env(ring.on_change(told))
    assert ring.mine(KEYS) == KEYS
    assert len(other) == 1
    two = await env(b.group(name).join())
    await env.until(lambda: len(ring) == len(other) == 2, SECONDS_MAX, "both to see the second")
    assert ring.snapshot == other.snapshot
    theirs = [key for key in KEYS if other.owner(key) == "b"]
    assert theirs
    assert [key for key in KEYS if not ring.is_mine(key)] == theirs
    await env.until(lambda: told.all, SECONDS_MAX, "the callback")
    change = told.all.pop()
    assert (change.joined, change.left) == (("b",), ())
    assert change.moves(KEYS) == [(key, "a", "b") for key in theirs]
    await env(two.leave())
    await env.until(lambda: told.all, SECONDS_MAX, "the second callback")
    assert told.all.pop().moves(KEYS) == [(key, "b", "a") for key in theirs]
    assert "b" not in ring
    assert ring.mine(KEYS) == KEYS
    for each in (ring, other):
        await env(each.close())
    await env(one.leave())


@case(4, timed=True)
async def who_is_no_member_owns_nothing(env: Env) -> None:
    """A member whose session is lost owns no key from that moment, whatever its ring shows yet."""
    a, watcher = await env.connect(owner="a"), await env.connect()
    name = env.name()
    member = await env(a.group(name).join())
    ring, seen = a.group(name).ring(member), watcher.group(name).ring()
    await env(ring.open())
    await env(seen.open())
    assert ring.mine(KEYS) == KEYS
    await end_session(env, a)
    await env.until(lambda: not member.held(), 2 * env.ttl + 2, "the loss")
    assert ring.mine(KEYS) == []
    assert not ring.is_mine(KEYS[0])
    await env.until(lambda: len(seen) == 0, SECONDS_MAX, "the watcher to see it")
    assert seen.owner(KEYS[0]) is None
    for each in (ring, seen):
        await env(each.close())


@case(6)
async def rings_end_with_their_coordinators(env: Env) -> None:
    """A ring that is closed, or whose coordinator is, refuses to answer, and calls nobody back."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    told = Told()
    ring, closed = a.group(name).ring(), b.group(name).ring()
    for each in (ring, closed):
        await env(each.open())
        await env(each.on_change(told))
    assert ring.owner("key") is None
    await env(ring.close())
    await env(ring.close())
    await env(b.close())
    c = await env.connect()
    await env(c.group(name).join())
    for each in (ring, closed):
        try:
            each.owner("key")
        except tenure.ClosedError:
            pass
        else:
            raise AssertionError("a ring that nobody keeps up to date gave an answer")
    await env(closed.close())
    assert told.all == []


@case(flavours=("asyncio",))
async def a_ring_that_was_cancelled_can_be_opened(env: Env) -> None:
    """Opening that is cancelled leaves nothing behind, and can be done again."""
    a = await env.connect(owner="a")
    group = a.group(env.name())
    member = await env(group.join())
    ring = group.ring(member)
    opening = asyncio.ensure_future(ring.open())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await ring.open()
    assert ring.mine(KEYS) == KEYS
    await ring.close()
    await member.leave()


SLOTS = [f"slot-{number}" for number in range(7)]


class Share:
    """What one member was told of its slots, in order."""

    def __init__(self, env: Env, member: Any, **options: Any) -> None:
        self._env = env
        self.news: list[tuple[str, str, int]] = []
        self.claims = member.claims(
            SLOTS,
            on_gain=self._teller("gain"),
            on_release=self._teller("release"),
            on_lost=self._teller("lost"),
            **options,
        )

    def _teller(self, kind: str) -> Any:
        return lambda slot, lease: self.news.append((kind, slot, lease.token))

    def held(self) -> set[str]:
        """The slots that it holds now."""
        return set(self.claims.held())

    async def until(self, count: int) -> None:
        """Wait until it holds so many slots, and those that are due to it."""

        def settled() -> bool:
            return len(self.held()) == count and self.held() == set(self.claims.assigned)

        await self._env.until(settled, SECONDS_MAX, f"{count} slots for {self.claims}")


@case(1, 8, 9, timed=True)
async def slots_are_shared_fairly(env: Env) -> None:
    """One member has all slots; two have half of them each; when one goes, the other has all
    again, and every hand-over has a greater token."""
    a, b = await env.connect(owner="a"), await env.connect(owner="b")
    name = env.name()
    before = await env.footprint()
    one = await env(a.group(name).join())
    first = Share(env, one)
    await env(first.claims.open())
    await first.until(7)
    two = await env(b.group(name).join())
    second = Share(env, two)
    await env(second.claims.open())
    half = len(second.claims.assigned)
    assert half in (3, 4)
    await second.until(half)
    await first.until(7 - half)
    assert not first.held() & second.held()
    tokens = {slot: lease.token for slot, lease in first.claims.held().items()}
    tokens |= {slot: lease.token for slot, lease in second.claims.held().items()}
    assert set(tokens) == set(SLOTS)
    await env.until(lambda: len(second.news) == len(second.held()), SECONDS_MAX, "the callbacks")
    released = [slot for kind, slot, _ in first.news if kind == "release"]
    assert set(released) == second.held() == {slot for _, slot, _ in second.news}
    given = {slot: token for kind, slot, token in first.news if kind == "release"}
    assert all(token > given[slot] for kind, slot, token in second.news)
    await env(first.claims.close())
    assert first.held() == set()
    await env(one.leave())
    await second.until(7)
    for slot, lease in second.claims.held().items():
        assert lease.token > tokens[slot] or slot in given
    await env(second.claims.close())
    await env(two.leave())
    await env(a.group(name).delete())
    assert await env.footprint() <= before


@case(1, timed=True)
async def a_slot_waits_for_who_finishes_it(env: Env) -> None:
    """A slot that is due to another is not taken before `on_release` has returned."""
    a, b = await env.connect(owner="a"), await env.connect(owner="b")
    group = a.group(env.name())
    one = await env(group.join())
    finish, begun = [False], []

    async def slowly(slot: str, lease: Any) -> None:
        begun.append(slot)
        await env.until(lambda: finish[0], SECONDS_MAX, "the permission to finish")
        assert lease.held()

    def wait(slot: str, lease: Any) -> None:
        drive(slowly(slot, lease))

    claims = one.claims(SLOTS, on_release=slowly if env.flavour == "asyncio" else wait)
    await env(claims.open())
    await env.until(lambda: len(claims.held()) == 7, SECONDS_MAX, "all slots")
    two = await env(b.group(group.name).join())
    second = Share(env, two)
    await env(second.claims.open())
    await env.until(lambda: begun, SECONDS_MAX, "the first slot to be asked for")
    await env.until(lambda: second.claims.assigned, SECONDS_MAX, "what is due")
    await env.pause(0.05)
    assert second.held() == set()
    assert len(claims.held()) == 7
    finish[0] = True
    await second.until(len(second.claims.assigned))
    assert begun[0] in second.held() or begun[0] not in second.claims.assigned
    await env(claims.close())
    await env(second.claims.close())


@case(4, 7, timed=True)
async def a_dead_members_slots_go_to_the_others(env: Env) -> None:
    """A member whose session is lost is told of every slot, takes no more, and is succeeded."""
    a, b = await env.connect(owner="a"), await env.connect(owner="b")
    name = env.name()
    one, two = await env(a.group(name).join()), await env(b.group(name).join())
    first, second = Share(env, one), Share(env, two)
    await env(first.claims.open())
    await env(second.claims.open())
    await env.until(lambda: len(first.held() | second.held()) == 7, SECONDS_MAX, "all slots")
    mine = first.held()
    await env.until(lambda: len(first.news) == len(mine), SECONDS_MAX, "the callbacks")
    await end_session(env, a)
    await second.until(7)

    def told() -> bool:
        return {slot for kind, slot, _ in first.news if kind == "lost"} == mine

    await env.until(told, 2 * env.ttl + 2, "to be told of the loss")
    assert first.held() == set()
    assert first.claims.assigned == ()
    for each in (first, second):
        await env(each.claims.close())
    try:
        await env(one.claims(SLOTS).open())
    except tenure.LeaseLost:
        pass
    else:
        raise AssertionError("a member that is lost claimed slots")


@case(6, timed=True)
async def claims_end_with_their_coordinator(env: Env) -> None:
    """Closing a coordinator ends its claims: the slots are free, and who worked on them is
    told."""
    a, b = await env.connect(owner="a"), await env.connect(owner="b")
    name = env.name()
    first = Share(env, await env(a.group(name).join()))
    await env(first.claims.open())
    await first.until(7)
    await env.until(lambda: len(first.news) == 7, SECONDS_MAX, "the callbacks")
    await env(a.close())
    await env.until(lambda: len(first.news) == 14, SECONDS_MAX, "to be told")
    assert {kind for kind, _, _ in first.news[7:]} == {"lost"}
    assert first.held() == set()
    second = Share(env, await env(b.group(name).join()))
    await env(second.claims.open())
    await second.until(7)
    for each in (first, second):
        await env(each.claims.close())
