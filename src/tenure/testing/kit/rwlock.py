"""Reader-writer locks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Any

import tenure

from ._base import FAIR, PROCESSES, SEES_DEATH, SHARED, Env, Need, Task, case
from .processes import DIES_BY_TTL

ROSTER_ORDER = (SHARED, FAIR)
NOT_FAIR = Need(lambda traits: not traits.fair, "keeps an order")


async def _held(env: Env, client: Any, name: str, shared: bool, timeout: float = 20) -> Any:
    return await env(client.lock(name, shared=shared).acquire(timeout=timeout))


def _asks(env: Env, client: Any, name: str, shared: bool, timeout: float = 20) -> Task:
    return env.spawn(functools.partial(_held, env, client, name, shared, timeout))


async def _queued(env: Env, client: Any, name: str, shared: bool, timeout: float = 20) -> Task:
    """An acquire in the background, once it stands in the backend's queue."""
    base = await env.footprint()
    task = _asks(env, client, name, shared, timeout)
    await env.until_footprint(lambda count: count > base, 10, "the waiter to queue")
    return task


@case(13, needs=(SHARED,))
async def readers_and_writers_keep_apart(env: Env) -> None:
    """Workers of four clients read and write two unguarded numbers: a reader never sees them
    differ."""
    clients = [await env.connect() for _ in range(4)]
    name = env.name()
    first = second = together = 0
    readers = 0

    async def write(client: Any) -> None:
        nonlocal first, second
        for _ in range(4):
            lease = await _held(env, client, name, False, 60)
            assert readers == 0, "a writer among readers"
            seen = first
            first = seen + 1
            await env.pause(0)
            second = seen + 1
            await env(lease.release())

    async def read(client: Any) -> None:
        nonlocal readers, together
        for _ in range(4):
            lease = await _held(env, client, name, True, 60)
            readers += 1
            together = max(together, readers)
            seen = first
            await env.pause(0.002)
            assert seen == first == second, "a writer wrote under a reader's eyes"
            readers -= 1
            await env(lease.release())

    tasks = [
        env.spawn(functools.partial(work, client)) for client in clients for work in (write, read)
    ]
    for task in tasks:
        await task.result(60)
    assert first == second == 16


@case(needs=ROSTER_ORDER)
async def a_waiting_writer_is_not_overtaken(env: Env) -> None:
    """Readers that come after a waiting writer wait behind it, wherever they and it come from."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    for writer, late in ((b, c), (b, a), (b, b), (a, a)):
        name = env.name()
        first = await _held(env, a, name, True)
        if writer is a:
            writing = _asks(env, a, name, False)
            gates = env.session_of(a).gates
            await env.until(functools.partial(gates.waiting, name), 5, "the writer")
        else:
            writing = await _queued(env, writer, name, False)
        assert await env(late.lock(name, shared=True).try_acquire()) is None
        reading = _asks(env, late, name, True)
        await env.pause(0.03)
        assert not reading.done() and not writing.done()
        await env(first.release())
        lease = await writing.result()
        assert not reading.done(), "the reader overtook the writer"
        await env(lease.release())
        await env((await reading.result()).release())


@case(needs=ROSTER_ORDER)
async def a_waiting_reader_is_not_overtaken(env: Env) -> None:
    """A writer that comes after a waiting reader is served after it."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    name = env.name()
    first = await _held(env, a, name, False)
    reading = await _queued(env, b, name, True)
    writing = await _queued(env, c, name, False)
    await env(first.release())
    lease = await reading.result()
    await env.pause(0.03)
    assert not writing.done()
    await env(lease.release())
    writer = await writing.result()
    assert writer.token > lease.token > first.token
    await env(writer.release())


@case(needs=(SHARED, NOT_FAIR))
async def readers_do_not_keep_a_writer_out_for_ever(env: Env) -> None:
    """Where the backend keeps no order, a writer still gets its turn among readers that come and
    go without a gap."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    name = env.name()
    done = False

    async def read(client: Any, late: float) -> None:
        await env.pause(late)
        while not done:
            lease = await _held(env, client, name, True, 60)
            await env.pause(0.02)
            await env(lease.release())

    readers = [env.spawn(functools.partial(read, a, 0.0)), env.spawn(lambda: read(b, 0.01))]
    await env.pause(0.05)
    try:
        for _ in range(3):
            await env((await _held(env, c, name, False, 20)).release())
    finally:
        done = True
        for reader in readers:
            await reader.result()


@case(6, needs=ROSTER_ORDER)
async def a_writer_that_gives_up_lets_readers_in(env: Env) -> None:
    """When a waiting writer gives up, the readers behind it join those before it at once."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    for writer, late in ((b, c), (a, a)):
        name = env.name()
        first = await _held(env, a, name, True)

        async def give_up(writer: Any = writer, name: str = name) -> str:
            try:
                await _held(env, writer, name, False, 0.3)
            except tenure.AcquireTimeout:
                return "gave up"
            return "granted"

        writing = env.spawn(give_up)
        await env.pause(0.1)
        reading = [_asks(env, late, name, True) for _ in range(2)]
        assert await writing.result() == "gave up"
        for task in reading:
            lease = await task.result(2)
            first.check()
            await env(lease.release())
        await env(first.release())


@case(needs=ROSTER_ORDER)
async def readers_come_in_together(env: Env) -> None:
    """When a writer leaves, all the readers that waited for it hold at the same time."""
    clients = [await env.connect() for _ in range(3)]
    name = env.name()
    writer = await _held(env, clients[0], name, False)
    tasks = [await _queued(env, clients[1], name, True), await _queued(env, clients[2], name, True)]
    # The others of these clients come through their gates, and one is of the writer's own.
    tasks += [_asks(env, client, name, True) for client in clients]
    await env(writer.release())
    leases = [await task.result(5) for task in tasks]
    for lease in leases:
        lease.check()
    assert len({lease.token for lease in leases}) == len(leases)
    assert await env(clients[0].lock(name).try_acquire()) is None
    for lease in leases:
        await env(lease.release())
    await env((await env(clients[0].lock(name).try_acquire())).release())


@case(6, needs=(SHARED,))
async def a_shared_try_leaves_nothing(env: Env) -> None:
    """Failed tries to read leave nothing at the backend, nor does a reader that gave up."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    writer = await _held(env, a, name, False)
    assert await env(b.lock(name, shared=True).try_acquire()) is None
    before = await env.footprint()
    for _ in range(20):
        assert await env(b.lock(name, shared=True).try_acquire()) is None
    assert await env.footprint() == before
    try:
        await _held(env, b, name, True, 0.05)
        raise AssertionError("a reader was let in to a writer")
    except tenure.AcquireTimeout:
        pass
    await env.until_footprint(lambda count: count == before, 5, "the queue to be as it was")
    await env(writer.release())
    one, two = [await env(client.lock(name, shared=True).try_acquire()) for client in (a, b)]
    assert one.held() and two.held() and one.shared and two.shared
    await env(one.release())
    await env(two.release())


@case(9, needs=(SHARED,))
async def tokens_rise_among_readers_and_writers(env: Env) -> None:
    """Every lease has a greater token than all before it, reader's or writer's."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    tokens = []
    for shared in (True, False, True, True, False):
        leases = [await _held(env, client, name, shared) for client in ((a, b) if shared else (a,))]
        tokens += [lease.token for lease in leases]
        for lease in leases:
            await env(lease.release())
    assert tokens == sorted(set(tokens)), tokens


@case(needs=(SHARED,))
async def a_reader_writer_lock_is_two_locks_of_a_name(env: Env) -> None:
    """`rwlock` gives readers' and writers' locks that meet those of the same name."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    both = a.rwlock(name)
    one = await env(both.read_lock(timeout=5).acquire())
    two = await env(b.rwlock(name).read_lock().acquire(timeout=5))
    assert await env(both.write_lock().try_acquire()) is None
    assert await env(b.lock(name).try_acquire()) is None
    await env(one.release())
    await env(two.release())
    lease = await env(both.write_lock().acquire(timeout=5))
    assert not lease.shared and name in repr(both)
    await env(lease.release())


async def _after_a_kill(env: Env, died_shared: bool, seconds: float) -> None:
    actor = await env.ready_actor()
    name = env.name()
    b, c = await env.connect(), await env.connect()
    old = actor.do("acquire", name=name, shared=died_shared)["token"]
    tasks = [_asks(env, client, name, not died_shared) for client in (b, c)]
    await env.pause(0.1)
    actor.kill()
    killed = tenure.now()
    if not died_shared:  # readers, who hold together
        leases = [await task.result(seconds + 5) for task in tasks]
        for lease in leases:
            assert lease.held() and lease.token > old
            await env(lease.release())
    else:
        while tasks:  # writers, in whatever order
            await env.until(lambda: any(task.done() for task in tasks), seconds + 5, "a writer")
            done = next(task for task in tasks if task.done())
            tasks.remove(done)
            lease = await done.result()
            assert lease.token > old
            await env(lease.release())
    took = tenure.now() - killed
    assert took <= seconds + 0.5, f"took over after {took:.2f} s, not within {seconds:g} s"


@case(9, needs=(SHARED, PROCESSES, SEES_DEATH))
async def a_killed_reader_or_writer_frees_at_once(env: Env) -> None:
    """After SIGKILL of a reader the writers have their turn at once, of a writer the readers."""
    for died_shared in (True, False):
        await _after_a_kill(env, died_shared, 1.0)


@case(9, needs=(SHARED, PROCESSES, DIES_BY_TTL), timed=True)
async def a_killed_reader_or_writer_frees_after_its_ttl(env: Env) -> None:
    """After SIGKILL of a reader the writers have their turn within the TTL plus one second, of a
    writer the readers."""
    for died_shared in (True, False):
        await _after_a_kill(env, died_shared, env.death + 1.0)


@case(6, needs=(SHARED,), flavours=("asyncio",))
async def a_reader_cancelled_at_every_await_leaves_nothing(env: Env) -> None:
    """A reader's acquire that is cancelled after 0, 1, 2 … steps of the loop leaves no claim."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    free, taken = env.name(), env.name()
    blocker = await _held(env, b, taken, False)
    await env((await _held(env, a, free, True)).release())
    base = await env.footprint()
    for name in (free, taken):
        for steps in range(40):
            task = asyncio.ensure_future(a.lock(name, shared=True).acquire(timeout=10))
            for _ in range(steps):
                await asyncio.sleep(0 if steps < 30 else 0.001)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await env((await task).release())
    await env.until_footprint(lambda count: count == base, 10, "the backend to be clean")
    await env(blocker.release())
    for name in (free, taken):
        await env((await _held(env, c, name, False, 5)).release())
