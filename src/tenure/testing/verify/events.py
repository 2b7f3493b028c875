"""What the runner tells while it works, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ...policy.evidence import Cell, Check, Evidence, Judgement, Test
from ...policy.levels import Assessment


class Began(NamedTuple):
    """Work on one cell of a strategy begins."""

    driver: str
    strategy: str
    cell: Cell
    cases: int
    experiments: int


class Tried(NamedTuple):
    """A run of a case has ended; it was the `number`th of `total` to end.

    ran: whether it could be run at all.
    """

    number: int
    total: int
    test: Test
    ran: bool


class Judged(NamedTuple):
    """An experiment has ended."""

    judgement: Judgement
    claimed: bool


class Checked(NamedTuple):
    """A check was made."""

    id: str
    check: Check


class Measured(NamedTuple):
    """What the benchmark and coverage.py have measured."""

    benchmark: Mapping[str, float]
    coverage_percent: float | None


class Left(NamedTuple):
    """Something of a run on somebody's own server that could not be removed."""

    what: str


class Found(NamedTuple):
    """One cell is done. `path` is the file of the evidence; None if none was asked for.

    failures: what was claimed and does not hold.
    """

    evidence: Evidence
    path: Path | None
    failures: tuple[str, ...]


class Standing(NamedTuple):
    """What the driver has earned, with this evidence."""

    assessment: Assessment
    strategies: tuple[str, ...]


Event: TypeAlias = Began | Tried | Judged | Checked | Measured | Left | Found | Standing
Hear: TypeAlias = Callable[[Event], object]
