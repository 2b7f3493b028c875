"""Cases with faults: lost replies, cuts, dead sessions, restarts, hung renewals, rubbish."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import tenure

from ._base import (
    ENDS_WITH_CONNECTION,
    EXPIRES,
    OUTLIVES_CONNECTION,
    SERVER,
    Env,
    Need,
    case,
)

ROSTER = Need(lambda traits: not traits.frees_on_death, "the backend has its own queue")
NOTICE_SECONDS_MAX = 1.0
"""How late a loaded machine may tell of a loss."""


async def _free(env: Env, name: str, seconds: float) -> None:
    """The lock can be had by somebody new within so many seconds."""
    c = await env.connect()
    await env((await env(c.lock(name).acquire(timeout=seconds))).release())


@case(2, needs=(SERVER, EXPIRES), timed=True)
async def the_deadline_counts_from_the_request(env: Env) -> None:
    """However late the replies come, the deadline is less than a TTL after the request was sent."""
    proxy = env.proxy()
    ttl = max(3.0, env.ttl)
    a = await env.connect(env.url_through(proxy), ttl=ttl)
    driver = env.session_of(a).driver
    sent: list[float] = []
    renew = driver.renew

    async def noted(session: str) -> None:
        began = tenure.now()
        await renew(session)
        assert tenure.now() - began >= 0.27, "the fault did not bite"
        sent.append(began)

    # Short enough that a connection, which may take two replies, is made within the patience.
    proxy.delay(0.3, "to_client")
    began = tenure.now()
    lease = await env(a.lock(env.name()).acquire())
    first = lease.deadline
    assert first <= began + 2 * (tenure.now() - began) + ttl
    driver.renew = noted
    await env.until(lambda: len(sent) >= 2, 2 * ttl, "two renewals")
    await env.until(lambda: lease.deadline > first, 1, "the deadline to move")
    driver.renew = renew
    assert lease.deadline <= sent[-1] + ttl
    proxy.heal()
    await env(lease.release())


@case(3, 4, needs=(SERVER, EXPIRES), timed=True)
async def a_cut_off_holder_knows_before_another_is_granted(env: Env) -> None:
    """While renewals hang in a black hole, the lease is in doubt, then lost by its deadline; only
    then is another granted."""
    proxy = env.proxy()
    events: list[tenure.Event] = []
    a = await env.connect(env.url_through(proxy), on_event=events.append)
    b = await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    lost_at: list[float] = []
    lease.on_lost(lambda lost: lost_at.append(tenure.now()))
    granted_at: list[float] = []

    async def wait() -> Any:
        granted = await env(b.lock(name).acquire(timeout=30))
        granted_at.append(tenure.now())
        return granted

    waiter = env.spawn(wait)
    await env.pause(0.2)
    proxy.black_hole()
    cut = tenure.now()
    await env.until(lambda: lost_at, 2 * env.ttl, "the loss")
    deadline = lease.deadline
    assert lost_at[0] <= deadline + NOTICE_SECONDS_MAX
    assert lost_at[0] <= cut + env.ttl + NOTICE_SECONDS_MAX
    assert not lease.held()
    assert lease.reason
    kinds = [event.kind for event in events]
    if not env.traits.frees_on_death:  # else the connection is given up, and with it the lease
        assert "in doubt" in kinds
    assert kinds.count("lost") == 1
    assert proxy.swallowed > 0, "the fault did not bite"
    if env.traits.frees_on_death:
        # The server frees the lock when it finds the connection dead; here it is not.
        proxy.heal()
    other = await waiter.result()
    # It was lost at its deadline, whenever the callback could run.
    assert granted_at[0] >= min(lost_at[0], deadline)
    if not env.traits.frees_on_death:
        assert tenure.now() - cut <= env.death + 1.5
    assert other.token > lease.token
    await env(other.release())


@case(4, needs=(ENDS_WITH_CONNECTION,), timed=True)
async def a_lost_connection_is_a_lost_lease_at_once(env: Env) -> None:
    """Where the lock lives on a connection, its end is a loss at once, long before the deadline."""
    proxy = env.proxy()
    a = await env.connect(env.url_through(proxy), ttl=20.0)
    b = await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    lost: list[float] = []
    lease.on_lost(lambda lease: lost.append(tenure.now()))
    proxy.reset()
    cut = tenure.now()
    await env.until(lambda: lost, 2, "the loss")
    assert lost[0] - cut < 1
    assert not lease.held()
    await env((await env(b.lock(name).acquire(timeout=5))).release())
    again = await env(a.lock(name).acquire(timeout=5))
    assert again.token > lease.token
    await env(again.release())


@case(4, needs=(OUTLIVES_CONNECTION,), timed=True)
async def a_cut_that_heals_keeps_the_lease(env: Env) -> None:
    """Cut off for less than the TTL, a lease is in doubt and then held again; nobody else had
    it."""
    proxy = env.proxy()
    ttl = max(3.0, env.ttl)
    a, b = await env.connect(env.url_through(proxy), ttl=ttl), await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    lost: list[Any] = []
    lease.on_lost(lost.append)
    proxy.cut()
    await env.until(lambda: lease.state is tenure.State.IN_DOUBT, ttl, "doubt")
    assert lease.held()
    proxy.heal()
    await env.until(lambda: lease.state is tenure.State.HELD, ttl, "a renewal")
    assert await env(b.lock(name).try_acquire()) is None
    await env(lease.release())
    assert not lost
    await env((await env(b.lock(name).try_acquire())).release())


@case(5, 6, needs=(SERVER,), timed=True)
async def a_lost_reply_is_neither_success_nor_failure(env: Env) -> None:
    """When the reply to an acquire is lost, the claim is found again: one lease, and nothing
    beside it."""
    proxy = env.proxy()
    a, b = await env.connect(env.url_through(proxy)), await env.connect()
    name = env.name()
    await env((await env(a.lock(env.name()).acquire())).release())
    base = await env.footprint()
    proxy.black_hole("to_client", drop=True)
    asking = env.spawn(lambda: env(a.lock(name).acquire(timeout=30)))
    await env.until(lambda: proxy.swallowed, 10, "the reply to be swallowed")
    proxy.heal()
    lease = await asking.result()
    lease.check()
    assert await env(b.lock(name).try_acquire()) is None
    await env(lease.release())
    await env.until_footprint(lambda count: count == base, env.ttl + 2, "the backend to be clean")
    await _free(env, name, env.ttl + 2)


@case(5, 6, needs=(SERVER,), timed=True)
async def an_acquire_that_never_hears_leaves_nothing(env: Env) -> None:
    """An acquire whose replies are all lost gives up in time, and what it may have claimed goes
    away."""
    proxy = env.proxy()
    a = await env.connect(env.url_through(proxy))
    name = env.name()
    await env((await env(a.lock(env.name()).acquire())).release())
    base = await env.footprint()
    proxy.black_hole("to_client", drop=True)
    began = tenure.now()
    try:
        await env(a.lock(name).acquire(timeout=0.4))
        raise AssertionError("an acquire without a reply was taken for a success")
    except (tenure.AcquireTimeout, tenure.Unavailable):
        pass
    assert tenure.now() - began < 0.4 + 2 * env.ttl
    assert proxy.swallowed > 0, "the fault did not bite"
    proxy.heal()
    await _free(env, name, 2 * env.ttl + 2)
    await env.until_footprint(
        lambda count: count == base, 2 * env.ttl + 2, "the backend to be clean"
    )


@case(5, 8, needs=(SERVER,), timed=True)
async def a_lost_reply_to_a_release_frees_the_lock(env: Env) -> None:
    """When the reply to a release is lost, the lock is freed all the same, and is not held
    meanwhile."""
    proxy = env.proxy()
    a = await env.connect(env.url_through(proxy))
    name = env.name()
    lease = await env(a.lock(name).acquire())
    proxy.black_hole("to_client", drop=True)

    async def release() -> None:
        with contextlib.suppress(tenure.Unavailable, tenure.LeaseLost):
            await env(lease.release())

    releasing = env.spawn(release)
    await env.until(lambda: proxy.swallowed, 10, "the reply to be swallowed")
    assert not lease.held(), "held while it is being released"
    proxy.heal()
    await releasing.result()
    await _free(env, name, env.ttl + 2)


@case(7, needs=(ROSTER,), timed=True)
async def a_waiter_whose_session_died_is_never_granted(env: Env) -> None:
    """A waiter whose session the backend has ended queues again under a new one before it is
    granted."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    name = env.name()
    blocker = await env(b.lock(name).acquire())
    base = await env.footprint()
    waiter = env.spawn(lambda: env(a.lock(name).acquire(timeout=30)))
    await env.until_queued(base, 5, "the waiter to queue")
    session = env.session_of(a)
    dead = session._life
    await env.session_of(c).driver.end(dead.id)
    await env(blocker.release())
    lease = await waiter.result()
    assert lease._life.id != dead.id, "granted under a session that was dead"
    assert await env(c.lock(name).try_acquire()) is None
    await env.pause(env.ttl / 2)
    lease.check()
    await env(lease.release())


@case(4, 8, timed=True)
async def a_lost_lease_says_so_everywhere(env: Env) -> None:
    """Loss reaches the callback once, the signal, the state, `check`, `release` and the end of
    `with`."""
    events: list[tenure.Event] = []
    a, b = await env.connect(on_event=events.append), await env.connect()
    session = env.session_of(a)
    lock = a.lock(env.name())
    calls: list[Any] = []

    async def body() -> Any:
        if env.flavour == "asyncio":
            async with lock as lease:
                session.lose(lease._life, "an experiment")
                return lease
        else:
            with lock as lease:
                session.lose(lease._life, "an experiment")
                return lease

    try:
        await body()
        raise AssertionError("a lost lease left its block without an error")
    except tenure.LeaseLost as error:
        assert "an experiment" in str(error) and error.reason == "an experiment"
    lease: Any = await env(lock.acquire(timeout=10))
    lease.on_lost(calls.append)
    waiting = env.spawn(lambda: env(lease.lost.wait(10)))
    assert not lease.lost.is_set()
    session.lose(lease._life, "another")
    session.lose(lease._life, "a third")
    assert await waiting.result(5) is True
    assert calls == [lease]
    lease.on_lost(calls.append)
    assert calls == [lease, lease], "a late callback must be called at once"
    assert lease.lost and lease.lost.reason == "another" == lease.reason
    assert lease.state is tenure.State.LOST
    for attempt in (lease.check, lease.release):
        try:
            await env(attempt())
            raise AssertionError(f"{attempt} passed on a lost lease")
        except tenure.LeaseLost as error:
            assert error.lease is lease
    assert [event.kind for event in events].count("lost") == 2
    await env((await env(b.lock(lock.name).acquire(timeout=env.ttl + 5))).release())


@case(4, flavours=("asyncio",))
async def the_body_is_cancelled_on_loss(env: Env) -> None:
    """In asyncio the body of `cancel_on_loss` is cancelled, and the block raises `LeaseLost`
    instead."""
    a = await env.connect()
    session = env.session_of(a)
    loop = asyncio.get_running_loop()
    lease = await a.lock(env.name()).acquire()
    loop.call_later(0.05, session.lose, lease._life, "an experiment")
    try:
        async with lease.cancel_on_loss():
            await asyncio.sleep(30)
        raise AssertionError("the body went on")
    except tenure.LeaseLost as error:
        assert error.reason == "an experiment"
    task = asyncio.current_task()
    assert task is not None and not task.cancelling(), "the task is left cancelled"
    # A cancellation from elsewhere stays a cancellation.
    lease = await a.lock(env.name()).acquire(timeout=10)

    async def body() -> None:
        async with lease, lease.cancel_on_loss():
            await asyncio.sleep(30)

    outer = asyncio.ensure_future(body())
    await asyncio.sleep(0.05)
    outer.cancel()
    try:
        await outer
        raise AssertionError("the cancellation was swallowed")
    except asyncio.CancelledError:
        pass
    assert lease.state is tenure.State.RELEASED


@case(11, timed=True)
async def an_error_in_the_background_is_heard(env: Env) -> None:
    """When renewing fails in a way that nobody foresaw, the lease is in doubt, then lost by its
    deadline."""
    events: list[tenure.Event] = []
    a = await env.connect(on_event=events.append)
    lease = await env(a.lock(env.name()).acquire())

    async def broken(session: str) -> None:
        raise RuntimeError("a bug in the driver")

    env.session_of(a).driver.renew = broken
    await env.until(lambda: lease.state is tenure.State.IN_DOUBT, env.ttl, "doubt")
    assert any(each.kind == "in doubt" and "a bug" in each.reason for each in events)
    if env.traits.expires:
        await env.until(lambda: not lease.held(), 2 * env.ttl, "the loss")
        assert tenure.now() <= lease.deadline + NOTICE_SECONDS_MAX
        assert "a bug" in str(lease.reason)
    else:
        await env(lease.release())


@case(12, needs=(ROSTER,))
async def a_missed_wake_up_costs_one_look(env: Env) -> None:
    """When the backend's push is lost, the waiter looks for itself soon enough."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    driver = env.session_of(b).driver

    async def deaf(interest: Any, wake: Any) -> None:
        """Never wakes anybody."""

    driver.listen = deaf
    lease = await env(a.lock(name).acquire())
    waiter = env.spawn(lambda: env(b.lock(name).acquire(timeout=20)))
    await env.pause(0.2)
    await env(lease.release())
    released = tenure.now()
    await env((await waiter.result()).release())
    assert tenure.now() - released <= 2 * env.traits.poll + 0.5


@case(12, needs=(SERVER,), timed=True)
async def closing_is_bounded_while_the_server_is_away(env: Env) -> None:
    """`close` comes back soon, also when the server refuses or swallows everything."""
    for fault in ("cut", "black_hole"):
        proxy = env.proxy()
        a = await env.connect(env.url_through(proxy))
        await env(a.lock(env.name()).acquire())
        getattr(proxy, fault)()
        began = tenure.now()
        await env(a.close())
        took = tenure.now() - began
        assert took <= 2 * env.ttl + 2, f"{fault}: close took {took:.1f} s"


@case(12, needs=(SERVER,), timed=True)
async def connecting_fails_with_the_reason_and_in_time(env: Env) -> None:
    """A server that refuses, is silent, or talks rubbish: a typed error, soon, and no secret in
    it."""
    proxy = env.proxy()
    for fault in ("cut", "black_hole", "garbage"):
        getattr(proxy, fault)(
            *((b"HTTP/1.1 400 Bad Request\r\n\r\n",) if fault == "garbage" else ())
        )
        began = tenure.now()
        try:
            await env.connect(env.url_through(proxy))
            raise AssertionError(f"{fault}: connected to nothing")
        except tenure.BackendError as error:
            assert str(error), fault
        assert tenure.now() - began <= env.ttl + 2, fault
        proxy.heal()
    await env(
        (await env((await env.connect(env.url_through(proxy))).lock("x").acquire())).release()
    )


@case(5, 12, needs=(SERVER,), timed=True)
async def rubbish_in_the_middle_is_an_error(env: Env) -> None:
    """A server that suddenly talks rubbish gives a typed error, and nothing is half done."""
    proxy = env.proxy()
    a = await env.connect(env.url_through(proxy))
    name = env.name()
    await env((await env(a.lock(name).acquire())).release())
    proxy.garbage(b"\x00\xff rubbish \r\n" * 20)
    try:
        await env(a.lock(name).acquire(timeout=0.5))
        raise AssertionError("rubbish was taken for a success")
    except (tenure.BackendError, tenure.AcquireTimeout):
        pass
    proxy.heal()
    await _free(env, name, 2 * env.ttl + 2)
    again = await env(a.lock(name).acquire(timeout=2 * env.ttl + 5))
    again.check()
    await env(again.release())


@case(12, needs=(SERVER,))
async def a_broken_connection_harms_no_later_acquire(env: Env) -> None:
    """After each reset of all connections the same coordinator acquires and releases again."""
    proxy = env.proxy()
    a = await env.connect(env.url_through(proxy))
    for _ in range(5):
        lease = await env(a.lock("again").acquire(timeout=10))
        await env(lease.release())
        proxy.reset()


@case(9, 4, needs=(SERVER,), timed=True)
async def a_restart_of_the_server_is_survived(env: Env) -> None:
    """After kill -9 and restart of the server a lease is kept or its loss told; tokens go on
    rising, and the server is told to be the same."""
    # Some servers take seconds to be back, and a waiter gives up after a TTL without one.
    ttl = max(5.0, env.ttl)
    a, b = await env.connect(ttl=ttl), await env.connect(ttl=ttl)
    name = env.name()
    told = await env.session_of(a).driver.server()
    lease = await env(a.lock(name).acquire())
    waiter = env.spawn(lambda: env(b.lock(name).acquire(timeout=60)))
    await env.pause(0.3)
    server = env.backend.server
    assert server is not None
    server.restart(graceful=False)
    up = tenure.now()
    if env.traits.durable_claims:
        await env.until(lambda: lease.state is not tenure.State.IN_DOUBT, ttl + 2, "a renewal")
    else:
        await env.until(lambda: not lease.held(), ttl, "the loss")
        assert lease.reason
    with contextlib.suppress(tenure.LeaseLost, tenure.BackendError):
        await env(lease.release())
    second = await waiter.result(60)
    assert tenure.now() - up <= 3 * ttl + 5
    assert second.token > lease.token or not env.traits.durable_tokens
    await env(second.release())
    third = await env(a.lock(name).acquire(timeout=10))
    assert third.token > second.token
    await env(third.release())
    assert await env.session_of(a).driver.server() == told


@case(3, 4, needs=(SERVER, EXPIRES), timed=True)
async def a_paused_server_costs_the_lease_in_time(env: Env) -> None:
    """While the server is stopped, a lease is lost by its deadline, and all works again
    afterwards."""
    a = await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    server = env.backend.server
    assert server is not None
    server.pause()
    try:
        await env.until(lambda: not lease.held(), env.ttl + NOTICE_SECONDS_MAX, "the loss")
        assert tenure.now() <= lease.deadline + NOTICE_SECONDS_MAX
    finally:
        server.resume()
    again = await env(a.lock(name).acquire(timeout=env.ttl + 10))
    assert again.token > lease.token
    await env(again.release())


@case(4, 6, 7, needs=(OUTLIVES_CONNECTION,), timed=True)
async def a_cut_off_waiter_is_passed_over(env: Env) -> None:
    """A waiter that was cut off beyond its TTL is passed over; healed, it queues again and is
    served."""
    proxy = env.proxy()
    a, b = await env.connect(), await env.connect(env.url_through(proxy))
    c = await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    base = await env.footprint()
    cut_off = env.spawn(lambda: env(b.lock(name).acquire(timeout=60)))
    await env.until_queued(base, 5, "the waiter to queue")
    proxy.black_hole()
    await env(lease.release())
    second = await env(c.lock(name).acquire(timeout=env.death + 2))
    assert not cut_off.done()
    proxy.heal()
    await env.pause(0.3)
    assert not cut_off.done(), "granted while another holds"
    second.check()
    await env(second.release())
    third = await cut_off.result(20)
    assert third.token > second.token
    await env(third.release())


@case(8, timed=True)
async def no_renewal_outlives_the_end(env: Env) -> None:
    """After `close` not one renewal is sent, and none brings a lost lease back to life."""
    a = await env.connect()
    lease = await env(a.lock(env.name()).acquire())
    session = env.session_of(a)
    renewals: list[float] = []
    renew = session.driver.renew

    async def counted(id: str) -> None:
        renewals.append(tenure.now())
        await renew(id)

    session.driver.renew = counted
    await env.until(lambda: renewals, env.ttl, "a renewal")
    session.lose(lease._life, "an experiment")
    before = len(renewals)
    await env.pause(env.ttl / 2)
    assert len(renewals) == before
    assert not lease.held()
    await env(a.close())
    await env.pause(env.ttl / 2)
    assert len(renewals) == before
