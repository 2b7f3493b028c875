"""Cases with other processes: killed, paused, interrupted, forked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import tenure

from ._base import (
    EXPIRES,
    PROCESSES,
    SEES_DEATH,
    THREADS_ONLY,
    Env,
    Need,
    case,
)

DIES_BY_TTL = Need(lambda traits: not traits.frees_on_death, "frees at once")
AT_ONCE_SECONDS_MAX = 1.0


@case(needs=(THREADS_ONLY,))
async def other_processes_are_not_excluded(env: Env) -> None:
    """A driver for one process does not exclude another, as its traits say."""
    a = await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    assert (await env.ready_actor()).do("try", name=name)["token"] is not None
    await env(lease.release())


@case(9, needs=(PROCESSES,))
async def eight_processes_on_one_counter(env: Env) -> None:
    """Eight processes count to the right number in a file, and their tokens never repeat."""
    name = env.name()
    with tempfile.NamedTemporaryFile("w", suffix=".count") as file:
        file.write("0")
        file.flush()
        actors = [env.actor() for _ in range(8)]
        for actor in actors:
            actor.ready()
        for actor in actors:
            actor.send(do="count", name=name, path=file.name, times=20)
        tokens: list[int] = []
        for actor in actors:
            answer = actor.answer(60)
            assert "tokens" in answer, answer
            tokens += answer["tokens"]
        with open(file.name, encoding="ascii") as result:
            assert int(result.read()) == 160
    assert len(set(tokens)) == 160


async def _take_over(env: Env, name: str, seconds: float) -> Any:
    """Acquire what a dead or paused process holds, and check that it takes no longer."""
    b = await env.connect()
    began = tenure.now()
    lease = await env(b.lock(name).acquire(timeout=seconds + 5))
    took = tenure.now() - began
    assert took <= seconds, f"took over after {took:.2f} s, not within {seconds:g} s"
    return lease


@case(9, needs=(PROCESSES, SEES_DEATH), timed=True)
async def a_killed_holder_frees_at_once(env: Env) -> None:
    """After SIGKILL of the holder the next one has the lock at once, with a greater token."""
    actor = await env.ready_actor()
    name = env.name()
    old = actor.do("acquire", name=name)["token"]
    b = await env.connect()
    waiter = env.spawn(lambda: env(b.lock(name).acquire(timeout=20)))
    await env.pause(0.2)
    actor.kill()
    killed = tenure.now()
    lease = await waiter.result()
    assert tenure.now() - killed <= AT_ONCE_SECONDS_MAX
    assert lease.token > old
    await env(lease.release())


@case(9, needs=(PROCESSES, DIES_BY_TTL), timed=True)
async def a_killed_holder_frees_after_its_ttl(env: Env) -> None:
    """After SIGKILL of the holder the next one has the lock within the TTL plus one second."""
    actor = await env.ready_actor()
    name = env.name()
    old = actor.do("acquire", name=name)["token"]
    actor.kill()
    lease = await _take_over(env, name, env.death + 1.0)
    assert lease.token > old
    await env(lease.release())


@case(6, needs=(PROCESSES,), timed=True)
async def a_killed_waiter_holds_nobody_up(env: Env) -> None:
    """A waiter that was killed in the queue does not keep those behind it from the lock."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    base = await env.footprint()
    actor = await env.ready_actor()
    actor.send(do="acquire", name=name, timeout=30)
    if env.traits.fair:
        await env.until_queued(base, 10, "the waiter to queue")
    waiter = env.spawn(lambda: env(b.lock(name).acquire(timeout=30)))
    await env.pause(0.2)
    actor.kill()
    killed = tenure.now()
    await env(lease.release())
    await env((await waiter.result()).release())
    limit = AT_ONCE_SECONDS_MAX if env.traits.frees_on_death else env.death + 1.0
    assert tenure.now() - killed <= limit + 0.5


@case(3, 4, 9, needs=(PROCESSES, EXPIRES, DIES_BY_TTL), timed=True)
async def a_paused_holder_is_fenced_and_knows(env: Env) -> None:
    """Stopped beyond its TTL, a holder is replaced; its first question on waking says that it lost.

    A stopped process can be told nothing, so "before another is granted" is out of
    reach: what protects the resource meanwhile is the token, which is greater.
    """
    actor = await env.ready_actor()
    name = env.name()
    old = actor.do("acquire", name=name)["token"]
    actor.stop()
    lease = await _take_over(env, name, env.death + 1.5)
    assert lease.token > old, "the paused holder could not be fenced off"
    actor.send(do="state", name=name)
    actor.resume()
    state = actor.answer()
    assert not state["held"], state
    assert state["reason"], state
    assert actor.do("release", name=name)["error"] == "LeaseLost"
    lease.check()
    c = await env.connect()
    assert await env(c.lock(name).try_acquire()) is None, "the paused one freed another's lock"
    await env(lease.release())
    assert actor.do("acquire", name=name, timeout=10)["token"] > lease.token


@case(3, 4, needs=(PROCESSES, SEES_DEATH), timed=True)
async def a_paused_holder_keeps_its_lock(env: Env) -> None:
    """Where the backend needs no renewal, nobody else gets the lock while the holder is stopped."""
    actor = await env.ready_actor()
    name = env.name()
    token = actor.do("acquire", name=name)["token"]
    actor.stop()
    b = await env.connect()
    try:
        await env(b.lock(name).acquire(timeout=2 * env.ttl))
        raise AssertionError("the lock of a paused holder was granted")
    except tenure.AcquireTimeout:
        pass
    actor.send(do="state", name=name)
    actor.resume()
    state = actor.answer()
    if env.traits.expires:
        # It cannot know without asking whether the backend kept the lock, so it lets go.
        assert not state["held"], state
    else:
        assert state["held"], state
        actor.do("release", name=name)
    lease = await env(b.lock(name).acquire(timeout=10))
    assert lease.token > token
    await env(lease.release())


@case(6, needs=(PROCESSES,))
async def an_interrupted_acquire_leaves_nothing(env: Env) -> None:
    """SIGINT while a process waits for the lock ends the wait and leaves no place in the queue."""
    if env.flavour == "asyncio":
        return await _interrupted_asyncio(env)
    a, b = await env.connect(), await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    base = await env.footprint()
    actor = await env.ready_actor()
    actor.send(do="acquire", name=name, timeout=30)
    if env.traits.fair:
        await env.until_queued(base, 10, "the waiter to queue")
    else:
        await env.pause(0.3)
    actor.interrupt()
    assert actor.answer()["error"] == "KeyboardInterrupt"
    await env.until_footprint(lambda count: count == base, 5, "the queue to be as it was")
    await env(lease.release())
    await env((await env(b.lock(name).try_acquire())).release())
    assert actor.do("acquire", name=name, timeout=10)["token"] > lease.token
    return None


async def _interrupted_asyncio(env: Env) -> None:
    """asyncio turns SIGINT into the end of the loop: the process goes, and all it had with it."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    actor = await env.ready_actor()
    actor.send(do="acquire", name=name, timeout=30)
    await env.pause(0.3)
    actor.interrupt()
    await env(lease.release())
    limit = 5.0 if env.traits.frees_on_death else env.death + 2.0
    await env((await env(b.lock(name).acquire(timeout=limit))).release())


def _in_child(judge: Callable[[], str]) -> str:
    """Fork, have the child judge, wait for its end, and return what it said."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        verdict = "crashed"
        try:
            verdict = judge()
        except BaseException as error:
            verdict = repr(error)  # whatever it is, the parent fails with it
        finally:
            os.write(writable, verdict.encode())
            os._exit(0)
    os.close(writable)
    try:
        return os.read(readable, 4096).decode()
    finally:
        os.close(readable)
        os.waitpid(child, 0)


@case(10, needs=(PROCESSES,), timed=True)
async def a_forked_child_holds_nothing(env: Env) -> None:
    """After a fork the child neither holds nor releases, and its end leaves the parent's lease
    alone."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    lease = await env(a.lock(name).acquire())
    verdict = _in_child(lambda: _ask_as_child(a, lease, name))
    assert verdict == "nothing", verdict
    lease.check()
    assert await env(b.lock(name).try_acquire()) is None, "the child freed the parent's lock"
    await env.pause(env.ttl / 2)
    lease.check()
    await env(lease.release())
    await env((await env(b.lock(name).acquire(timeout=5))).release())


def _ask_as_child(coordinator: Any, lease: Any, name: str) -> str:
    if lease.held():
        return "the child thinks that it holds the lease"
    for attempt in (lease.release, coordinator.lock(name).try_acquire):
        try:
            done = attempt()
            if hasattr(done, "send"):
                done.send(None)  # a coroutine: refused before it awaits anything
            return f"{attempt} did something in the child"
        except (tenure.LeaseLost, tenure.ForkedError):
            pass
    return "nothing"


@case(10, needs=(PROCESSES,), flavours=("thread",), timed=True)
async def a_forked_child_connects_for_itself(env: Env) -> None:
    """The child of a fork can connect anew, contends like anyone, and frees what it has by
    exiting."""
    a = await env.connect()
    name, other = env.name(), env.name()
    lease = await env(a.lock(name).acquire())
    options: dict[str, Any] = {"namespace": env.namespace, "ttl": env.ttl}

    def contend() -> str:
        with tenure.connect(env.backend.url, **options) as mine:
            taken = mine.lock(name).try_acquire() is None
            got = mine.lock(other).try_acquire()
            return "good" if taken and got is not None else f"{taken} {got}"

    verdict = _in_child(contend)
    assert verdict == "good", verdict
    lease.check()
    await env((await env(a.lock(other).acquire(timeout=5))).release())
    await env(lease.release())
