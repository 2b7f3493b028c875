"""Run the core under seeded schedules in virtual time, and judge what happens.

    python -m tenure.testing.simulator --schedules 10000 --seed 1
    python -m tenure.testing.simulator --seed 1 --first 4711 --schedules 1 --trace 60
    python -m tenure.testing.simulator --kind election
    python -m tenure.testing.simulator --mutant no-deadline-timer

The session, the leases, the local gate, the document rung and the recipes are the real
ones; runtime, network and backend are simulated. A schedule is drawn from the seed and
its number: which backend, how many nodes, how bad the network, what is asked for; who
crashes, pauses, is cut off, cancelled or closed, and when. The same two numbers give the
same schedule, event by event, in every process: `--digest` shows a hash of its trace.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, get_args

from ..errors import BackendError, LeaseLost
from ._sim_lease import Kind
from ._sim_schedule import Schedule
from ._sim_shares import GivenUp
from ._sim_world import Violation

__all__ = ["Failure", "Summary", "Violation", "run_many", "run_one"]


OUTAGES = ("tenure: cannot take slots of %r: %s", "tenure: %s: %s")
"""What is logged of a backend that is away, since there is nobody to raise it to."""


class Summary(NamedTuple):
    """What a number of schedules came to."""

    schedules: int
    first: int
    seed: int
    events: int
    granted: int
    lost: int
    refused: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.schedules} schedules (seed {self.seed}, from {self.first} on) in "
            f"{self.seconds:.1f} s: {self.events} events, {self.granted} leases granted, "
            f"{self.lost} lost, {self.refused} acquires without a lease; no rule broken"
        )


class Failure(Violation):
    """A schedule broke a rule. The message has the rule, the trace's end and a command."""

    def __init__(
        self,
        seed: int,
        number: int,
        rule: str,
        plan: object,
        tail: list[str],
        kind: Kind | None = None,
    ) -> None:
        self.seed = seed
        self.number = number
        self.rule = rule
        command = f"python -m tenure.testing.simulator --seed {seed} --first {number} --schedules 1"
        command += f" --kind {kind}" if kind else ""
        lines = "\n".join(tail)
        super().__init__(
            f"seed {seed}, schedule {number}: {rule}\n{plan}\n{lines}\nagain with: {command}"
        )


def run_one(seed: int, number: int, *, traced: bool = False, kind: Kind | None = None) -> Schedule:
    """Run one schedule; raise `Violation` if it breaks a rule."""
    schedule = Schedule(seed, number, traced=traced, kind=kind)
    with _errors_count(schedule):
        schedule.run()
    return schedule


def run_many(
    seed: int,
    schedules: int,
    *,
    first: int = 0,
    seconds: float | None = None,
    tail: int = 40,
    kind: Kind | None = None,
) -> Summary:
    """Run schedules one after another, as many as asked for or as the time allows.

    With a `kind`, their clients ask for nothing but that. Raises `Failure` at the first
    that breaks a rule.
    """
    began = time.monotonic()
    done = events = granted = lost = refused = 0
    for number in range(first, first + schedules):
        if seconds is not None and time.monotonic() - began >= seconds:
            break
        try:
            schedule = run_one(seed, number, kind=kind)
        except Violation as violation:
            raise explain(seed, number, str(violation), tail, kind) from None
        done += 1
        events += schedule.world.steps
        granted += schedule.judge.granted_count
        lost += schedule.judge.lost_count
        refused += schedule.judge.refused_count
    took = time.monotonic() - began
    return Summary(done, first, seed, events, granted, lost, refused, took)


def digests(seed: int, schedules: int, first: int, kind: Kind | None) -> Iterator[str]:
    """Of each schedule: its number, and a hash of its trace."""
    for number in range(first, first + schedules):
        trace = run_one(seed, number, traced=True, kind=kind).world.trace or []
        yield f"{number} {hashlib.sha256(chr(10).join(trace).encode()).hexdigest()}"


def explain(seed: int, number: int, rule: str, tail: int, kind: Kind | None) -> Failure:
    """Run a schedule that failed once more, for its trace."""
    schedule = Schedule(seed, number, traced=True, kind=kind)
    try:
        with _errors_count(schedule):
            schedule.run()
    except Violation as again:
        if str(again) != rule:
            rule = f"{rule}\nand when it was repeated, which must not differ: {again}"
    else:
        rule = f"{rule}\nand when it was repeated, nothing"
    return Failure(seed, number, rule, schedule.plan, schedule.world.story(tail), kind)


class _Errors(logging.Handler):
    """An error in the core's log is an error that somebody swallowed: a broken rule."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(logging.ERROR)
        self._world = schedule.world

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        if isinstance(cause, LeaseLost | BackendError | GivenUp) or record.msg in OUTAGES:
            return
        self._world.fail(f"the core logged an error: {record.getMessage()} {cause!r}")


@contextmanager
def _errors_count(schedule: Schedule) -> Iterator[None]:
    logger = logging.getLogger("tenure")
    level, propagate, handlers = logger.level, logger.propagate, logger.handlers
    # Warnings are the daily bread here, and formatting them would cost more than the rest.
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    logger.handlers = [_Errors(schedule)]
    try:
        yield
    finally:
        schedule.world.end()
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    from .mutants import MUTANTS, mutated

    parser = argparse.ArgumentParser(prog="python -m tenure.testing.simulator")
    parser.add_argument("--schedules", type=int, default=None, help="how many (default: 1000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first schedule")
    parser.add_argument("--minutes", type=float, default=None, help="as many as fit in this time")
    parser.add_argument(
        "--kind", choices=get_args(Kind), help="what clients ask for (default: all)"
    )
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break the core in this way")
    parser.add_argument("--digest", action="store_true", help="show a hash of each trace, no more")
    parser.add_argument("--trace", type=int, default=40, help="lines of trace after a failure")
    given: Any = parser.parse_args(arguments)
    schedules = given.schedules or (1000 if given.minutes is None else 10**9)
    seconds = None if given.minutes is None else given.minutes * 60
    with ExitStack() as stack:
        if given.mutant:
            stack.enter_context(mutated(given.mutant))
        if given.digest:
            for line in digests(given.seed, schedules, given.first, given.kind):
                sys.stdout.write(f"{line}\n")
            return 0
        try:
            summary = run_many(
                given.seed,
                schedules,
                first=given.first,
                seconds=seconds,
                tail=given.trace,
                kind=given.kind,
            )
        except Failure as failure:
            mutant = f" --mutant {given.mutant}" if given.mutant else ""
            sys.stdout.write(f"{failure}{mutant}\n")
            return 1
    sys.stdout.write(f"{summary}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
