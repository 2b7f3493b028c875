"""What a type checker must understand of the public API. Checked, never run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_type

import tenure
import tenure.aio
import tenure.aio.objectlock
from tenure import Event, Holder, State, objectlock


def hook(event: Event) -> None:
    assert_type(event.name, str)
    assert_type(event.token, int)
    assert_type(event.seconds, float)


def synchronous() -> None:
    with tenure.connect("memory://", ttl=5, owner="me", on_event=hook) as coordinator:
        assert_type(coordinator, tenure.Coordinator)
        assert_type(coordinator.ttl, float)
        lock = coordinator.lock("name", timeout=1)
        assert_type(lock, tenure.Lock)
        assert_type(lock.acquire(), tenure.Lease)
        assert_type(lock.try_acquire(), tenure.Lease | None)
        assert_type(lock.holder(), Holder | None)
        assert_type(lock.timeout, float | None)
        with lock as lease:
            assert_type(lease, tenure.Lease)
            assert_type(lease.token, int)
            assert_type(lease.deadline, float)
            assert_type(lease.state, State)
            assert_type(lease.held(), bool)
            assert_type(lease.lost, tenure.Loss)
            assert_type(lease.lost.wait(1), bool)
            assert_type(lease.lost.reason, str | None)
        with lock.acquire() as lease:
            assert_type(lease, tenure.Lease)
            lease.on_lost(told)
        if (maybe := lock.try_acquire()) is not None:
            assert_type(maybe.release(), None)


def told(lease: tenure.Lease) -> None:
    assert_type(lease.reason, str | None)


def decorated(lock: tenure.Lock) -> None:
    @lock
    def add(number: int, *, twice: bool = False) -> str:
        return str(number * (1 + twice))

    assert_type(add(1, twice=True), str)
    plain: Callable[[], int] = lock(lambda: 1)
    assert_type(plain(), int)


def elections(coordinator: tenure.Coordinator) -> None:
    election = coordinator.election("name")
    assert_type(election.try_campaign(value=1), tenure.Term | None)
    assert_type(election.leader(), tenure.Leader | None)
    assert_type(election.candidates(), tuple[tenure.Candidate, ...])
    assert_type(election.run_as_leader(lambda term: term.token), int)
    for leader in election.observe():
        assert_type(leader, tenure.Leader | None)
    with election.campaign(timeout=1, value={"any": "JSON"}) as term:
        assert_type(term, tenure.Term)
        assert_type(term.publish([1]), None)
        assert_type(term.stand_down(to="other"), bool)


async def elections_asynchronous(coordinator: tenure.aio.Coordinator) -> None:
    async def work(term: tenure.aio.Term) -> str:
        return term.owner

    election = coordinator.election("name")
    assert_type(await election.run_as_leader(work), str)
    async for leader in election.observe():
        assert_type(leader, tenure.Leader | None)
    async with await election.campaign() as term, term.cancel_on_loss():
        assert_type(term, tenure.aio.Term)
        assert_type(await term.stand_down(to="other", timeout=1), bool)


def partitions(coordinator: tenure.Coordinator, mixed: list[str | bytes]) -> None:
    group = coordinator.group("name")
    member = group.join()
    with group.ring(member, weights=lambda info: info.token) as ring:
        assert_type(ring, tenure.Ring)
        assert_type(ring.owner(b"key"), str | None)
        assert_type(ring.mine(["key"]), list[str])
        assert_type(ring.mine(mixed), list[str | bytes])
        assert_type(ring.snapshot, tenure.HashRing)
        ring.on_change(lambda change: print(change.moves(["key"])[0].before))
    with member.claims(("a", "b"), on_gain=lambda slot, lease: lease.token) as claims:
        assert_type(claims, tenure.Claims)
        assert_type(claims.held(), dict[str, tenure.Lease])
    assert_type(tenure.HashRing({"a": 2}).dealt(["key"]), dict[str, list[str]])


async def partitions_asynchronous(member: tenure.aio.Member) -> None:
    async def gain(slot: str, lease: tenure.aio.Lease) -> None:
        assert_type(await lease.lost.wait(), bool)

    async with member.claims(["a"], on_gain=gain) as claims:
        assert_type(claims.held(), dict[str, tenure.aio.Lease])


def objects(locks: objectlock.LockService) -> None:
    assert_type(locks.lock("id", False), int)
    with locks.holding("id", timeout=1) as token:
        assert_type(token, int)

    @locks.locked("{number}", block=False)
    def add(number: int, *, twice: bool = False) -> str:
        return str(number * (1 + twice))

    assert_type(add(1, twice=True), str)


async def objects_asynchronous(locks: tenure.aio.objectlock.LockService) -> None:
    async with locks.holding("id") as token:
        assert_type(token, int)

    @locks.locked(lambda number: f"n{number}")
    async def add(number: int) -> str:
        return str(number)

    assert_type(await add(1), str)


async def asynchronous() -> None:
    async with tenure.aio.connect("memory://", namespace="n") as coordinator:
        assert_type(coordinator, tenure.aio.Coordinator)
    coordinator = await tenure.aio.connect()
    assert_type(coordinator, tenure.aio.Coordinator)
    lock = coordinator.lock("name", shared=True)
    assert_type(await lock.acquire(timeout=0), tenure.aio.Lease)
    assert_type(await lock.try_acquire(), tenure.aio.Lease | None)
    assert_type(await lock.holder(), Holder | None)
    async with lock as lease, lease.cancel_on_loss():
        assert_type(lease, tenure.aio.Lease)
        assert_type(await lease.lost.wait(), bool)
        assert_type(lease.cancel_on_loss(), AbstractAsyncContextManager[None])
    async with await lock.acquire() as lease:
        assert_type(await lease.release(), None)
    assert_type(await coordinator.close(), None)


async def decorated_coroutine(lock: tenure.aio.Lock) -> None:
    @lock
    async def add(number: int, *, twice: bool = False) -> str:
        return str(number * (1 + twice))

    assert_type(await add(1, twice=True), str)
    # Still a coroutine function: `asyncio.run` and `create_task` take what it returns.
    call: Callable[[int], Coroutine[Any, Any, str]] = add
    call(1).close()


def errors() -> None:
    try:
        synchronous()
    except tenure.LeaseLost as error:
        assert_type(error.reason, str)
    standard: tuple[type[TimeoutError], type[ConnectionError], type[ValueError], type[OSError]] = (
        tenure.AcquireTimeout,
        tenure.Unavailable,
        tenure.InvalidArgument,
        tenure.StorageError,
    )
    del standard


def more_than_locks() -> None:
    with tenure.connect("memory://") as coordinator:
        semaphore = coordinator.semaphore("name", 2)
        assert_type(semaphore.acquire(), tenure.Permit)
        assert_type(semaphore.try_acquire(), tenure.Permit | None)
        assert_type(semaphore.limit(), int | None)
        with semaphore as permit:
            assert_type(permit, tenure.Permit)
        with coordinator.multi_lock(["a", "b"]) as leases:
            assert_type(leases, tenure.MultiLease)
            assert_type(leases.tokens, dict[str, int])
        assert_type(coordinator.rwlock("name").read_lock(), tenure.Lock)
        assert_type(coordinator.barrier("name", 2).wait(), int)
        assert_type(coordinator.latch("name", 2).count_down(), int)

        @semaphore
        def work(number: int) -> str:
            return str(number)

        assert_type(work(1), str)


async def more_than_locks_asynchronous() -> None:
    async with tenure.aio.connect("memory://") as coordinator:
        semaphore = coordinator.semaphore("name", 2)
        assert_type(await semaphore.try_acquire(), tenure.aio.Permit | None)
        async with semaphore as permit:
            assert_type(permit, tenure.aio.Permit)
            assert_type(permit.cancel_on_loss(), AbstractAsyncContextManager[None])
        async with coordinator.multi_lock(["a", "b"]) as leases:
            assert_type(leases, tenure.aio.MultiLease)
            assert_type(leases.cancel_on_loss(), AbstractAsyncContextManager[None])
        assert_type(await coordinator.barrier("name", 2).wait(), int)
        assert_type(await coordinator.latch("name", 2).count(), int | None)
