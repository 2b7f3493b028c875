"""Partitioning: hash rings and claims of slots."""

from __future__ import annotations

import asyncio
from typing import Any

import tenure

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


@case()
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


@case(4)
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
