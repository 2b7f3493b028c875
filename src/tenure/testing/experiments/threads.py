"""DISTRIBUTED_ACROSS_THREADS: do threads of one process exclude each other?"""

from __future__ import annotations

import contextlib
import random
import threading
import time

import tenure

from ...policy.characteristics import Characteristic
from ._base import Found, Target, Untestable, experiment
from ._party_cast import Cast

THREADS = 32
TIMES = 3
COORDINATORS = 8
ACQUIRE_SECONDS_MAX = 60.0


@experiment(Characteristic.DISTRIBUTED_ACROSS_THREADS)
def threads_on_one_counter(target: Target, found: Found) -> None:
    """32 threads count with one number that nothing but the lock guards: all on one
    coordinator, then shared out among 8. Refuted by two inside at once, and by a wrong sum."""
    found.parameters |= {"threads": THREADS, "times": TIMES, "coordinators": [1, COORDINATORS]}
    with Cast(target, found, "threads") as cast:
        for number in (1, COORDINATORS):
            coordinators = [cast.connect() for _ in range(number)]
            room = _Room(cast.name(), cast.chance.randrange(2**32))
            crowd = [
                threading.Thread(target=room.visit, args=(coordinators[i % number],), daemon=True)
                for i in range(THREADS)
            ]
            for thread in crowd:
                thread.start()
            for thread in crowd:
                thread.join()
            found.trials += room.visits
            if room.seen:
                found.counterexample = f"{number} coordinators: {room.seen}"
                return
            if room.problem:
                raise Untestable(f"{number} coordinators: {room.problem}")
            if room.visits != THREADS * TIMES:
                raise Untestable(
                    f"{number} coordinators: {room.visits} of {THREADS * TIMES} visits"
                )
            if not room.lost and room.count != room.visits:
                found.counterexample = f"{room.visits} visits were counted as {room.count}"
                return


class _Room:
    """A place for one at a time, that sees whether there are two."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.count = 0
        self.visits = 0
        self.lost = 0
        self.seen = ""
        self.problem = ""
        self._chance = random.Random(seed)
        self._inside: list[tenure.Lease] = []
        self._tally = threading.Lock()

    def visit(self, coordinator: tenure.Coordinator) -> None:
        """Enter so many times, or until something is seen."""
        lock = coordinator.lock(self.name)
        try:
            for _ in range(TIMES):
                if self.seen or self.problem:
                    return
                lease = lock.acquire(timeout=ACQUIRE_SECONDS_MAX)
                self._stay(lease)
                self._leave(lease)
        except BaseException as error:
            self.problem = f"{type(error).__name__}: {error}"

    def _stay(self, lease: tenure.Lease) -> None:
        self._inside.append(lease)
        count = self.count
        time.sleep(self._chance.random() * 0.001)
        inside = list(self._inside)
        if len(inside) > 1 and all(each.held() for each in inside):
            self.seen = f"inside at once: {', '.join(map(repr, inside))}"
        self.count = count + 1
        self._inside.remove(lease)

    def _leave(self, lease: tenure.Lease) -> None:
        # Lost by a machine that is too slow to renew it, for instance: then two may have been in.
        kept = lease.held()
        with contextlib.suppress(tenure.LeaseLost):
            lease.release()
        with self._tally:
            self.visits += 1
            self.lost += not kept
