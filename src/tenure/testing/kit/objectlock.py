"""The object lock."""

from __future__ import annotations

import asyncio
from typing import Any

import tenure
import tenure.aio.objectlock
import tenure.objectlock

from ._base import Env, case
from .group import refused

SECONDS_MAX = 10.0


async def service(env: Env, **options: Any) -> Any:
    """A lock service of the case's flavour, which the case must close."""
    options = {"namespace": env.namespace, "ttl": env.ttl} | options
    module = tenure.aio.objectlock if env.flavour == "asyncio" else tenure.objectlock
    locks = module.service(env.backend.url, **options)
    await env(locks.open())
    return locks


@case(1, 8, 9)
async def an_object_is_locked_until_it_is_unlocked(env: Env) -> None:
    """What is locked is refused to others, or waited for; who does not hold it cannot unlock it;
    and tokens rise."""
    a, b = await service(env), await service(env)
    before = await env.footprint()
    token = await env(a.lock("port-7"))
    assert a.token("port-7") == token
    await refused(env, lambda: b.lock("port-7", block=False), tenure.AcquireTimeout)
    await refused(env, lambda: b.lock("port-7", False), tenure.AcquireTimeout)
    await refused(env, lambda: b.lock("port-7", timeout=0.02), tenure.AcquireTimeout)
    await refused(env, lambda: b.unlock("port-7"), tenure.NotHeld)
    await env(b.lock("port-8", block=False))
    await env(b.unlock("port-8"))
    await refused(env, lambda: b.lock("port-7", block=False), tenure.AcquireTimeout)
    waiter = env.spawn(lambda: env(b.lock("port-7")))
    await env.pause(0.02)
    assert not waiter.done()
    await env(a.unlock("port-7"))
    assert await waiter.result() > token
    await refused(env, lambda: a.unlock("port-7"), tenure.NotHeld)
    await env(b.close())  # unlocks what the waiter, which has ended, has left
    assert await env(a.lock("port-7", block=False)) > token
    await env(a.unlock("port-7"))
    assert await env.footprint() <= before
    await env(a.close())


@case(1)
async def who_holds_an_object_may_lock_it_again(env: Env) -> None:
    """The same thread or task may nest; another of the same service is another caller."""
    locks, others = await service(env), await service(env)
    token = await env(locks.lock("port-7"))
    assert await env(locks.lock("port-7", block=False)) == token
    other = env.spawn(lambda: refused(env, lambda: locks.lock("port-7", False), TimeoutError))
    await other.result()
    other = env.spawn(lambda: refused(env, lambda: locks.unlock("port-7"), tenure.NotHeld))
    assert "another" in str(await other.result())
    await env(locks.unlock("port-7"))
    locks.check("port-7")
    await refused(env, lambda: others.lock("port-7", block=False), tenure.AcquireTimeout)
    await env(locks.unlock("port-7"))
    await env(others.lock("port-7", block=False))
    await refused(env, lambda: locks.unlock("port-7"), tenure.NotHeld)
    for each in (locks, others):
        await env(each.close())


@case(4, timed=True)
async def a_lost_object_raises_when_it_is_unlocked(env: Env) -> None:
    """Who has lost an object is told by every call about it, and can lock it anew."""
    locks = await service(env)
    token = await env(locks.lock("port-7"))
    await env(locks.lock("port-7"))
    session = env.session_of(locks._coordinator)
    await session.driver.end((await session.life()).id)
    lost = lambda: session.alive is None  # noqa: E731
    await env.until(lost, 2 * env.ttl + 2, "the loss")
    await refused(env, lambda: locks.check("port-7"), tenure.LeaseLost)
    await refused(env, lambda: locks.token("port-7"), tenure.LeaseLost)
    await refused(env, lambda: locks.lock("port-7"), tenure.LeaseLost)
    await refused(env, lambda: locks.unlock("port-7"), tenure.LeaseLost)
    await refused(env, lambda: locks.unlock("port-7"), tenure.LeaseLost)
    await refused(env, lambda: locks.unlock("port-7"), tenure.NotHeld)
    assert await env(locks.lock("port-7", timeout=SECONDS_MAX)) > token
    await env(locks.close())


def _updating_task(locks: Any, others: Any, seen: list[int]) -> Any:
    async def update(port: dict[str, int], depth: int = 0) -> int:
        seen.append(locks.token(f"port-{port['id']}"))
        try:
            await others.lock("port-7", block=False)
        except tenure.AcquireTimeout:
            return int(await locked({"id": 7}, depth - 1)) if depth else len(seen)
        raise AssertionError("it was not locked")

    locked = locks.locked("port-{port[id]}")(update)
    return locked


def _updating_thread(locks: Any, others: Any, seen: list[int]) -> Any:
    def update(port: dict[str, int], depth: int = 0) -> int:
        seen.append(locks.token(f"port-{port['id']}"))
        try:
            others.lock("port-7", block=False)
        except tenure.AcquireTimeout:
            return int(locked({"id": 7}, depth - 1)) if depth else len(seen)
        raise AssertionError("it was not locked")

    locked = locks.locked("port-{port[id]}")(update)
    return locked


@case(1)
async def a_decorated_function_holds_what_it_is_about(env: Env) -> None:
    """The object is derived from the arguments of each call, and is free again behind it."""
    locks, others = await service(env), await service(env)
    seen: list[int] = []
    update = (_updating_task if env.flavour == "asyncio" else _updating_thread)(locks, others, seen)
    refusing = locks.locked("port-{port[id]}", block=False)(update)
    assert await env(update({"id": 7}, depth=1)) == 2
    assert seen[0] == seen[1]
    await refused(env, lambda: locks.unlock("port-7"), tenure.NotHeld)
    await env(others.lock("port-7", block=False))
    await refused(env, lambda: refusing({"id": 7}), tenure.AcquireTimeout)
    for each in (locks, others):
        await env(each.close())


@case(6, flavours=("asyncio",), timed=True)
async def a_lock_on_an_object_can_be_cancelled(env: Env) -> None:
    """A task that is cancelled while it waits holds nothing, and leaves nothing behind."""
    locks, others = await service(env), await service(env)
    await others.lock("port-7")
    before = await env.footprint()

    async def wait() -> None:
        async with locks.holding("port-7"):
            raise AssertionError("two hold it")

    waiter = asyncio.ensure_future(wait())
    await asyncio.sleep(0.02)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert waiter.cancelled()
    await env.until_footprint(lambda count: count <= before, SECONDS_MAX, "the claim to go")
    await others.unlock("port-7")
    async with locks.holding("port-7", timeout=SECONDS_MAX) as token:
        assert locks.token("port-7") == token
    for each in (locks, others):
        await each.close()
