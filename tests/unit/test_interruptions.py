"""What is raised where nobody expects it: by callbacks, by Ctrl-C, by a close that is cut short."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tenure
import tenure.aio
from tenure._runtime.thread import ThreadRuntime
from tenure.errors import NotHeld, SessionLost

TTL = 0.6


def until(condition: Any, seconds: float = 5.0) -> None:
    """Wait for the condition."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


async def come(condition: Callable[[], object]) -> None:
    """The same in a task."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def cancelled() -> None:
    """Wait for something that was cancelled by somebody else."""
    sleep = asyncio.ensure_future(asyncio.sleep(9))
    sleep.cancel()
    await sleep


# -- callbacks ------------------------------------------------------------------------


def test_a_callback_that_exits_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """All leases of a lost session end, all are told, and the next session is renewed."""
    with tenure.connect("memory://callback-exits", ttl=TTL) as c:
        leases = [c.lock(name).acquire() for name in "ab"]
        told: list[object] = []

        def leave(lease: object) -> None:
            told.append(lease)
            assert all(each.state is tenure.State.LOST for each in leases)
            sys.exit(3)

        for lease in leases:
            lease.on_lost(leave)
        session: Any = c._session
        session.lose(session.alive, "the test says so")
        assert sorted(map(id, told)) == sorted(map(id, leases))
        again = [c.lock(name).acquire(timeout=5) for name in "ab"]
        time.sleep(1.5 * TTL)
        assert all(lease.held() for lease in again)
    assert "the on_lost callback of 'a' failed" in caplog.text


def test_a_callback_in_the_background_that_exits_ends_no_renewal() -> None:
    """It runs on the thread that renews, which goes on."""
    with tenure.connect("memory://background-exits", ttl=TTL) as c:
        lease = c.lock("a").acquire()
        lease.on_lost(lambda lease: sys.exit(3))
        session: Any = c._session
        renew, session.driver.renew = session.driver.renew, _gone
        until(lambda: not lease.held())
        session.driver.renew = renew
        again = c.lock("a").acquire(timeout=5)
        time.sleep(1.5 * TTL)
        assert again.held()


async def _gone(session: str) -> None:
    raise SessionLost("gone")


def test_claims_go_on_after_a_callback_that_was_cancelled() -> None:
    """What `on_gain` waits for is cancelled; the slots are dealt out again all the same."""

    async def main() -> None:
        url = "memory://claims-cancelled"
        async with tenure.aio.connect(url, ttl=1) as a, tenure.aio.connect(url, ttl=1) as b:
            slots = [f"s{number}" for number in range(6)]
            member = await a.group("g").join(create=True)
            async with member.claims(slots, on_gain=lambda slot, lease: cancelled()) as first:
                await come(lambda: len(first.held()) == len(slots))
                other = await b.group("g").join()
                async with other.claims(slots) as second:
                    await come(lambda: second.assigned and {*second.held()} == {*second.assigned})
                    assert first.held()

    asyncio.run(main())


def test_an_election_is_watched_after_a_callback_that_was_cancelled() -> None:
    """The next leader is told, too."""

    async def main() -> None:
        async with tenure.aio.connect("memory://election-cancelled") as c:
            seen: list[Any] = []

            async def changed(leader: Any) -> None:
                seen.append(None if leader is None else leader.value)
                await cancelled()

            election = c.election("e")
            await election.on_change(changed)
            await come(lambda: seen == [None])
            await election.campaign(value=1)
            await come(lambda: seen == [None, 1])

    asyncio.run(main())


def test_a_thread_that_cannot_be_had_is_had_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cleaner cannot be started once: the renewals go on, and it is started again."""
    spawn = ThreadRuntime.spawn
    refused: list[str] = []

    def once(self: ThreadRuntime, main: Any, name: str) -> Any:
        if name == "cleanup" and not refused:
            refused.append(name)
            raise RuntimeError("can't start new thread")
        return spawn(self, main, name)

    monkeypatch.setattr(ThreadRuntime, "spawn", once)
    with tenure.connect("memory://no-thread", ttl=TTL) as c:
        lease = c.lock("a").acquire()
        session: Any = c._session
        session.owe(session.alive, "roster", "claim")
        time.sleep(1.5 * TTL)
        assert refused
        assert lease.held()
        until(lambda: not session._debts)


# -- blocks that are left elsewhere -----------------------------------------------------


def test_a_block_is_left_by_another_thread() -> None:
    """As where a framework begins a generator on one thread of its pool, and ends it on another."""
    with tenure.connect("memory://left-elsewhere") as c:
        lock = c.lock("x")

        def dependency() -> Iterator[tenure.Lease]:
            with lock as lease:
                yield lease

        begun = dependency()
        thread = threading.Thread(target=lambda: next(begun))
        thread.start()
        thread.join()
        assert lock.try_acquire() is None
        assert next(begun, None) is None
        again = lock.try_acquire()
        assert again is not None
        again.release()
        with pytest.raises(NotHeld, match=r"with lock\.acquire"):
            lock.__exit__(None, None, None)


def test_a_block_is_left_by_another_task() -> None:
    """As where a fixture is set up in one task, and torn down in another."""

    async def main() -> None:
        async with tenure.aio.connect("memory://left-elsewhere-aio") as c:
            lock = c.lock("x")

            async def fixture() -> AsyncIterator[tenure.aio.Lease]:
                async with lock as lease:
                    yield lease

            begun = fixture()
            await asyncio.create_task(_begin(begun))
            assert await lock.try_acquire() is None
            await asyncio.create_task(_end(begun))
            again = await lock.try_acquire()
            assert again is not None
            await again.release()
            with pytest.raises(NotHeld, match=r"with lock\.acquire"):
                await lock.__aexit__(None, None, None)

    asyncio.run(main())


async def _begin(fixture: AsyncIterator[Any]) -> None:
    await anext(fixture)


async def _end(fixture: AsyncIterator[Any]) -> None:
    assert await anext(fixture, None) is None


def test_of_several_that_are_inside_none_is_guessed() -> None:
    """Whose permit would it be? Nobody's is given back."""
    with tenure.connect("memory://several-inside") as c:
        semaphore = c.semaphore("s", 3)
        threads = [threading.Thread(target=semaphore.__enter__) for _ in range(2)]
        for thread in threads:
            thread.start()
            thread.join()
        with pytest.raises(NotHeld, match="2 others have"):
            semaphore.__exit__(None, None, None)
        assert semaphore.try_acquire() is not None
        assert semaphore.try_acquire() is None


# -- closing ----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["memory", "file", "sqlite"])
def test_a_close_that_is_cancelled_is_done_all_the_same(scheme: str, tmp_path: Path) -> None:
    """Cancelled at any step: when that is raised, or after one more close, nothing is held."""
    url = {
        "memory": "memory://close-cancelled",
        "file": f"file://{tmp_path}",
        "sqlite": f"sqlite://{tmp_path}/locks.db",
    }[scheme]

    async def attempt(steps: int) -> bool:
        c = await tenure.aio.connect(url)
        lease = await c.lock("x").acquire(timeout=5)
        closing = asyncio.create_task(c.close())
        for _ in range(steps):
            await asyncio.sleep(0)
        early = closing.done()
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        await c.close()
        assert not lease.held()
        async with tenure.aio.connect(url) as other:
            assert await other.lock("x").try_acquire() is not None
        return early

    async def main() -> None:
        for steps in range(12):
            if await attempt(steps):
                break

    asyncio.run(main())


@pytest.mark.parametrize("verb", ["end", "close"])
def test_a_close_that_is_interrupted_is_done_by_the_next(verb: str, tmp_path: Path) -> None:
    """Ctrl-C in the middle; whoever closes again has it closed."""
    c = tenure.connect(f"file://{tmp_path}")
    lease = c.lock("x").acquire()
    driver: Any = c._session.driver
    proper = getattr(driver, verb)

    async def interrupted(*_: object) -> None:
        setattr(driver, verb, proper)
        raise KeyboardInterrupt

    setattr(driver, verb, interrupted)
    with pytest.raises(KeyboardInterrupt):
        c.close()
    c.close()
    assert not lease.held()
    with tenure.connect(f"file://{tmp_path}") as other:
        assert other.lock("x").try_acquire() is not None


def test_a_callback_may_close_while_it_is_being_closed() -> None:
    """It is closed already, as far as it is concerned."""
    c = tenure.connect("memory://closed-by-a-callback")
    lease = c.lock("x").acquire()
    lease.on_lost(lambda lease: c.close())
    session: Any = c._session
    session.driver.patience = 0.0  # no time is left to release it
    closing = threading.Thread(target=c.close, daemon=True)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()
    assert session.alive is None


# -- Ctrl-C ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_ctrl_c_leaves_no_name_taken(tmp_path: Path) -> None:
    """Wherever it comes in a block: the next acquire gets the lock."""
    chance = random.Random(1)
    interrupted = taken = 0

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with tenure.connect(f"file://{tmp_path}") as c:
        began = time.perf_counter()
        for number in range(50):
            with c.lock(f"warm {number}"):
                pass
        span = (time.perf_counter() - began) / 50
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            for number in range(800):
                lock = c.lock(f"name {number}")
                try:
                    signal.setitimer(signal.ITIMER_REAL, max(1e-6, chance.random() * span))
                    with lock:
                        pass
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
                    lease = lock.try_acquire()
                    if lease is None:
                        taken += 1
                    else:
                        lease.release()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert interrupted > 100
    # Between two instructions of Python's own there is always a moment that nobody can guard.
    assert taken <= interrupted / 40
