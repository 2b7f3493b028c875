"""The two real runtimes keep the same promises: signals, timers, jobs, unfinished business."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import tenure
import tenure.aio
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.thread import ThreadRuntime, drive

Scenario = Callable[[Any], Awaitable[None]]


def on_threads(scenario: Scenario) -> None:
    async def main() -> None:
        await scenario(ThreadRuntime())

    drive(main())


def on_a_loop(scenario: Scenario) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await scenario(AsyncioRuntime())

    asyncio.run(main())


both = pytest.mark.parametrize("play", [on_threads, on_a_loop])


@both
def test_signals(play: Callable[[Scenario], None]) -> None:
    """A signal that is set ends a wait at once, one that is not ends it at its time, in order."""

    async def scenario(runtime: Any) -> None:
        signal = runtime.signal()
        began = runtime.now()
        assert await signal.wait(began + 0.02) is False
        assert runtime.now() >= began + 0.02
        assert await signal.wait(began - 1) is False
        signal.set()
        assert signal.is_set()
        assert await signal.wait(None) is True
        signal.clear()
        assert await signal.wait(runtime.now()) is False
        threading.Thread(target=signal.set).start()
        assert await signal.wait(runtime.now() + 10) is True

    play(scenario)


@both
def test_timers(play: Callable[[Scenario], None]) -> None:
    """Timers fire in the order of their times and not before; a cancelled one never does."""

    async def scenario(runtime: Any) -> None:
        fired: list[tuple[str, float]] = []
        done = runtime.signal()
        began = runtime.now()

        def fire(name: str) -> Callable[[], None]:
            return lambda: fired.append((name, runtime.now()))

        runtime.call_at(began + 0.06, done.set)
        runtime.call_at(began + 0.04, fire("late"))
        runtime.call_at(began + 0.03, fire("never")).cancel()
        runtime.call_at(began + 0.02, fire("early"))
        runtime.call_at(began - 1, fire("overdue"))
        assert await done.wait(began + 10)
        assert [name for name, _ in fired] == ["overdue", "early", "late"]
        # A loop's timers are as exact as its clock's resolution.
        assert fired[1][1] >= began + 0.02 - 0.002
        assert fired[2][1] >= began + 0.04 - 0.002

    play(scenario)


@both
def test_a_job_that_fails_is_heard(
    play: Callable[[Scenario], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The error of a background job is logged with its name, and the job counts as ended."""

    async def broken() -> None:
        raise LookupError("my own mistake")

    async def scenario(runtime: Any) -> None:
        job = runtime.spawn(broken, "example")
        assert await job.join(runtime.now() + 10)

    play(scenario)
    assert "'example' failed" in caplog.text
    assert "my own mistake" in caplog.text


@both
def test_joining_is_bounded(play: Callable[[Scenario], None]) -> None:
    """`join` says that a job goes on when the time has come, and a job cannot wait for itself."""

    async def scenario(runtime: Any) -> None:
        stop, joined = runtime.signal(), []
        jobs: list[Any] = []

        async def work() -> None:
            await stop.wait(runtime.now() + 10)
            joined.append(await jobs[0].join(runtime.now() + 10))

        jobs.append(runtime.spawn(work, "example"))
        assert not await jobs[0].join(runtime.now() + 0.01)
        stop.set()
        assert await jobs[0].join(runtime.now() + 10)
        assert joined == [False]

    play(scenario)


@both
def test_blocking_and_finish_return_what_the_work_returns(
    play: Callable[[Scenario], None],
) -> None:
    """Both hand on results and errors as they are."""

    async def work(result: int) -> int:
        if result < 0:
            raise LookupError(result)
        return result

    async def scenario(runtime: Any) -> None:
        assert await runtime.blocking(lambda: 5) == 5
        assert await runtime.finish(work(6)) == 6
        with pytest.raises(ZeroDivisionError):
            await runtime.blocking(lambda: 1 // 0)
        with pytest.raises(LookupError):
            await runtime.finish(work(-1))
        async with runtime.mutex():
            pass
        names = {runtime.unique() for _ in range(1000)}
        assert len(names) == 1000
        assert all(len(name) == 16 and name.isalnum() and name.isascii() for name in names)

    play(scenario)


def test_finish_outlives_a_cancellation() -> None:
    """Work under `finish` goes on to its end however often the caller is cancelled meanwhile."""

    async def main() -> None:
        runtime = AsyncioRuntime()
        go_on, ended = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            await go_on.wait()
            ended.set()

        task = asyncio.ensure_future(runtime.finish(work()))
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(main())


def test_what_suspends_on_a_thread_is_a_bug() -> None:
    """A coroutine that suspends on the thread runtime raises at once, and is closed."""
    closed = []

    async def suspends() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(True)

    with pytest.raises(RuntimeError, match="a leaf must block instead"):
        drive(suspends())
    assert closed == [True]


def test_a_broken_timer_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """A timer's call that raises is logged, and those behind it still come."""
    runtime = ThreadRuntime()
    done = runtime.signal()
    runtime.call_at(runtime.now(), lambda: divmod(1, 0) and None)
    runtime.call_at(runtime.now() + 0.01, done.set)
    assert drive(done.wait(runtime.now() + 10))
    assert "a timer's call failed" in caplog.text


def test_timers_work_in_a_forked_child() -> None:
    """The timer thread does not survive a fork, so the child gets one of its own."""
    runtime = ThreadRuntime()
    runtime.call_at(runtime.now() + 60, lambda: None)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            done = runtime.signal()
            runtime.call_at(runtime.now() + 0.01, done.set)
            status = 0 if drive(done.wait(runtime.now() + 10)) else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize(("url", "ttl"), [("memory://", 1.0), ("zake://", 2.0)])
def test_a_busy_task_lets_the_loop_renew(url: str, ttl: float) -> None:
    """A task that asks on and on, of a backend that answers at once, keeps what it holds."""

    async def main() -> None:
        async with await tenure.aio.connect(url, ttl=ttl, namespace="busy") as coordinator:
            held = await coordinator.lock("held").acquire()
            lock, group = coordinator.lock("other"), coordinator.group("all")
            await group.create()
            for ask in (lambda: _cycle(lock), group.exists):
                until = tenure.now() + ttl * 1.2
                while tenure.now() < until:
                    await ask()
                assert held.held()

    asyncio.run(main())


async def _cycle(lock: tenure.aio.Lock) -> None:
    lease = await lock.acquire()
    await lease.release()
