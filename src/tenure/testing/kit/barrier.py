"""Barriers and latches."""

from __future__ import annotations

import functools
from typing import Any

import tenure

from ._base import PROCESSES, SERVER, Env, case
from .semaphore import refused


async def _meet(env: Env, barrier: Any, timeout: float = 30) -> int:
    place: int = await env(barrier.wait(timeout=timeout))
    return place


@case()
async def nobody_passes_a_barrier_before_all_have_come(env: Env) -> None:
    """Three parties of three clients meet five times over: none is ever a round ahead, and each
    round has every place once."""
    name = env.name()
    clients = [await env.connect() for _ in range(3)]
    come = [0, 0, 0]
    places: list[list[int]] = [[] for _ in range(5)]

    async def party(number: int) -> None:
        barrier = clients[number].barrier(name, 3)
        for turn in range(5):
            come[number] += 1
            places[turn].append(await _meet(env, barrier))
            assert min(come) > turn, f"passed in round {turn} with {come}"

    tasks = [env.spawn(functools.partial(party, number)) for number in range(3)]
    for task in tasks:
        await task.result()
    assert [sorted(each) for each in places] == [[0, 1, 2]] * 5
    assert await env(clients[0].barrier(name, 3).waiting()) == 0


@case(6)
async def who_gives_up_at_a_barrier_does_not_count(env: Env) -> None:
    """A party whose time is over has left: the others still wait for as many as before."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    name = env.name()
    base = await env.footprint()
    waiting = env.spawn(lambda: _meet(env, a.barrier(name, 3)))
    await env.until_footprint(lambda count: count > base, 10, "the first to come")
    with_one = await env.footprint()
    said = await refused(
        env, functools.partial(b.barrier(name, 3).wait, timeout=0.02), tenure.WaitTimeout
    )
    assert name in said and "3" in said
    await env.until_footprint(lambda count: count == with_one, 5, "the claim to be gone")
    second = env.spawn(lambda: _meet(env, c.barrier(name, 3)))
    await env.pause(0.05)
    assert not waiting.done() and not second.done(), "let through by one who had left"
    third = await _meet(env, b.barrier(name, 3))
    assert sorted([await waiting.result(5), await second.result(5), third]) == [0, 1, 2]
    await env.until_footprint(lambda count: count == base, 5, "the barrier to be empty")


@case(6)
async def giving_up_and_passing_never_both(env: Env) -> None:
    """Parties that give up just as others come: who passes, passes with as many as must come."""
    clients = [await env.connect() for _ in range(3)]
    name = env.name()
    passed = 0

    async def party(client: Any, timeout: float) -> None:
        nonlocal passed
        try:
            await _meet(env, client.barrier(name, 2), timeout)
            passed += 1
        except tenure.WaitTimeout:
            pass

    for turn in range(12):
        before = passed
        tasks = [
            env.spawn(functools.partial(party, client, 0.001 * turn * (number + 1)))
            for number, client in enumerate(clients)
        ]
        for task in tasks:
            await task.result()
        assert passed - before in (0, 2), f"{passed - before} have passed together"
    assert await env(clients[0].barrier(name, 2).waiting()) == 0


@case(6, needs=(PROCESSES,), timed=True)
async def a_killed_party_does_not_count(env: Env) -> None:
    """A party that was killed while it waited is not one of those who pass."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    actor = await env.ready_actor()
    actor.send(do="meet", name=name, parties=3)
    barrier = a.barrier(name, 3)
    await _until_waiting(env, barrier, 1, 10)
    waiting = env.spawn(lambda: _meet(env, barrier))
    await _until_waiting(env, barrier, 2, 5)
    actor.kill()
    await _until_waiting(env, barrier, 1, env.death + 2)
    last = env.spawn(lambda: _meet(env, b.barrier(name, 3)))
    await _until_waiting(env, barrier, 2, 5)
    assert not waiting.done() and not last.done(), "let through by the dead"
    places = [await _meet(env, barrier), await waiting.result(5), await last.result(5)]
    assert sorted(places) == [0, 1, 2]


async def _until_waiting(env: Env, barrier: Any, number: int, seconds: float) -> None:
    give_up = tenure.now() + seconds
    while await env(barrier.waiting()) != number:
        assert tenure.now() < give_up, f"waited in vain for {number} at the barrier"
        await env.pause(0.02)


@case()
async def more_than_must_come_pass_in_groups(env: Env) -> None:
    """Of seven who come to a barrier for two, six pass in pairs and one goes on waiting."""
    clients = [await env.connect() for _ in range(2)]
    name = env.name()
    tasks = [
        env.spawn(functools.partial(_meet, env, clients[number % 2].barrier(name, 2), 2.0))
        for number in range(6)
    ]
    places = [await task.result() for task in tasks]
    assert sorted(places) == [0, 0, 0, 1, 1, 1]
    await refused(
        env, functools.partial(clients[0].barrier(name, 2).wait, 0.02), tenure.WaitTimeout
    )
    await refused(env, clients[1].barrier(name, 3).wait, tenure.LimitMismatch)


# -- latches ---------------------------------------------------------------------


@case()
async def a_latch_opens_at_zero_and_stays_open(env: Env) -> None:
    """Counted down by anybody it opens for all who wait, and for all who come later."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    name = env.name()
    waiting = env.spawn(lambda: env(c.latch(name).wait(timeout=20)))
    assert await env(a.latch(name, 4).count()) == 4
    assert await env(a.latch(name, 4).count_down()) == 3
    assert await env(b.latch(name, 4).count_down(2)) == 1
    await refused(env, functools.partial(b.latch(name).wait, 0.02), tenure.WaitTimeout)
    await refused(env, b.latch(name, 5).count_down, tenure.LimitMismatch)
    assert not waiting.done()
    await env(a.close())  # what it has counted stays
    assert await env(b.latch(name).count_down()) == 0
    await waiting.result(5)
    assert await env(b.latch(name, 4).count_down()) == 0
    await env(b.latch(name).wait(timeout=0))
    await env(b.latch(name).reset())
    assert await env(c.latch(name, 4).count()) == 4
    await env(b.latch(name).reset(1))
    assert await env(c.latch(name).count()) == 1
    await env(b.latch(name).delete())
    await env(b.latch(name).delete())
    assert await env(c.latch(name).count()) is None


@case()
async def a_latch_counts_everybody_once(env: Env) -> None:
    """Twenty that count down at the same time, on four coordinators, take twenty off."""
    clients = [await env.connect() for _ in range(4)]
    name = env.name()
    left: list[int] = []

    async def work(client: Any) -> None:
        left.append(await env(client.latch(name, 21).count_down()))

    tasks = [env.spawn(functools.partial(work, clients[number % 4])) for number in range(20)]
    for task in tasks:
        await task.result()
    assert sorted(left) == list(range(1, 21))
    assert await env(clients[0].latch(name).count()) == 1


@case(5, needs=(SERVER,))
async def a_lost_reply_counts_down_once(env: Env) -> None:
    """When the reply to a count-down is lost, it has counted once."""
    proxy = env.proxy()
    a, b = await env.connect(env.url_through(proxy)), await env.connect()
    name = env.name()
    latch = a.latch(name, 9)
    driver = env.session_of(a).driver
    record, sent = driver.record, 0
    await env(latch.count_down())

    async def unheard(*arguments: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent == 1:
            proxy.black_hole("to_client", drop=True)
        return await record(*arguments)

    driver.record = unheard
    counting = env.spawn(lambda: env(latch.count_down()))
    await env.until(lambda: proxy.swallowed, 10, "the reply to be swallowed")
    assert await env(b.latch(name).count_down()) in (6, 7)
    proxy.heal()
    await counting.result()
    assert await env(b.latch(name).count()) == 6
