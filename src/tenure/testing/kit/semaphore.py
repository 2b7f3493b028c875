"""Semaphores and multi-locks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import tempfile
from collections.abc import Iterable
from typing import Any

import tenure

from ._base import EXPIRES, FAIR, OUTLIVES_CONNECTION, PROCESSES, SERVER, Env, case


async def _release(env: Env, leases: Iterable[Any]) -> None:
    for lease in leases:
        await env(lease.release())


async def refused(env: Env, call: Any, kind: type[Exception]) -> str:
    """What the error says with which the call ends."""
    try:
        await env(call())
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


# -- semaphores ------------------------------------------------------------------


@case()
async def a_semaphore_has_so_many_permits(env: Env) -> None:
    """So many permits can be had, each with its own token, and one more when one is released."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    here, there = a.semaphore(name, 3), b.semaphore(name)
    permits = [await env(here.acquire()), await env(here.try_acquire())]
    permits.append(await env(there.try_acquire()))
    tokens = [permit.token for permit in permits]
    assert tokens == sorted(set(tokens))
    before = await env.footprint()
    for semaphore in (here, there):
        assert await env(semaphore.try_acquire()) is None
        said = await refused(
            env, functools.partial(semaphore.acquire, timeout=0.02), tenure.AcquireTimeout
        )
        assert name in said
    await env.until_footprint(lambda count: count == before, 5, "the queue to be as it was")
    await env(permits.pop(0).release())
    permits.append(await env(there.try_acquire()))
    assert permits[-1].token > tokens[-1]
    assert await env(here.limit()) == 3
    lock = await env(a.lock(name).try_acquire())
    assert lock is not None, "a lock of the same name is another thing"
    await _release(env, [lock, *permits])


@case(13)
async def never_more_than_the_limit(env: Env) -> None:
    """Twelve workers on four coordinators never hold more permits than there are, and use all."""
    clients = [await env.connect() for _ in range(4)]
    name = env.name()
    inside: set[int] = set()
    most = 0

    def all_held() -> bool:
        return most >= 3

    async def work(client: Any, number: int) -> None:
        nonlocal most
        semaphore = client.semaphore(name, 3)
        for _ in range(4):
            permit = await env(semaphore.acquire(timeout=60))
            inside.add(number)
            most = max(most, len(inside))
            await env.until(all_held, 10, "all permits to be held")
            await env.pause(0.003)
            inside.discard(number)
            await env(permit.release())

    tasks = [
        env.spawn(functools.partial(work, clients[number % 4], number)) for number in range(12)
    ]
    for task in tasks:
        await task.result(60)
    assert most == 3, f"{most} at a time"


@case(needs=(PROCESSES,))
async def processes_share_the_permits(env: Env) -> None:
    """Four processes with two permits never hold three at a time."""
    name = env.name()
    actors = [env.actor() for _ in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        for actor in actors:
            actor.ready()
        for actor in actors:
            actor.send(do="crowd", name=name, limit=2, folder=folder, times=10)
        answers = [actor.answer(60) for actor in actors]
    assert all("most" in answer for answer in answers), answers
    assert max(answer["most"] for answer in answers) <= 2, answers


@case(9, needs=(PROCESSES,), timed=True)
async def a_killed_holders_permit_comes_back(env: Env) -> None:
    """After SIGKILL of one holder its permit can be had, at the latest a TTL and a second later."""
    actor = await env.ready_actor()
    a = await env.connect()
    name = env.name()
    semaphore = a.semaphore(name, 2)
    mine = await env(semaphore.acquire(timeout=5))
    dead = actor.do("permit", name=name, limit=2)["token"]
    assert await env(semaphore.try_acquire()) is None
    waiter = env.spawn(lambda: env(semaphore.acquire(timeout=30)))
    await env.pause(0.05)
    actor.kill()
    killed = tenure.now()
    permit = await waiter.result()
    assert tenure.now() - killed <= (1.0 if env.traits.frees_on_death else env.death + 1.0)
    assert permit.token > dead
    assert mine.held()
    await _release(env, [mine, permit])


@case(3, 4, needs=(SERVER, EXPIRES, OUTLIVES_CONNECTION), timed=True)
async def a_cut_off_permit_is_lost_before_another_is_granted(env: Env) -> None:
    """A holder that is cut off knows that its permit is lost before somebody else has it."""
    proxy = env.proxy()
    a, b = await env.connect(env.url_through(proxy)), await env.connect()
    name = env.name()
    permit = await env(a.semaphore(name, 1).acquire())
    lost: list[float] = []
    permit.on_lost(lambda permit: lost.append(tenure.now()))
    waiter = env.spawn(lambda: env(b.semaphore(name, 1).acquire(timeout=30)))
    await env.pause(0.05)
    proxy.black_hole()
    other = await waiter.result()
    assert lost and not permit.held()
    assert other.token > permit.token
    await env(other.release())


@case()
async def another_limit_is_a_mismatch(env: Env) -> None:
    """Whoever gives another limit than is set is told both, and leaves nothing; without a limit
    one takes what is set."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    await refused(env, a.semaphore(name).try_acquire, tenure.InvalidArgument)
    assert await env(a.semaphore(name).limit()) is None
    permit = await env(a.semaphore(name, 2).acquire())
    before = await env.footprint()
    for client in (a, b):
        wrong = client.semaphore(name, 3)
        for attempt in (wrong.try_acquire, wrong.acquire):
            try:
                await env(attempt())
                raise AssertionError("two limits at a time")
            except tenure.LimitMismatch as error:
                assert (error.given, error.found) == (3, 2)
                assert name in str(error) and "3" in str(error) and "2" in str(error)
    assert await env.footprint() == before
    other = await env(b.semaphore(name).try_acquire())
    assert await env(b.semaphore(name, 2).try_acquire()) is None
    await _release(env, [permit, other])


@case()
async def a_semaphore_that_grows_lets_in_who_fits(env: Env) -> None:
    """When the limit rises, those who wait and fit in now are granted, whoever has raised it."""
    a, b, c, d = [await env.connect() for _ in range(4)]
    name = env.name()
    held = [await env(a.semaphore(name, 1).acquire())]
    tasks = []
    for client in (b, c):
        base = await env.footprint()
        semaphore = client.semaphore(name, 1)
        tasks.append(env.spawn(functools.partial(_acquired, env, semaphore)))
        await env.until_footprint(base.__lt__, 10, "the next in line")
    await env(d.semaphore(name).resize(3))
    held += [await task.result(5) for task in tasks]
    assert await env(a.semaphore(name).try_acquire()) is None
    await env(d.semaphore(name).resize(4))
    held.append(await env(a.semaphore(name).try_acquire()))
    assert held[-1] is not None, "it did not learn that it had grown"
    await _release(env, held)


async def _acquired(env: Env, semaphore: Any, timeout: float = 30) -> Any:
    return await env(semaphore.acquire(timeout=timeout))


@case()
async def a_semaphore_that_shrinks_grants_none_until_it_fits(env: Env) -> None:
    """When the limit falls nobody loses a permit, and none is granted while as many are held."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    semaphore = a.semaphore(name, 3)
    held = [await env(semaphore.acquire()) for _ in range(3)]
    waiter = env.spawn(lambda: _acquired(env, b.semaphore(name)))
    await env.pause(0.02)
    await env(b.semaphore(name).resize(1))
    assert await env(semaphore.limit()) == 1
    for permit in (held.pop(), held.pop()):
        permit.check()
        await env(permit.release())
        assert await env(semaphore.try_acquire()) is None
        assert not waiter.done(), "granted beyond the new limit"
    held[0].check()
    await env(held[0].release())
    permit = await waiter.result(5)
    assert await env(semaphore.try_acquire()) is None
    await env(permit.release())


@case(13, needs=(FAIR,))
async def permits_are_granted_in_order(env: Env) -> None:
    """Waiters of different clients get permits in the order in which they came."""
    holder = await env.connect()
    clients = [await env.connect() for _ in range(5)]
    name = env.name()
    held = [await env(holder.semaphore(name, 2).acquire()) for _ in range(2)]
    tasks = []
    for client in clients:
        base = await env.footprint()
        tasks.append(env.spawn(functools.partial(_acquired, env, client.semaphore(name, 2))))
        await env.until_footprint(base.__lt__, 10, "the next in line")
    for number, task in enumerate(tasks):
        await env(held.pop(0).release())
        held.append(await task.result(5))
        assert not any(later.done() for later in tasks[number + 1 :]), "out of turn"
    await _release(env, held)


@case(13)
async def a_hundred_wait_for_a_permit(env: Env) -> None:
    """Of 100 local waiters each gets a permit in its turn, and the backend sees one of them."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    held = await env(b.semaphore(name, 1).acquire())
    before = await env.footprint()
    semaphore = a.semaphore(name, 1)
    order: list[int] = []

    async def wait(number: int) -> None:
        permit = await env(semaphore.acquire(timeout=60))
        order.append(number)
        await env(permit.release())

    gates, roster = env.session_of(a).gates, semaphore._recipe._lock.roster
    tasks = []
    for number in range(100):
        tasks.append(env.spawn(functools.partial(wait, number)))
        queued = functools.partial(lambda least: gates.waiting(roster) >= least, number)
        await env.until(queued, 10, "the next waiter")
    assert await env.footprint() - before <= 2
    await env(held.release())
    for task in tasks:
        await task.result(60)
    # One that has left the gate is granted already: the last step of two may cross.
    assert all(abs(number - at) <= 2 for at, number in enumerate(order)), order


@case(6)
async def a_try_is_not_refused_for_a_neighbour(env: Env) -> None:
    """While permits are left, eight tries at a time on one coordinator all succeed."""
    a = await env.connect()
    semaphore = a.semaphore(env.name(), 8)
    await env((await env(semaphore.acquire())).release())
    tasks = [env.spawn(lambda: env(semaphore.try_acquire())) for _ in range(8)]
    permits = [await task.result() for task in tasks]
    assert all(permits), permits
    assert await env(semaphore.try_acquire()) is None
    await _release(env, permits)


@case(6, flavours=("asyncio",))
async def a_permit_cancelled_at_every_await_leaves_nothing(env: Env) -> None:
    """An acquire of a permit that is cancelled at any step leaves no claim behind."""
    a, b = await env.connect(), await env.connect()
    free, taken = a.semaphore(env.name(), 2), a.semaphore(env.name(), 1)
    await env((await env(free.acquire())).release())
    blocker = await env(b.semaphore(taken.name, 1).acquire())
    base = await env.footprint()
    for semaphore in (free, taken):
        for steps in range(40):
            task = asyncio.ensure_future(semaphore.acquire(timeout=10))
            for _ in range(steps):
                await asyncio.sleep(0 if steps < 30 else 0.001)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await env((await task).release())
    await env.until_footprint(lambda count: count == base, 10, "the backend to be clean")
    await env(blocker.release())
    permits = [await env(free.try_acquire()) for _ in range(2)]
    assert all(permits)
    await _release(env, permits)


# -- multi-locks -----------------------------------------------------------------


@case(13)
async def multi_locks_never_wait_in_a_circle(env: Env) -> None:
    """Workers that name the same locks in every order all get their turn, each alone."""
    clients = [await env.connect() for _ in range(3)]
    one, two, three = env.name(), env.name(), env.name()
    orders = ((one, two, three), (three, one, two, one), (two, three, one), (three, two))
    number = 0

    async def work(client: Any, names: tuple[str, ...]) -> None:
        nonlocal number
        for _ in range(3):
            lease = await env(client.multi_lock(names).acquire(timeout=60))
            assert set(lease.tokens) == set(names) and lease.held()
            seen = number
            await env.pause(0)
            number = seen + 1
            await env(lease.release())

    tasks = [
        env.spawn(functools.partial(work, client, names)) for client in clients for names in orders
    ]
    for task in tasks:
        await task.result(60)
    assert number == 3 * len(tasks)


@case(6)
async def a_multi_lock_is_all_or_nothing(env: Env) -> None:
    """While one name is taken nothing is held, tried, or left in a queue; then all are held."""
    a, b = await env.connect(), await env.connect()
    first, last = sorted((env.name(), env.name()))
    taken = await env(b.lock(last).acquire())
    before = await env.footprint()
    both = a.multi_lock([last, first, last])
    assert both.names == (first, last)
    assert await env(both.try_acquire()) is None
    await refused(env, functools.partial(both.acquire, 0.05), tenure.AcquireTimeout)
    await env.until_footprint(lambda count: count == before, 5, "the queue to be as it was")
    await env((await env(b.lock(first).try_acquire())).release())
    await env(taken.release())
    lease = await env(both.acquire(timeout=5))
    assert lease.tokens[last] > taken.token
    for name in (first, last):
        assert await env(b.lock(name).try_acquire()) is None
    lease.check()
    await env(lease.release())
    await env(lease.release())
    assert lease.state is tenure.State.RELEASED
    for name in (first, last):
        await env((await env(b.lock(name).try_acquire())).release())


@case(4)
async def one_lost_lock_is_the_loss_of_all(env: Env) -> None:
    """When one lock of many is lost, all are: the signal, the callback and `release` say so."""
    a, b = await env.connect(), await env.connect()
    names = [env.name(), env.name()]
    lease = await env(a.multi_lock(names).acquire())
    calls: list[Any] = []
    lease.on_lost(calls.append)
    waiting = env.spawn(lambda: env(lease.lost.wait(10)))
    one = lease._leases[0]
    env.session_of(a).drop(one._life, one)
    one.end("an experiment")  # the other one is still held, as far as it knows
    one.tell()
    assert await waiting.result(5) is True
    assert calls == [lease]
    assert not lease.held() and lease.lost and "an experiment" in lease.reason
    await refused(env, lease.check, tenure.LeaseLost)
    assert "an experiment" in await refused(env, lease.release, tenure.LeaseLost)
    await env((await env(b.lock(names[1]).try_acquire())).release())


@case(9, needs=(PROCESSES,), timed=True)
async def a_killed_holder_of_many_frees_them_all(env: Env) -> None:
    """After SIGKILL of the holder of two locks another has both, with greater tokens."""
    actor = await env.ready_actor()
    a = await env.connect()
    names = [env.name(), env.name()]
    old = actor.do("hold_all", names=names)["tokens"]
    actor.kill()
    lease = await env(a.multi_lock(names).acquire(timeout=env.ttl + 5))
    assert all(lease.tokens[name] > old[name] for name in names)
    await env(lease.release())
