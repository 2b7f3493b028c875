"""The small benchmark: how long acquires take, with few who want the same lock and with many."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Mapping

import tenure

from ..backends import Backend

TIMES = {1: 200, 16: 12}
"""How often each contender acquires; others three times."""
TIMES_ELSE = 3
ACQUIRE_SECONDS_MAX = 60.0
TTL_SECONDS = 4.0


def measure(backend: Backend, contenders: int, namespace: str) -> Mapping[str, float]:
    """Acquire and release one lock, so many threads at a time, each on its own coordinator.

    p99_seconds_N: within how many seconds 99 of 100 acquires were granted.
    acquires_per_second_N: how many there were in a second, all contenders together.
    """
    ttl = max(TTL_SECONDS, backend.traits().min_ttl)
    times = TIMES.get(contenders, TIMES_ELSE)
    took: list[float] = []
    failed: list[BaseException] = []
    with contextlib.ExitStack() as stack:
        locks = []
        for _ in range(contenders):
            coordinator = tenure.connect(backend.url, namespace=namespace, ttl=ttl)
            stack.callback(coordinator.close)
            locks.append(coordinator.lock("benchmark"))
        locks[0].acquire(timeout=ACQUIRE_SECONDS_MAX).release()  # tables, scripts, connections
        gate = threading.Barrier(contenders + 1)

        def contend(lock: tenure.Lock) -> None:
            try:
                gate.wait()
                for _ in range(times):
                    asked = tenure.now()
                    lease = lock.acquire(timeout=ACQUIRE_SECONDS_MAX)
                    took.append(tenure.now() - asked)
                    lease.release()
            except BaseException as error:
                failed.append(error)

        threads = [_started(contend, lock) for lock in locks]
        gate.wait()
        began = tenure.now()
        for thread in threads:
            thread.join()
        seconds = tenure.now() - began
    if failed:
        raise failed[0]
    return {
        f"p99_seconds_{contenders}": round(_percentile(took, 0.99), 6),
        f"acquires_per_second_{contenders}": round(len(took) / seconds, 1),
    }


def _started(work: Callable[[tenure.Lock], None], lock: tenure.Lock) -> threading.Thread:
    thread = threading.Thread(target=work, args=(lock,), daemon=True)
    thread.start()
    return thread


def _percentile(values: list[float], share: float) -> float:
    """The least value that so many of the values do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
