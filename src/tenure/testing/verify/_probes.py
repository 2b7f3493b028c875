"""Probes: what a driver says that it lacks must be refused when it is used, not half work."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import tenure.aio.objectlock
import tenure.objectlock

from ..._runtime.thread import drive
from ...errors import Unsupported
from ..backends import Backend
from ..kit import Env
from ..kit._base import Flavour

SECONDS_MAX = 20.0

Use = Callable[[Env, Any], Coroutine[Any, Any, object]]


async def _lock(env: Env, a: Any) -> None:
    await env((await env(a.lock("probe").acquire(timeout=5))).release())


async def _object_lock(env: Env, a: Any) -> None:
    module = tenure.aio.objectlock if env.flavour == "asyncio" else tenure.objectlock
    locks: Any = module.service(env.backend.url, namespace=env.namespace, ttl=env.ttl, timeout=5)
    try:
        await env(locks.lock("probe"))
        await env(locks.unlock("probe"))
    finally:
        await env(locks.close())


async def _rwlock(env: Env, a: Any) -> None:
    await env((await env(a.rwlock("probe").read_lock().acquire(timeout=5))).release())


async def _semaphore(env: Env, a: Any) -> None:
    await env((await env(a.semaphore("probe", 2).acquire(timeout=5))).release())


async def _group(env: Env, a: Any) -> None:
    await env(a.group("probe").create())


async def _watch(env: Env, a: Any) -> None:
    watch = a.group("probe").watch()
    try:
        await env(watch.next(timeout=1))
    finally:
        await env(watch.close())


async def _election(env: Env, a: Any) -> None:
    await env((await env(a.election("probe").campaign(timeout=5))).release())


async def _partition(env: Env, a: Any) -> None:
    ring = a.group("probe").ring()
    try:
        await env(ring.open())
    finally:
        await env(ring.close())


USES: dict[str, Use] = {
    "lock": _lock,
    "object-lock": _object_lock,
    "rwlock": _rwlock,
    "semaphore": _semaphore,
    "group": _group,
    "watch": _watch,
    "election": _election,
    "partition": _partition,
}
"""The least use of each profile."""


def probe(backend: Backend, profile: str, flavour: Flavour, namespace: str) -> str:
    """Use a profile; empty if that raised `Unsupported`, else what happened instead."""
    env = Env(backend, flavour, namespace)

    async def whole() -> None:
        try:
            await USES[profile](env, await env.connect())
        finally:
            await env.close()

    try:
        if flavour == "asyncio":
            import asyncio

            asyncio.run(asyncio.wait_for(whole(), SECONDS_MAX))
        else:
            drive(whole())
    except Unsupported:
        return ""
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}"
    return "it worked"
