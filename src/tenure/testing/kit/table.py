"""The page of what the kit has proved, made from the results of a real run.

    TENURE_KIT_RESULTS=results.jsonl python -m pytest tests/kit
    python -m tenure.testing.kit.table --results results.jsonl > docs/conformance.md

A mark is one run that passed. What did not pass, or did not run, is a cross; where the
driver's traits rule a case out, the cell says why.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..backends import BACKENDS, Backend
from . import CASES, Case

Result = tuple[str, str, str]
"""What passed: driver, case, runtime."""

PASSED = "\N{CHECK MARK}"
MISSING = "\N{BALLOT X}"

RULES = {
    1: "A lease is a handle and belongs to no thread or task; a second acquire contends.",
    2: "The deadline counts from the moment at which the request was sent.",
    3: "The deadline comes by itself, also while a renewal hangs or the process sleeps.",
    4: "A loss is told, with its reason, no later than the deadline.",
    5: "A reply that did not come is neither success nor failure: what happened is found out.",
    6: "An acquire that timed out, failed or was cancelled leaves nothing behind.",
    7: "A waiter whose own session has died is never granted.",
    8: "A release frees its own claim and nobody else's, and no renewal comes after it.",
    9: "The tokens of a name rise, also when every client has crashed.",
    10: "The child of a fork holds nothing, and can release nothing of its parent's.",
    11: "Work in the background never dies in silence.",
    12: "Every wait, queue and retry has a bound, and a lost wake-up costs one look.",
    13: "Many local waiters cost the backend one, and are served in their order.",
}
"""What a lease keeps to; a case names the rules that it tries to break."""

_GROUPS = {
    "basic": "Locks, without faults",
    "faults": "Locks, with faults",
    "processes": "Locks, with other processes",
    "rosters": "The roster contract: claims",
    "queues": "The roster contract: readers, widths, wake-ups",
    "records": "The roster contract: records and watchers",
    "rwlock": "Reader-writer locks",
    "semaphore": "Semaphores and multi-locks",
    "barrier": "Barriers and latches",
    "group": "Groups",
    "watch": "Watches",
    "election": "Elections",
    "partition": "Partitioning",
    "objectlock": "Object lock",
    "status": "Status",
    "backend": "What it is connected to",
}

_HEAD = f"""\
# Conformance

What the conformance kit has found, on real servers, in a run of the whole of it. This page is
made by `scripts/test --accept` from the results of such a run; `scripts/test` fails when they
differ.

`{PASSED} {PASSED}` stands for a case that passed with the synchronous API and with asyncio; one
mark, for a case that exists for one of them. `{MISSING}` is a run that did not pass. Where a
driver's traits rule a case out, the cell says why.

Every backend was one server on one machine. That says nothing about a cluster's fail-over; the
drivers' pages do. A driver's level needs more than this table:
[the policy](policy/requirements.md) tells what.
"""


def load(path: Path) -> set[Result]:
    """The results that a run has recorded."""
    found = set()
    for line in path.read_text(encoding="ascii").splitlines():
        result = json.loads(line)
        found.add((result["driver"], result["case"], result["runtime"]))
    return found


def render(
    results: set[Result],
    backends: Sequence[type[Backend]] = BACKENDS,
    cases: Sequence[Case] = CASES,
) -> str:
    """The page, in Markdown. `ValueError` if a rule has no case, or a case no such rule."""
    parts = (_summary(results, backends, cases), _rules(cases), _tables(results, backends, cases))
    return "\n".join([_HEAD, *itertools.chain(*parts)])


def cell(case: Case, backend: type[Backend], results: set[Result]) -> str:
    """What the table says of one case on one driver."""
    reason = case.unmet(backend.traits())
    if reason is not None:
        return reason
    return " ".join(
        PASSED if (backend.name, case.name, flavour) in results else MISSING
        for flavour in case.flavours
    )


def _summary(
    results: set[Result], backends: Sequence[type[Backend]], cases: Sequence[Case]
) -> Iterator[str]:
    yield "## In short\n"
    yield "How many of the runs that a driver's traits allow have passed, with either API.\n"
    groups = list(dict.fromkeys(map(_group, cases)))
    yield _row("", *(backend.name for backend in backends))
    yield _row("---", *("---" for _ in backends))
    for group in groups:
        cells = []
        for backend in backends:
            traits = backend.traits()
            apply = [each for each in cases if _group(each) == group and not each.unmet(traits)]
            runs = [
                (backend.name, each.name, flavour) for each in apply for flavour in each.flavours
            ]
            passed = len(results.intersection(runs))
            cells.append(f"{passed} of {len(runs)}" if runs else "unsupported")
        yield _row(_GROUPS.get(group, group), *cells)
    yield ""


def _rules(cases: Sequence[Case]) -> Iterator[str]:
    unknown = {rule for case in cases for rule in case.rules} - RULES.keys()
    if unknown:
        raise ValueError(f"cases name rules that do not exist: {sorted(unknown)}")
    yield "## The rules\n"
    yield _row("", "a lease keeps to this", "cases")
    yield _row("---", "---", "---")
    for number, text in RULES.items():
        names = [f"`{case.name}`" for case in cases if number in case.rules]
        if not names:
            raise ValueError(f"no case defends rule {number}: {text}")
        yield _row(str(number), text, ", ".join(names))
    yield ""


def _tables(
    results: set[Result], backends: Sequence[type[Backend]], cases: Sequence[Case]
) -> Iterator[str]:
    for group in dict.fromkeys(map(_group, cases)):
        yield f"## {_GROUPS.get(group, group)}\n"
        yield _row("case", "rules", *(backend.name for backend in backends))
        yield _row("---", "---", *("---" for _ in backends))
        for case in cases:
            if _group(case) == group:
                yield _row(
                    _promise(case),
                    ", ".join(map(str, case.rules)),
                    *(cell(case, backend, results) for backend in backends),
                )
        yield ""


def _group(case: Case) -> str:
    return case.body.__module__.rpartition(".")[2]


def _promise(case: Case) -> str:
    only = f" ({case.flavours[0]} only)" if len(case.flavours) == 1 else ""
    return f"`{case.name}`{only}: {case.text}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(each.replace('|', chr(92) + '|') for each in cells)} |"


def main(arguments: Iterable[str] | None = None) -> int:
    """Print the page."""
    parser = argparse.ArgumentParser(
        prog="python -m tenure.testing.kit.table", description="Print the table of conformance."
    )
    parser.add_argument(
        "--results",
        type=Path,
        required=True,
        metavar="FILE",
        help="what TENURE_KIT_RESULTS named in a run of the kit",
    )
    given = parser.parse_args(None if arguments is None else list(arguments))
    try:
        print(render(load(given.results)), end="")
    except (OSError, ValueError, KeyError) as error:
        print(f"{parser.prog}: {error!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
