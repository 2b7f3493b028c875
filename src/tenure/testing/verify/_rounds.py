"""One cell of one strategy: its cases, probes, experiments and measurements, by workers."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from ...policy.characteristics import Characteristic
from ...policy.evidence import Check, Judgement, Test
from ._coverage import Coverage
from ._crew import Source, Worker, WorkerLost, WorkFailed
from ._sweep import PREFIX
from ._tasks import NOT_RUN
from .events import Hear, Judged, Tried
from .suite import Planned

T = TypeVar("T")
R = TypeVar("R")

CASE_SECONDS_MAX = 180.0
EXPERIMENT_SECONDS_MAX = 900.0
MEASURE_SECONDS_MAX = 180.0
SWEEP_SECONDS_MAX = 600.0
DOWN_MAX = 3
"""So often in a row a backend may fail to start; then it is given up."""


class Rounds:
    """The rounds of work on one backend. Each worker has a server of its own.

    jobs: how many workers there are at a time.
    """

    def __init__(self, source: Source, jobs: int, coverage: Coverage, seed: int) -> None:
        self.source = source
        self.seed = seed
        self._jobs = 1 if source.url else jobs
        self._coverage = coverage
        self._run = uuid.uuid4().hex[:8]
        self._mark = f"{PREFIX}{self._run}"
        self._drawn = 0
        self._used = set[str]()
        """All namespaces that were connected to."""
        self._lock = threading.Lock()
        self._down = 0

    def namespace(self) -> str:
        """A namespace that nobody else uses."""
        with self._lock:
            self._drawn += 1
            name = f"{self._mark}-{self._drawn}"
            self._used.add(name)
            return name

    def cases(self, plan: Sequence[Planned], hear: Hear) -> list[Test]:
        """Run the cases; those that cannot be run are failed, and say so."""
        ended = 0

        def one(worker: Worker, planned: Planned) -> Test:
            nonlocal ended
            outcome, seconds, detail = self._case(worker, planned)
            test = Test(*planned, outcome, seconds, detail)
            with self._lock:
                ended += 1
                hear(Tried(ended, len(plan), test, not detail.startswith(NOT_RUN)))
            return test

        return self._shared(plan, one, measured=True)

    def _case(self, worker: Worker, planned: Planned) -> tuple[Any, float, str]:
        began = time.monotonic()
        if self._down >= DOWN_MAX:
            return "failed", 0.0, f"{NOT_RUN}no backend"
        try:
            worker.up()
        except WorkFailed as error:
            self._down += 1
            return "failed", 0.0, f"{NOT_RUN}no backend: {error}"
        self._down = 0
        try:
            arguments = planned.case, planned.flavour, self.namespace()
            outcome, seconds, detail = worker.do(CASE_SECONDS_MAX, "case", *arguments)
        except (WorkFailed, WorkerLost) as error:
            return "failed", round(time.monotonic() - began, 3), str(error)
        if outcome != "passed" and not detail.startswith(NOT_RUN):
            worker.close()  # whatever state it has left its backend in is nobody else's
        return outcome, seconds, detail

    def probes(self, profiles: Collection[str]) -> Check:
        """E6: whether every one of the unsupported profiles is refused, on both runtimes."""
        wrong = []

        def one(worker: Worker, plan: tuple[str, str]) -> str:
            try:
                return str(worker.do(CASE_SECONDS_MAX, "probe", *plan, self.namespace()))
            except (WorkFailed, WorkerLost) as error:
                return str(error)

        plan = [(each, flavour) for each in profiles for flavour in ("thread", "asyncio")]
        for (profile, flavour), said in zip(plan, self._shared(plan, one, True), strict=True):
            if said:
                wrong.append(f"{profile} ({flavour}) is said to be unsupported, and {said}")
        done = f"{', '.join(profiles)}: refused" if profiles else "nothing is unsupported"
        return Check(not wrong, "; ".join(wrong) or done)

    def experiments(
        self, chosen: Sequence[Characteristic], claims: Collection[Characteristic], hear: Hear
    ) -> list[Judgement]:
        """Run the experiments, whatever is claimed."""

        def one(worker: Worker, characteristic: Characteristic) -> Judgement:
            began = time.monotonic()
            arguments = str(characteristic), self.namespace(), self.seed
            try:
                judgement: Judgement = worker.do(EXPERIMENT_SECONDS_MAX, "judge", *arguments)
            except (WorkFailed, WorkerLost) as error:
                seconds = round(time.monotonic() - began, 2)
                judgement = _undecided(characteristic, self.seed, seconds, str(error))
            if judgement.verdict != "corroborated":
                worker.close()  # cut short, it may have left its faults behind
            with self._lock:
                hear(Judged(judgement, characteristic in claims))
            return judgement

        return self._shared(chosen, one, measured=True)

    def benchmark(self, contenders: Collection[int]) -> Mapping[str, float]:
        """The small benchmark. What failed is not there, which counts as unmet."""

        def one(worker: Worker, count: int) -> Mapping[str, float]:
            try:
                found: Mapping[str, float] = worker.do(
                    MEASURE_SECONDS_MAX, "measure", count, self.namespace()
                )
            except (WorkFailed, WorkerLost):
                return {}
            return found

        found: dict[str, float] = {}
        for each in self._shared(list(contenders), one, jobs=1):
            found |= each
        return found

    def with_url(self, work: Callable[[str], R]) -> R:
        """Do something with the URL of a backend that is up; raises `WorkFailed` if none is."""
        worker = Worker(self.source)
        try:
            return work(worker.up().url)
        finally:
            worker.close()

    def sweep(self) -> list[str]:
        """Remove what is left of the runs on somebody's own server; returns what is not removed."""
        worker = Worker(self.source)
        try:
            arguments = sorted(self._used), self._mark
            left: list[str] = worker.do(SWEEP_SECONDS_MAX, "sweep", *arguments)
        except (WorkFailed, WorkerLost) as error:
            return [f"{self._mark}-…: {error}"]
        finally:
            worker.close()
        return left

    def _shared(
        self,
        tasks: Sequence[T],
        work: Callable[[Worker, T], R],
        measured: bool = False,
        jobs: int | None = None,
    ) -> list[R]:
        """Have all tasks done, in any order, by as many workers as there are jobs."""
        todo = list(enumerate(tasks))[::-1]
        done: dict[int, R] = {}
        broken: list[BaseException] = []
        workers: list[Worker] = []

        def labour(worker: Worker) -> None:
            try:
                while not broken:
                    with self._lock:
                        if not todo:
                            return
                        number, task = todo.pop()
                    done[number] = work(worker, task)
            except BaseException as error:
                broken.append(error)
            finally:
                with self._lock:
                    self._used |= worker.namespaces
                worker.close() if not broken else worker.end()

        for _ in range(min(jobs or self._jobs, len(tasks))):
            data = self._coverage.file() if measured else ""
            workers.append(Worker(self.source, data, self._coverage.sources))
        threads = [threading.Thread(target=labour, args=(each,), daemon=True) for each in workers]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException as error:  # an interrupt, most likely
            broken.append(error)
            for worker in workers:
                worker.end()
        if broken:
            raise broken[0]
        return [done[number] for number in range(len(tasks))]


def _undecided(characteristic: Characteristic, seed: int, seconds: float, reason: str) -> Judgement:
    from ..experiments import EXPERIMENTS

    name = EXPERIMENTS[characteristic].name
    return Judgement(characteristic, "untestable", name, {}, seed, 0, seconds, reason=reason)
