"""A worker process: one contestant, commands on standard input, one JSON line for each.

    python -m benchmarks.worker redis "redis-py Lock" redis://127.0.0.1:1234 {}

All times are nanoseconds on CLOCK_MONOTONIC, which all processes share.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

from .contestants import AsyncContestant, Contestant, Lock, find
from .groupdesk import GroupDesk

QUIET_SECONDS = 0.3
QUIET_LIMIT_SECONDS = 20.0


class Desk(GroupDesk):
    """The commands that every contestant understands."""

    def __init__(self, contestant: Contestant) -> None:
        super().__init__()
        self.contestant = contestant
        self._locks: dict[str, Lock] = {}
        self._cycles: dict[str, Callable[[], object]] = {}

    def _lock(self, name: str) -> Lock:
        if name not in self._locks:
            self._locks[name] = self.contestant.lock(name)
        return self._locks[name]

    def cycles(self, name: str, count: int) -> dict[str, float]:
        """Acquire and release so often; how long one took, and how much of that computing."""
        if name not in self._cycles:
            self._cycles[name] = self.contestant.cycle(name)
        once = self._cycles[name]
        gc.collect()
        cpu, began = time.process_time_ns(), time.perf_counter_ns()
        for _ in repeat(None, count):
            once()
        ended, cpu = time.perf_counter_ns(), time.process_time_ns() - cpu
        return {"ns": (ended - began) / count, "cpu_ns": cpu / count}

    def acquire(self, name: str) -> dict[str, int]:
        """Acquire, waiting if need be; when it was granted."""
        self._lock(name).acquire()
        return {"at": time.monotonic_ns()}

    def release(self, name: str) -> dict[str, int]:
        """Release; when that began."""
        began = time.monotonic_ns()
        self._lock(name).release()
        return {"at": began}

    def storm(self, name: str, threads: int, seconds: float) -> dict[str, Any]:
        """Let threads contend for a time; how many turns they had and how long each waited."""
        waits: list[list[int]] = [[] for _ in range(threads)]
        start, failures = threading.Barrier(threads + 1), list[str]()

        def contend(mine: list[int]) -> None:
            lock = self.contestant.lock(name)
            start.wait()
            until = time.perf_counter() + seconds
            try:
                while time.perf_counter() < until:
                    asked = time.perf_counter_ns()
                    lock.acquire()
                    mine.append(time.perf_counter_ns() - asked)
                    lock.release()
            except Exception as error:  # noqa: BLE001 - part of the result
                failures.append(repr(error))

        crew = [threading.Thread(target=contend, args=(mine,)) for mine in waits]
        for thread in crew:
            thread.start()
        start.wait()
        began = time.perf_counter()
        for thread in crew:
            thread.join()
        spent = time.perf_counter() - began
        turns = [len(mine) for mine in waits]
        return {
            "seconds": spent,
            "turns": turns,
            "waits": sorted(each for mine in waits for each in mine)[:: max(1, sum(turns) // 5000)],
            "failures": failures[:3],
        }

    def chain(self, name: str, waiters: int, own: bool, url: str) -> dict[str, float]:
        """Time for a queue of waiters to have the lock one after another.

        With `own`, each waiter has a coordinator of its own, so that all of them wait at
        the backend; otherwise they share one.
        """
        make = type(self.contestant)
        others = [make(url) if own else self.contestant for _ in range(waiters)]
        first = self.contestant.lock(name)
        first.acquire()
        ready = threading.Barrier(waiters + 1)
        failures: list[str] = []

        def wait(contestant: Contestant) -> None:
            lock = contestant.lock(name)
            ready.wait()
            try:
                lock.acquire()
                lock.release()
            except Exception as error:  # noqa: BLE001 - part of the result
                failures.append(repr(error))

        crew = [threading.Thread(target=wait, args=(each,)) for each in others]
        for thread in crew:
            thread.start()
        ready.wait()
        _until_quiet()
        began = time.perf_counter_ns()
        first.release()
        for thread in crew:
            thread.join()
        spent = time.perf_counter_ns() - began
        if own:
            for each in others:
                each.close()
        if failures:
            raise RuntimeError(f"{len(failures)} waiters failed: {failures[0]}")
        return {"ns": spent / waiters}

    def many(self, count: int) -> dict[str, Any]:
        """Hold so many names at a time: time and memory for each."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        locks = [self.contestant.lock(f"many-{number}") for number in range(count)]
        gc.collect()
        memory = _resident()
        taken, failure = 0, ""
        began = time.perf_counter_ns()
        try:
            for lock in locks:
                lock.acquire()
                taken += 1
        except Exception as error:  # noqa: BLE001 - part of the result
            failure = repr(error)
        acquired = time.perf_counter_ns()
        grown = _resident() - memory
        middle = time.perf_counter_ns()
        for lock in locks[:taken]:
            lock.release()
        released = time.perf_counter_ns()
        each = max(1, taken)
        return {
            "taken": taken,
            "failure": failure,
            "acquire_ns": (acquired - began) / each,
            "release_ns": (released - middle) / each,
            "bytes": grown / each,
            "files": [soft, hard],
        }

    def close(self) -> dict[str, Any]:
        """Disconnect."""
        self.end_groups()
        self.contestant.close()
        return {}


class AsyncDesk:
    """What an asyncio contestant understands: all but the contention of threads."""

    def __init__(self, contestant: AsyncContestant) -> None:
        self.contestant = contestant
        self._locks: dict[str, Any] = {}
        self._cycles: dict[str, Any] = {}

    def _lock(self, name: str) -> Any:
        if name not in self._locks:
            self._locks[name] = self.contestant.task_lock(name)
        return self._locks[name]

    async def cycles(self, name: str, count: int) -> dict[str, float]:
        if name not in self._cycles:
            self._cycles[name] = self.contestant.task_cycle(name)
        once = self._cycles[name]
        gc.collect()
        cpu, began = time.process_time_ns(), time.perf_counter_ns()
        for _ in repeat(None, count):
            await once()
        ended, cpu = time.perf_counter_ns(), time.process_time_ns() - cpu
        return {"ns": (ended - began) / count, "cpu_ns": cpu / count}

    async def acquire(self, name: str) -> dict[str, int]:
        await self._lock(name).acquire()
        return {"at": time.monotonic_ns()}

    async def release(self, name: str) -> dict[str, int]:
        began = time.monotonic_ns()
        await self._lock(name).release()
        return {"at": began}

    async def close(self) -> dict[str, Any]:
        await self.contestant.stop()
        return {}


def _until_quiet() -> None:
    """Wait until this process hardly computes: then every waiter waits."""
    deadline = time.monotonic() + QUIET_LIMIT_SECONDS
    before = time.process_time()
    while time.monotonic() < deadline:
        time.sleep(QUIET_SECONDS)
        before, spent = time.process_time(), time.process_time() - before
        if spent < QUIET_SECONDS / 20:
            return


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def percentile(values: list[int], share: float) -> float:
    """The value below which that share of them lies."""
    if len(values) < 2:
        return float(values[0]) if values else 0.0
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]


async def _serve_tasks(contestant: AsyncContestant, lines: Any, answer: Any) -> None:
    # The lines are read on a thread, so that background tasks go on between commands.
    loop = asyncio.get_running_loop()
    await contestant.start()
    desk = AsyncDesk(contestant)
    answer({"pid": os.getpid()})
    while line := await loop.run_in_executor(None, lines.readline):
        request = json.loads(line)
        try:
            answer(await getattr(desk, request.pop("do"))(**request))
        except Exception as error:  # noqa: BLE001 - the parent decides
            answer({"error": repr(error)})


def _serve(contestant: Contestant, lines: Any, answer: Any) -> None:
    desk = Desk(contestant)
    answer({"pid": os.getpid()})
    for line in lines:
        request = json.loads(line)
        try:
            answer(getattr(desk, request.pop("do"))(**request))
        except Exception as error:  # noqa: BLE001 - the parent decides
            answer({"error": repr(error)})


def main() -> None:
    """Serve until standard input ends."""
    driver, name, url, options = sys.argv[1:5]
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(reply: object) -> None:
        out.write(json.dumps(reply) + "\n")

    try:
        contestant = find(driver, name).make(url, json.loads(options))
        if isinstance(contestant, AsyncContestant):
            asyncio.run(_serve_tasks(contestant, sys.stdin, answer))
        else:
            _serve(contestant, sys.stdin, answer)
    except Exception as error:  # noqa: BLE001 - the parent decides
        answer({"error": repr(error), "missing": isinstance(error, ImportError)})
    out.flush()
    sys.stderr.flush()
    os._exit(0)  # some peers leave threads behind that would keep it


if __name__ == "__main__":
    main()
