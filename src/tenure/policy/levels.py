"""The levels, and the pure function that computes them.

`evaluate(manifest, record, policy, today)` reads neither clock nor disk. A level is inclusive:
who is stable meets all that a preview must meet. What is not met is listed with its reason, so
that a level explains itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple

from .characteristics import Characteristic
from .evidence import Evidence, Judgement, Verdict, latest, moment
from .level import Level as Level
from .manifest import PREVIEW, Manifest, Strategy


class RecordedRun(NamedTuple):
    """One line of the ledger of runs: a suite that CI ran, and how it ended."""

    job: str
    driver: str
    strategy: str
    started: str
    commit: str
    voting: bool
    passed: int
    failed: int

    @property
    def began(self) -> datetime:
        """When it began, in UTC."""
        return moment(self.started)

    @property
    def day(self) -> date:
        """The day on which it began."""
        return self.began.date()

    @property
    def green(self) -> bool:
        """Whether something passed and nothing failed."""
        return self.passed > 0 and not self.failed


class Record(NamedTuple):
    """Everything that is known about one driver when it is judged.

    `source_hash` and `suite_hash` are those of today's code; evidence that has others is about
    another driver, or from another suite.
    """

    evidence: tuple[Evidence, ...] = ()
    runs: tuple[RecordedRun, ...] = ()
    source_hash: str = ""
    suite_hash: str = ""

    def of(self, strategy: str) -> list[Evidence]:
        """The evidence about a strategy, the newest first."""
        return latest([each for each in self.evidence if each.strategy == strategy])

    def current(self, strategy: str) -> list[Evidence]:
        """The evidence that is about today's code, the newest first."""
        return [each for each in self.of(strategy) if self.is_current(each)]

    def is_current(self, evidence: Evidence) -> bool:
        """Whether evidence is about today's code; nobody may know what that is."""
        return not self.source_hash or evidence.source_hash == self.source_hash

    def cells(self, strategy: str) -> list[Evidence]:
        """The newest evidence of each cell of a strategy."""
        newest: dict[str, Evidence] = {}
        for each in self.of(strategy):
            newest.setdefault(each.cell.name, each)
        return list(newest.values())


class Policy(NamedTuple):
    """The numbers in the requirements."""

    coverage_percent_min: float = 60.0
    green_runs_min: int = 20
    green_days_min: int = 14
    evidence_days_max: int = 90
    client_release_months_max: int = 24
    recovery_seconds_max: float = 60.0
    p99_seconds_max: Mapping[int, float] = {1: 0.05, 16: 2.0, 64: 10.0}
    """For so many contenders: how long 99 of 100 acquires may take."""


class Subject(NamedTuple):
    """What a requirement is asked about: one profile of one strategy."""

    manifest: Manifest
    strategy: Strategy
    profile: str
    record: Record
    policy: Policy
    today: date

    @property
    def found(self) -> list[Evidence]:
        """The evidence about this strategy, the newest first."""
        return self.record.of(self.strategy.name)

    @property
    def cells(self) -> list[Evidence]:
        """The newest evidence of each cell."""
        return self.record.cells(self.strategy.name)


class Unmet(NamedTuple):
    """A requirement that does not hold, and why. `waived` is the reason of a waiver, if any."""

    requirement: str
    level: Level
    reason: str
    waived: str = ""


class Standing(NamedTuple):
    """The level of one profile, and all that is missing for the next ones."""

    level: Level
    unmet: tuple[Unmet, ...]


class Ledgered(NamedTuple):
    """What is known about one characteristic of one strategy."""

    claimed: bool
    verdict: Verdict | None
    """None if no experiment has been run."""
    judgement: Judgement | None
    cell: str = ""


class StrategyStanding(NamedTuple):
    """The level of a strategy, by profile, and what its experiments found."""

    strategy: str
    level: Level
    profiles: Mapping[str, Standing]
    ledger: Mapping[Characteristic, Ledgered]

    @property
    def corroborated(self) -> frozenset[Characteristic]:
        """The characteristics that are claimed and were not refuted in any trial."""
        return frozenset(
            each
            for each, line in self.ledger.items()
            if line.claimed and line.verdict == "corroborated"
        )


class Assessment(NamedTuple):
    """What a driver has earned on that day."""

    driver: str
    today: date
    level: Level
    strategies: Mapping[str, StrategyStanding]


POLICY = Policy()
"""The policy that is in force."""


def evaluate(manifest: Manifest, record: Record, policy: Policy, today: date) -> Assessment:
    """What the driver has earned on a day, by strategy and profile.

    The driver's level is the lowest of its default strategy's profiles; that of a lock taken
    with another strategy is the lower of the two.
    """
    from .requirements import REQUIREMENTS  # they are written in terms of what stands here

    standings = {}
    for strategy in manifest.strategies:
        profiles = {}
        for profile in strategy.profiles:
            subject = Subject(manifest, strategy, profile, record, policy, today)
            unmet = []
            for requirement in REQUIREMENTS.values():
                reason = requirement.unmet(subject)
                if reason is not None:
                    waiver = manifest.waiver(requirement.id, strategy.name, today)
                    unmet.append(Unmet(requirement.id, requirement.level, reason, waiver))
            profiles[profile] = Standing(_level(unmet, subject), tuple(unmet))
        lowest = min((each.level for each in profiles.values()), default=Level.UNVERIFIED)
        standings[strategy.name] = StrategyStanding(
            strategy.name, lowest, profiles, _ledger(strategy, record)
        )
    default = standings[manifest.default.name].level
    capped = {
        name: each._replace(level=min(each.level, default)) for name, each in standings.items()
    }
    return Assessment(manifest.driver, today, default, capped)


def _level(unmet: Sequence[Unmet], subject: Subject) -> Level:
    strategy = subject.strategy
    open_ = [each.level for each in unmet if not each.waived]
    level = Level(min((each - 1 for each in open_), default=Level.STABLE))
    # No waiver makes up for a witness: what an author says of himself reaches a preview at most.
    if any(each.provenance == "self-reported" for each in subject.cells):
        level = min(level, Level.PREVIEW)
    # A strategy beside the default is experimental or stable; nothing lies between them.
    beside = level is Level.PREVIEW and not strategy.is_default
    if beside and not subject.manifest.waiver(PREVIEW, strategy.name, subject.today):
        return Level.EXPERIMENTAL
    return level


def _ledger(strategy: Strategy, record: Record) -> dict[Characteristic, Ledgered]:
    lines = {}
    for characteristic in Characteristic:
        now, then = list[_Found](), list[_Found]()
        for evidence in record.of(strategy.name):
            judgement = evidence.judgement(characteristic)
            if judgement is not None and record.is_current(evidence):
                now.append(_Found(judgement, evidence.cell.name))
            elif judgement is not None and judgement.verdict == "refuted":
                then.append(_Found(judgement, evidence.cell.name))
        # Of other code nothing is corroborated; that it broke is told until this code was tried.
        best = max(now or then, key=_weight, default=_Found(None, ""))
        verdict = best.judgement.verdict if best.judgement else None
        claimed = characteristic in strategy.claims
        lines[characteristic] = Ledgered(claimed, verdict, best.judgement, best.cell)
    return lines


class _Found(NamedTuple):
    judgement: Judgement | None
    cell: str


_WEIGHT: dict[Verdict, int] = {"untestable": 0, "corroborated": 1, "refuted": 2}


def _weight(found: _Found) -> int:
    """One refutation counts more than any number of trials without one."""
    return _WEIGHT[found.judgement.verdict] if found.judgement else -1
