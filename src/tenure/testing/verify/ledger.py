"""The ledger of runs: what CI's run of the kit means for each driver and strategy.

    TENURE_KIT_RESULTS=results.jsonl python -m pytest tests/kit
    python -m tenure.testing.verify.ledger --results results.jsonl

adds one line for each strategy of each of Tenure's own drivers, passed or not. What the file
does not have has not passed; what the driver's traits rule out is not counted. With `--ci` it was
a run of CI, and votes where the manifest says so; what somebody runs at home does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...errors import TenureError
from ...policy.evidence import InvalidEvidence, moment
from ...policy.home import Home, append_run, built_in
from ...policy.levels import RecordedRun
from ...policy.manifest import Manifest, Strategy
from ..backends import Backend
from ..kit import CASES
from ..kit.table import Result, load
from . import cells
from .subject import backend_class, checkout

JOB = "kit"


def recorded(
    results: set[Result], home: Home, manifest: Manifest, started: str, commit: str, ci: bool
) -> Iterator[RecordedRun]:
    """The lines about one driver: for each of its strategies, how its cases ended."""
    for strategy in manifest.strategies:
        runs = set(_runs(strategy))
        passed = len(runs & results)
        yield RecordedRun(
            job=manifest.ci.job,
            driver=home.name,
            strategy=strategy.name,
            started=started,
            commit=commit,
            voting=ci and manifest.ci.votes,
            passed=passed,
            failed=len(runs) - passed,
        )


def _runs(strategy: Strategy) -> Iterator[Result]:
    """The runs of cases that the strategy's backends allow, as the results name them."""
    for recipe in strategy.provision:
        backend: type[Backend] = backend_class(recipe)
        traits = backend.traits()
        for case in CASES:
            if case.unmet(traits) is None:
                for flavour in case.flavours:
                    yield backend.name, case.name, flavour


def record(results: Path, started: str, job: str = JOB, *, ci: bool) -> list[RecordedRun]:
    """Add to the ledger what a run of the kit, by CI or not, has found about Tenure's own drivers.

    Raises `OSError` or `ValueError` if the results cannot be read; then nothing is added.
    """
    found = load(results)
    done: list[tuple[Home, RecordedRun]] = []
    for home in built_in():
        root = checkout(home.folder)
        manifest = home.load()
        if root is None or manifest.ci.job != job:
            continue  # installed from elsewhere, or another job's
        commit, _ = cells.commit(root)
        done += [(home, run) for run in recorded(found, home, manifest, started, commit, ci)]
    for home, run in done:
        append_run(home.runs, run)
    return [run for _, run in done]


def _time(text: str) -> str:
    """The time as the ledger has it, in UTC."""
    try:
        return moment(text).isoformat(timespec="seconds")
    except InvalidEvidence as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(arguments: Iterable[str] | None = None) -> int:
    """Add to the ledger, and say what was added."""
    parser = argparse.ArgumentParser(
        prog="python -m tenure.testing.verify.ledger",
        description="Add a run of the kit to the ledger of runs.",
    )
    add = parser.add_argument
    add("--results", type=Path, required=True, metavar="FILE", help="what TENURE_KIT_RESULTS named")
    add("--started", type=_time, default=cells.now(), metavar="TIME", help="when it began (now)")
    add("--ci", action="store_true", help="CI has run it, so that it may vote")
    add("--job", default=JOB, help="the job of CI whose run it was (kit)")
    given = parser.parse_args(None if arguments is None else list(arguments))
    try:
        runs = record(given.results, given.started, given.job, ci=given.ci)
    except (OSError, ValueError, KeyError, TenureError) as error:
        print(f"{parser.prog}: {error!r}", file=sys.stderr)
        return 1
    for run in runs:
        print(f"{run.driver}/{run.strategy}: {run.passed} passed, {run.failed} failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
