"""Cases without faults: exclusion, order, tokens, names, hooks, and bounds."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from typing import Any

import tenure

from ._base import (
    EXCLUSIVE_ONLY,
    FAIR,
    PROCESSES,
    SHARED,
    Env,
    case,
)

HOSTILE_NAMES = (
    ".",
    "..",
    "../../etc/passwd",
    "/",
    "a/b",
    "a//b",
    "a/",
    "a",
    "A",
    "a%2Fb",
    "a%2fb",
    "%",
    "a\nb",
    "a\x00b",
    "a\x00",
    " a",
    "a ",
    "*",
    "?",
    "[a]",
    "a:b",
    "{a}",
    "a{b}c",
    "'; DROP TABLE locks; --",
    "$(id)",
    "-rf",
    "~",
    "con",
    "name.lock",
    "\u202egnp.exe",
    "e\u0301",
    "\u00e9",
    "\U0001f512",
    "\U0001f512" * 1000,
    "x" * 1000,
    "x" * 999 + "y",
)


@case()
async def acquire_and_release_leave_nothing(env: Env) -> None:
    """A released lock can be had by another client at once, and the backend keeps nothing of it."""
    a, b = await env.connect(), await env.connect()
    before = await env.footprint()
    for _ in range(3):
        lease = await env(a.lock("here").acquire())
        assert lease.held()
        assert await env(b.lock("here").try_acquire()) is None
        await env(lease.release())
        assert not lease.held()
        await env((await env(b.lock("here").try_acquire())).release())
    assert await env.footprint() == before


@case(1)
async def a_second_acquire_contends(env: Env) -> None:
    """The same thread and the same coordinator get no second lease: there is no reentrancy."""
    a = await env.connect()
    lock = a.lock(env.name())
    lease = await env(lock.acquire())
    assert await env(lock.try_acquire()) is None
    assert await env(a.lock(lock.name).try_acquire()) is None
    try:
        await env(lock.acquire(timeout=0.05))
        raise AssertionError("the lock was granted twice")
    except tenure.AcquireTimeout:
        pass
    await env(lease.release())


@case(1, timed=True)
async def any_thread_may_use_a_lease(env: Env) -> None:
    """A lease is a handle: another thread or task asks it, outlives a renewal, and releases it."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    first = lease.deadline

    async def elsewhere() -> None:
        assert lease.held()
        if math.isfinite(first):
            await env.until(lambda: lease.deadline > first, env.ttl, "a renewal")
        lease.check()
        await env(lease.release())

    await env.spawn(elsewhere).result()
    await env((await env(b.lock(name).try_acquire())).release())


@case(1, 8)
async def release_is_idempotent_and_its_own_alone(env: Env) -> None:
    """A second release does nothing, above all not to the next holder's lease."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    name = env.name()
    old = await env(a.lock(name).acquire())
    await env(old.release())
    new = await env(b.lock(name).acquire(timeout=5))
    await env(old.release())
    assert old.state is tenure.State.RELEASED
    assert new.held()
    assert await env(c.lock(name).try_acquire()) is None
    await env(new.release())


@case()
async def a_waiter_is_woken_by_the_release(env: Env) -> None:
    """A waiter of another client has the lock soon after its release, not at its time-out."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    for _ in range(3):
        lease = await env(a.lock(name).acquire())
        waiter = env.spawn(lambda: env(b.lock(name).acquire(timeout=20)))
        await env.pause(0.1)
        assert not waiter.done()
        await env(lease.release())
        await env((await waiter.result(5)).release())


@case(6)
async def a_timed_out_acquire_leaves_nothing(env: Env) -> None:
    """A waiter that gave up holds no place in the queue, and the time-out is kept."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    before = await env.footprint()
    for timeout in (0, 0.2):
        began = tenure.now()
        try:
            await env(b.lock(name).acquire(timeout=timeout))
            raise AssertionError("the lock was granted twice")
        except tenure.AcquireTimeout as error:
            assert name in str(error)
        assert timeout <= tenure.now() - began < timeout + 2
    await env.until_footprint(lambda count: count == before, 5, "the queue to be as it was")
    await env(lease.release())
    await env((await env(c.lock(name).try_acquire())).release())


@case(6)
async def failed_tries_leak_nothing(env: Env) -> None:
    """A hundred failed tries leave nothing at the backend, and the holder's lease is untouched."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    assert await env(b.lock(name).try_acquire()) is None
    before = await env.footprint()
    for _ in range(100):
        assert await env(b.lock(name).try_acquire()) is None
    assert await env.footprint() == before
    assert lease.held()
    await env(lease.release())


@case(9)
async def tokens_rise(env: Env) -> None:
    """Every lease has a greater token than the one before, whoever held it, also from an idle
    name."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    tokens = []
    for _ in range(5):
        for client in (a, b):
            lease = await env(client.lock(name).acquire(timeout=5))
            tokens.append(lease.token)
            await env(lease.release())
    assert all(isinstance(token, int) for token in tokens)
    assert tokens == sorted(set(tokens)), tokens


def _queued(gates: Any, name: str, least: int) -> bool:
    return bool(gates.waiting(name) >= least)


@case(13)
async def five_hundred_local_waiters_come_in_order(env: Env) -> None:
    """Of 500 waiters of one coordinator each is served in its turn, through one remote wait."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    before = await env.footprint()
    blocker = await env(b.lock(name).acquire())
    order: list[int] = []

    async def wait(number: int) -> None:
        lease = await env(a.lock(name).acquire(timeout=60))
        order.append(number)
        await env(lease.release())

    gates = env.session_of(a).gates
    tasks = []
    for number in range(500):
        tasks.append(env.spawn(functools.partial(wait, number)))
        # The first one passes the gate and waits at the backend; the others queue behind it.
        waiting = functools.partial(_queued, gates, name, number)
        await env.until(waiting, 10, "the next waiter")
    at_backend = await env.footprint() - before
    await env(blocker.release())
    for task in tasks:
        await task.result(60)
    assert order == list(range(500))
    assert at_backend <= 3, f"{at_backend} things at the backend for one holder and one wait"


@case(13, needs=(FAIR,))
async def clients_are_served_in_order(env: Env) -> None:
    """Waiters of different clients are served in the order in which they came."""
    holder = await env.connect()
    name = env.name()
    clients = [await env.connect() for _ in range(6)]
    blocker = await env(holder.lock(name).acquire())
    base = await env.footprint()
    order: list[int] = []

    async def wait(number: int) -> None:
        lease = await env(clients[number].lock(name).acquire(timeout=30))
        order.append(number)
        await env(lease.release())

    tasks = []
    for number in range(len(clients)):
        tasks.append(env.spawn(functools.partial(wait, number)))
        await env.until_footprint((base + number).__lt__, 10, "the next in line")
    await env(blocker.release())
    for task in tasks:
        await task.result()
    assert order == list(range(len(clients)))


async def _count(env: Env, clients: list[Any], workers: int, times: int) -> None:
    name = env.name()
    number = inside = 0

    async def work(client: Any) -> None:
        nonlocal number, inside
        for _ in range(times):
            lease = await env(client.lock(name).acquire(timeout=60))
            inside += 1
            assert inside == 1, "two inside at once"
            seen = number
            await env.pause(0)
            number = seen + 1
            inside -= 1
            await env(lease.release())

    tasks = [
        env.spawn(functools.partial(work, clients[each % len(clients)])) for each in range(workers)
    ]
    for task in tasks:
        await task.result(60)
    assert number == workers * times


@case(13)
async def thirty_two_workers_share_a_coordinator(env: Env) -> None:
    """32 threads or tasks on one coordinator count to the right number without another guard."""
    await _count(env, [await env.connect()], workers=32, times=10)


@case()
async def thirty_two_workers_on_many_coordinators(env: Env) -> None:
    """32 threads or tasks on eight coordinators count to the right number without another guard."""
    await _count(env, [await env.connect() for _ in range(8)], workers=32, times=5)


@case()
async def hostile_names_are_names(env: Env) -> None:
    """Names with NUL, slashes, globs, quotes or emoji all work, and none reaches into another's."""
    a, b = await env.connect(), await env.connect()
    leases = [await env(a.lock(name).try_acquire()) for name in HOSTILE_NAMES]
    for name, lease in zip(HOSTILE_NAMES, leases, strict=True):
        assert lease is not None, f"{name[:20]!r} met another name"
        assert await env(b.lock(name).try_acquire()) is None, f"{name[:20]!r} is not locked"
    for lease in leases:
        await env(lease.release())
    for name in HOSTILE_NAMES:
        await env((await env(b.lock(name).try_acquire())).release())


@case()
async def names_that_cannot_be_are_refused(env: Env) -> None:
    """An empty or endless name, or one that UTF-8 cannot encode, is refused with the reason."""
    a = await env.connect()
    for name, word in (("", "1 to 1,000"), ("x" * 1001, "1,001"), ("\ud800", "UTF-8")):
        try:
            a.lock(name)
            raise AssertionError(f"{name[:10]!r} was accepted")
        except tenure.InvalidName as error:
            assert word in str(error)


@case()
async def namespaces_never_meet(env: Env) -> None:
    """The same name in two namespaces is two locks, whatever the namespaces are called."""
    spaces = (env.namespace, env.namespace + "/x", "x{y}", "a%b", "\U0001f512", "..", "n" * 1000)
    clients = [await env.connect(namespace=space) for space in spaces]
    leases = [await env(client.lock("x/one").try_acquire()) for client in clients]
    assert all(leases)
    other = await env(clients[0].lock("one").try_acquire())
    assert other is not None
    for lease in (*leases, other):
        await env(lease.release())


@case(needs=(SHARED,))
async def shared_leases_share(env: Env) -> None:
    """Readers hold together, each with its own rising token; a writer waits for all of them."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    name = env.name()
    one = await env(a.lock(name, shared=True).acquire(timeout=5))
    two = await env(b.lock(name, shared=True).acquire(timeout=5))
    three = await env(a.lock(name, shared=True).acquire(timeout=5))
    assert one.held() and two.held() and three.held()
    assert one.token < two.token < three.token
    assert await env(c.lock(name).try_acquire()) is None
    assert await env(a.lock(name).try_acquire()) is None, "a reader's own client may not write"
    await env(one.release())
    await env(two.release())
    assert await env(c.lock(name).try_acquire()) is None
    await env(three.release())
    writer = await env(c.lock(name).acquire(timeout=5))
    assert writer.token > three.token
    assert await env(a.lock(name, shared=True).try_acquire()) is None
    assert await env(c.lock(name, shared=True).try_acquire()) is None
    await env(writer.release())


@case(needs=(EXCLUSIVE_ONLY,))
async def shared_locks_are_refused(env: Env) -> None:
    """A driver without shared locks says so with the typed error, before it does anything."""
    a = await env.connect()
    try:
        a.lock(env.name(), shared=True)
        raise AssertionError("a shared lock was promised")
    except tenure.Unsupported as error:
        assert "shared" in str(error)


@case(11, timed=True)
async def hooks_hear_of_everything(env: Env) -> None:
    """The event hook hears acquired, waited, renewed and released; its own errors harm nothing."""
    events: list[tenure.Event] = []

    def hook(event: tenure.Event) -> None:
        events.append(event)
        raise RuntimeError("a broken hook")

    a, b = await env.connect(on_event=hook), await env.connect()
    name = env.name()
    blocker = await env(b.lock(name).acquire())
    waiter = env.spawn(lambda: env(a.lock(name).acquire(timeout=20)))
    await env.pause(0.1)
    await env(blocker.release())
    lease = await waiter.result()
    await env.until(lambda: any(each.kind == "renewed" for each in events), env.ttl, "a renewal")
    await env(lease.release())
    kinds = [each.kind for each in events if each.kind != "renewed"]
    assert kinds == ["waited", "acquired", "released"], kinds
    acquired = next(each for each in events if each.kind == "acquired")
    assert (acquired.name, acquired.token, acquired.owner) == (name, lease.token, a.owner)
    assert acquired.seconds >= 0.1


@case()
async def the_holder_is_named(env: Env) -> None:
    """Another client can read who holds a lock, and sees nobody once it is released."""
    a, b = await env.connect(owner="host-a:1"), await env.connect()
    name = env.name()
    assert await env(b.lock(name).holder()) is None
    lease = await env(a.lock(name).acquire())
    holder = await env(b.lock(name).holder())
    assert holder is not None
    assert holder.owner == "host-a:1"
    assert holder.token in (None, lease.token)
    await env(lease.release())
    assert await env(b.lock(name).holder()) is None


@case(6)
async def closing_releases_and_ends(env: Env) -> None:
    """A closed coordinator has freed its locks, turned its waiters away, and takes no more
    orders."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())

    async def wait() -> str:
        try:
            await env(a.lock(name).acquire(timeout=20))
        except tenure.ClosedError:
            return "turned away"
        return "granted"

    waiter = env.spawn(wait)
    await env.until(lambda: env.session_of(a).gates.waiting(name) == 1, 5, "the waiter")
    await env(a.close())
    await env(a.close())
    assert await waiter.result() == "turned away"
    assert not lease.held()
    await env((await env(b.lock(name).try_acquire())).release())
    try:
        await env(a.lock(name).try_acquire())
        raise AssertionError("a closed coordinator took an order")
    except tenure.ClosedError:
        pass


@case(6, 12, timed=True)
async def closing_turns_away_who_waits_at_the_backend(env: Env) -> None:
    """An acquire that waits for another client ends soon when its own coordinator is closed."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    lease = await env(b.lock(name).acquire())
    before = await env.footprint()

    async def wait() -> str:
        try:
            await env(a.lock(name).acquire())
        except tenure.ClosedError:
            return "turned away"
        return "granted"

    waiter = env.spawn(wait)
    await env.pause(0.2)
    await env(a.close())
    assert await waiter.result(2 + env.ttl) == "turned away"
    await env.until_footprint(lambda count: count == before, 5, "the queue to be as it was")
    lease.check()
    await env(lease.release())


@case(needs=(PROCESSES,))
async def a_lease_tells_what_it_is(env: Env) -> None:
    """The repr of lease, lock and coordinator tells what is held, by whom, and no secret."""
    a = await env.connect(owner="me")
    lease = await env(a.lock("nightly").acquire())
    assert "nightly" in repr(lease) and f"token={lease.token}" in repr(lease)
    assert "'me'" in repr(lease) and "held" in repr(lease)
    await env(lease.release())
    assert "released" in repr(lease)
    assert "nightly" in repr(a.lock("nightly")) and "me" in repr(a)


@case(6, flavours=("asyncio",))
async def cancelled_at_every_await_leaves_nothing(env: Env) -> None:
    """An acquire that is cancelled after 0, 1, 2 … steps of the loop never leaves a claim
    behind."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    free, taken = env.name(), env.name()
    blocker = await env(b.lock(taken).acquire())
    await env((await env(a.lock(free).acquire())).release())
    base = await env.footprint()
    for name in (free, taken):
        for steps in range(60):
            task = asyncio.ensure_future(a.lock(name).acquire(timeout=10))
            for _ in range(steps):
                await asyncio.sleep(0 if steps < 40 else 0.001)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await env((await task).release())
    await env.until_footprint(lambda count: count == base, 10, "the backend to be clean")
    await env(blocker.release())
    for name in (free, taken):
        lease = await env(c.lock(name).acquire(timeout=5))
        await env(lease.release())
        await env((await env(a.lock(name).acquire(timeout=5))).release())
