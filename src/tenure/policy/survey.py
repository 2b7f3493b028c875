"""How all installed drivers stand: what the generated pages and `tenure drivers` tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import NamedTuple

from ..errors import TenureError
from .characteristics import Characteristic
from .evidence import Evidence
from .home import Home, homes
from .levels import POLICY, Assessment, Level, Policy, Record, StrategyStanding, Unmet, evaluate
from .manifest import Manifest, Strategy
from .profiles import PROFILES, RUNTIMES

PASSED = "\N{CHECK MARK}"
FAILED = "\N{BALLOT X}"
NOTHING = "\N{EN DASH}"


class Surveyed(NamedTuple):
    """One driver, with all that is known about it."""

    home: Home
    manifest: Manifest
    record: Record
    assessment: Assessment

    def strategies(self) -> Iterator[tuple[Strategy, StrategyStanding]]:
        """Each strategy with its standing."""
        for strategy in self.manifest.strategies:
            yield strategy, self.assessment.strategies[strategy.name]

    def title(self, strategy: Strategy) -> str:
        """What a table calls a strategy."""
        name = self.manifest.driver
        return name if strategy.is_default else f"{name}, {strategy.name}"


def survey(
    today: date | None = None, found: Sequence[Home] | None = None, policy: Policy = POLICY
) -> list[Surveyed]:
    """Every driver that has a manifest, by name, as it stands on that day.

    Without a day, it is that of the newest run of which there is a record: what is told then
    changes with the evidence, and not with the calendar.
    """
    known = [(each, each.load(), each.record()) for each in (homes() if found is None else found)]
    if today is None:
        today = max((day for _, _, record in known for day in _days(record)), default=date.min)
    made = [
        Surveyed(each, manifest, record, evaluate(manifest, record, policy, today))
        for each, manifest, record in known
    ]
    return sorted(made, key=lambda each: each.manifest.driver)


def readable(found: Sequence[Home]) -> tuple[list[Home], list[tuple[Home, str]]]:
    """The homes, without those of other distributions that cannot be read, and why not.

    What another's package lacks must not hide the others.
    """
    good, broken = list[Home](), list[tuple[Home, str]]()
    for each in found:
        try:
            if each.outside:
                each.record()
        except (TenureError, OSError) as error:
            broken.append((each, str(error)))
        else:
            good.append(each)
    return good, broken


def _days(record: Record) -> Iterator[date]:
    yield from (each.started.date() for each in record.evidence)
    yield from (run.day for run in record.runs)


def lifts(standing: StrategyStanding) -> tuple[Level, list[Unmet]]:
    """The next level for which a strategy lacks anything, and all that its profiles lack for it,
    each thing once. A strategy beside the default goes from experimental to stable."""
    open_ = [
        unmet
        for profile in standing.profiles.values()
        for unmet in profile.unmet
        if not unmet.waived
    ]
    lowest = min((unmet.level for unmet in open_), default=Level.STABLE)
    goal = max(Level(min(Level.STABLE, standing.level + 1)), lowest)
    missing: dict[tuple[str, str], Unmet] = {}
    for unmet in open_:
        if unmet.level <= goal:
            missing.setdefault((unmet.requirement, unmet.reason), unmet)
    return goal, list(missing.values())


class Counted(NamedTuple):
    """How many of a profile's runs have passed in one cell."""

    passed: int
    whole: int

    def __str__(self) -> str:
        return f"{PASSED if self.passed == self.whole else FAILED} {self.passed}/{self.whole}"


def counted(evidence: Evidence, profile: str) -> Counted:
    """The runs of a profile's cases, on both runtimes; what was left out has not passed."""
    runs = [test for test in evidence.tests if test.profile == profile]
    planned = sum(evidence.planned.get(f"{profile}/{runtime}", 0) for runtime in RUNTIMES)
    return Counted(sum(test.outcome == "passed" for test in runs), max(planned, len(runs)))


def matrix(found: Sequence[Surveyed]) -> list[tuple[str, ...]]:
    """The compatibility matrix: driver and strategy, backend, level, and a cell for each profile.

    The first row is the head.
    """
    rows: list[tuple[str, ...]] = [("driver", "backend", "level", *PROFILES)]
    for each in found:
        for strategy, standing in each.strategies():
            evidences: list[Evidence | None] = [*each.record.cells(strategy.name)]
            for evidence in evidences or [None]:
                cells = [
                    NOTHING
                    if profile not in strategy.profiles
                    else str(counted(evidence, profile))
                    if evidence is not None
                    else "?"
                    for profile in PROFILES
                ]
                backend = "" if evidence is None else _backend(evidence)
                rows.append((each.title(strategy), backend, _level(each, standing), *cells))
    return rows


def _level(of: Surveyed, standing: StrategyStanding) -> str:
    """The level of a strategy, and what was let go for it."""
    waived = of.manifest.waived(standing.strategy, of.assessment.today)
    listed = ", ".join(f"{each.requirement} until {each.until}" for each in waived)
    return f"{standing.level}, waived: {listed}" if listed else str(standing.level)


def _backend(evidence: Evidence) -> str:
    cell = evidence.cell
    text = f"{cell.backend} {cell.backend_version}"
    return f"{text}, {cell.client} {cell.client_version}" if cell.client else text


def told(strategy: Strategy, standing: StrategyStanding, characteristic: Characteristic) -> str:
    """What the ledger says of one characteristic, in a word or two."""
    line = standing.ledger[characteristic]
    if line.verdict is None:
        return "claimed, not tried" if line.claimed else NOTHING
    if line.claimed:
        return f"claimed, {line.verdict}"
    if any(each.characteristic is characteristic for each in strategy.withdrawn):
        return f"withdrawn, {line.verdict}"
    return line.verdict
