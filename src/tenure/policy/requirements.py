"""What a driver must meet for each level: one small predicate for each, with where it is from.

E is for experimental, P for (technical) preview, S for stable. A predicate returns the reason
for which it does not hold, or None. What needs a run to be known was found out by the runner
and stands among the `checks` of the evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from .deprecation import later
from .evidence import Evidence
from .levels import Level, RecordedRun, Subject
from .manifest import Supports
from .profiles import PROFILES, RUNTIMES

Predicate = Callable[[Subject], str | None]

MATURITY = "datastore-maturity"
POLICY = "driver-policy"
DRIVERS = "drivers"


class Requirement(NamedTuple):
    """One requirement: what it asks for, and the founding document that wants it.

    sentence: the words of that document which it serves.
    """

    id: str
    level: Level
    text: str
    document: str
    sentence: str
    unmet: Predicate


REQUIREMENTS: dict[str, Requirement] = {}
"""All requirements, by id."""


def requirement(
    id: str, text: str, document: str, sentence: str
) -> Callable[[Predicate], Predicate]:
    """Register a predicate."""
    level = {"E": Level.EXPERIMENTAL, "P": Level.PREVIEW, "S": Level.STABLE}[id[0]]

    def register(predicate: Predicate) -> Predicate:
        REQUIREMENTS[id] = Requirement(id, level, text, document, sentence, predicate)
        return predicate

    return register


# -- experimental ----------------------------------------------------------------------------


@requirement(
    "E1",
    "The least of the profile works against a live backend, on both runtimes.",
    MATURITY,
    "implementation of a basic subset of the trove API including create and delete",
)
def _basic(subject: Subject) -> str | None:
    if not subject.found:
        return "there is no evidence"
    basic = PROFILES[subject.profile].basic
    wanted = {(case, runtime) for case in basic for runtime in RUNTIMES}
    for evidence in subject.found:
        if wanted <= _passed(evidence, subject.profile):
            return None
    return f"no run has seen {', '.join(basic)} pass on {' and '.join(RUNTIMES)}"


@requirement(
    "E2",
    "The recipe brings up a backend that can be reached, on a clean machine.",
    MATURITY,
    'guest agent "elements" that will allow a user to create a guest agent',
)
def _provision(subject: Subject) -> str | None:
    if not subject.strategy.provision:
        return "the manifest names no recipe"
    return _check(subject, "E2")


@requirement(
    "E3",
    "What it is meant to run on is listed, as version specifiers.",
    MATURITY,
    "a definition of supported operating systems",
)
def _supports(subject: Subject) -> str | None:
    return None if subject.strategy.supports else "the manifest lists nothing under `supports`"


@requirement(
    "E4",
    "Unit tests import the driver, and a run of its suite is recorded, even a failing one.",
    MATURITY,
    "basic unit tests that will verify the operation of the guest agent and test suite that is "
    "non-voting",
)
def _unit_tests(subject: Subject) -> str | None:
    if not subject.manifest.unit_tests:
        return "the manifest names no unit tests"
    if not any(evidence.tests for evidence in subject.found):
        return "no run of the suite is recorded"
    return _check(subject, "E4")


@requirement(
    "E5",
    "Its page has the sections that every page has, and its entry point resolves.",
    DRIVERS,
    "some of them have different characteristics",
)
def _page(subject: Subject) -> str | None:
    return _check(subject, "E5")


@requirement(
    "E6",
    "What it calls unsupported was tried, and refused with the typed error.",
    DRIVERS,
    "Lacks certain primitives (compare and delete) so certain functionality is fragile and/or "
    "broken due to this.",
)
def _probed(subject: Subject) -> str | None:
    return _check(subject, "E6")


@requirement(
    "E7",
    "Somebody owns it.",
    POLICY,
    "drivers which meet the bare minimum requirements for some of these, but are deficient in "
    "many ways",
)
def _owner(subject: Subject) -> str | None:
    return None if subject.manifest.owners else "the manifest names no owner"


# -- preview ---------------------------------------------------------------------------------


@requirement(
    "P1",
    "Every case of the profile passes in the newest run of each cell, and none was left out.",
    MATURITY,
    "implements API's required to implement the capabilities of the datastore as defined in the "
    "datastore compatibility matrix",
)
def _features(subject: Subject) -> str | None:
    if not subject.cells:
        return "there is no evidence"
    for evidence in subject.cells:
        runs = [test for test in evidence.tests if test.profile == subject.profile]
        if not runs:
            return f"no case of it was run in {evidence.cell.name}"
        failed = sorted({test.case for test in runs if test.outcome != "passed"})
        if failed:
            more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
            return f"in {evidence.cell.name}: {', '.join(failed[:3])}{more}"
        absent = _absent(evidence, subject.profile)
        if absent:
            return f"in {evidence.cell.name}: {absent}"
    return None


def _absent(evidence: Evidence, profile: str) -> str:
    """What of the plan was not run, if anything; where nothing failed."""
    passed = _passed(evidence, profile)
    for runtime in RUNTIMES:
        planned = evidence.planned.get(f"{profile}/{runtime}")
        if planned is None:
            return "it has no plan of the suite to be held against: run `tenure verify` again"
        ran = sum(each == runtime for _, each in passed)
        if ran < planned:
            return f"{ran} of {planned} runs of cases with {runtime}"
    return ""


@requirement(
    "P2",
    "A job of CI runs its suite, and has a result.",
    MATURITY,
    "non-voting gate tests for all capabilities",
)
def _job(subject: Subject) -> str | None:
    return None if _runs(subject) else f"no run of the job {subject.manifest.ci.job} is recorded"


@requirement(
    "P3",
    "The quick start on its page runs.",
    MATURITY,
    "a mechanism to build a guest image that will allow a user to exercise these capabilities",
)
def _quick_start(subject: Subject) -> str | None:
    return _check(subject, "P3")


@requirement(
    "P4",
    "Every characteristic that it claims is corroborated, and none refuted.",
    DRIVERS,
    "some of them have different characteristics",
)
def _claims(subject: Subject) -> str | None:
    for characteristic in sorted(subject.strategy.claims):
        for evidence in subject.cells:
            judgement = evidence.judgement(characteristic)
            if judgement is None:
                return f"{characteristic} is claimed and was not tried in {evidence.cell.name}"
            if judgement.verdict != "corroborated":
                return f"{characteristic} is claimed and {judgement.verdict}"
    return None if subject.cells else "there is no evidence"


@requirement(
    "P5",
    "Its suite covers so much of the driver's own lines as the policy says.",
    POLICY,
    "Drivers will need to have a higher level of test coverage.",
)
def _coverage(subject: Subject) -> str | None:
    least = subject.policy.coverage_percent_min
    found = [each.coverage_percent for each in subject.cells if each.coverage_percent is not None]
    if not found:
        return "coverage was not measured"
    best = max(found)
    return None if best >= least else f"{best:.0f} % of its lines are covered, not {least:.0f} %"


@requirement(
    "P6",
    "The client library is alive: it imports on the newest Python that is supported and had a "
    "release lately; the oldest and the newest supported backend boot.",
    POLICY,
    "ensure that users deploying will only be presented with choices of high quality",
)
def _alive(subject: Subject) -> str | None:
    client, most = subject.manifest.client, subject.policy.client_release_months_max
    wrong = _check(subject, "P6")
    if wrong or not client:
        return wrong
    for evidence in subject.cells:
        released = evidence.checks["P6"].released
        if released is None:
            return f"when {client} was released is not in the evidence: run `tenure verify` again"
        if subject.today >= later(released, most):
            return f"the last release of {client} was on {released}, over {most} months ago"
    return None


# -- stable ----------------------------------------------------------------------------------


@requirement(
    "S1",
    "Its job votes, and the last runs were green, so many over so many days.",
    MATURITY,
    "a stable voting test suite is part of the gate",
)
def _gate(subject: Subject) -> str | None:
    if not subject.manifest.ci.votes:
        return "its job does not vote"
    policy, green = subject.policy, list[RecordedRun]()
    runs = [run for run in _runs(subject) if run.voting]
    for run in sorted(runs, key=lambda run: run.began, reverse=True):
        if not run.green:
            break
        green.append(run)
    if len(green) < policy.green_runs_min:
        return f"the last {len(green)} recorded runs were green, not {policy.green_runs_min}"
    days = (green[0].day - green[-1].day).days
    if days < policy.green_days_min:
        return f"the green runs cover {days} of {policy.green_days_min} days"
    return None


@requirement(
    "S2",
    "There is evidence for everything that it is said to support.",
    MATURITY,
    "a definition of supported operating systems",
)
def _every_cell(subject: Subject) -> str | None:
    for line in subject.strategy.supports:
        if not any(_admits(line, evidence) for evidence in subject.found):
            return f"no evidence for {line.os.text}, {line.backend.text}"
    return None if subject.strategy.supports else "the manifest lists nothing under `supports`"


@requirement(
    "S3",
    "Under every fault it stays safe, and works again within the time that it declares.",
    POLICY,
    "choices of high quality that meet all of the requirements of the projects in OpenStack that "
    "consume tooz",
)
def _faults(subject: Subject) -> str | None:
    limit = min(subject.strategy.recovery_seconds, subject.policy.recovery_seconds_max)
    seen = False
    for evidence in subject.cells:
        for judgement in evidence.characteristics:
            for fault in judgement.faults:
                seen = True
                if not fault.confirmed:
                    return f"{fault.name} was not seen to bite in {judgement.experiment}"
                if not fault.safe and judgement.characteristic in subject.strategy.claims:
                    return f"{fault.name} broke {judgement.characteristic}"
                if fault.recovered is False:
                    return f"{fault.name}: it did not work again, in {judgement.experiment}"
                if fault.recovery_seconds is not None and fault.recovery_seconds > limit:
                    took = fault.recovery_seconds
                    return f"{fault.name}: it took {took:.1f} s to recover, not {limit:.1f} s"
    return None if seen else "no fault was injected"


@requirement(
    "S4",
    "The programs that are shipped as examples pass on it, from end to end.",
    POLICY,
    "the requirements of the projects in OpenStack that consume tooz",
)
def _programs(subject: Subject) -> str | None:
    return _check(subject, "S4")


@requirement(
    "S5",
    "99 of 100 acquires are done within the budget, with few contenders and with many.",
    POLICY,
    "Some backends are deficient entirely because they are non-performant or non-scalable.",
)
def _budget(subject: Subject) -> str | None:
    for evidence in subject.cells:
        for contenders, most in subject.policy.p99_seconds_max.items():
            found = evidence.benchmark.get(f"p99_seconds_{contenders}")
            if found is None:
                return f"{contenders} contenders were not measured in {evidence.cell.name}"
            if found > most:
                return f"{contenders} contenders: p99 is {found:.3g} s, not {most:.3g} s"
    return None if subject.cells else "there is no evidence"


@requirement(
    "S6",
    "The evidence is fresh: young enough, about the code of today, from the suite of today; and "
    "somebody else than the author vouches for it.",
    POLICY,
    "In order to identify which drivers are sufficient, a policy will be added",
)
def _fresh(subject: Subject) -> str | None:
    if not subject.cells:
        return "there is no evidence"
    record, most = subject.record, subject.policy.evidence_days_max
    for evidence in subject.cells:
        name = evidence.cell.name
        if evidence.started.date() + timedelta(days=most) < subject.today:
            return f"that of {name} is from {evidence.started.date()}"
        if record.source_hash and evidence.source_hash != record.source_hash:
            return f"that of {name} is about other code of the driver"
        if record.suite_hash and evidence.suite_hash != record.suite_hash:
            return f"that of {name} is from another suite"
        if evidence.provenance == "self-reported":
            return f"that of {name} is self-reported, and nobody has reproduced it"
    return None


# -- what they share -------------------------------------------------------------------------


def _passed(evidence: Evidence, profile: str) -> set[tuple[str, str]]:
    """The cases of a profile that have passed, each with its runtime."""
    return {
        (test.case, test.runtime)
        for test in evidence.tests
        if test.profile == profile and test.outcome == "passed"
    }


def _check(subject: Subject, id: str) -> str | None:
    """What the runner found out; the newest evidence of each cell must agree."""
    if not subject.cells:
        return "there is no evidence"
    for evidence in subject.cells:
        check = evidence.checks.get(id)
        if check is None:
            return f"it was not looked at in {evidence.cell.name}"
        if not check.holds:
            return check.detail
    return None


def _runs(subject: Subject) -> list[RecordedRun]:
    """The recorded runs of the job that the manifest names."""
    names = subject.manifest.driver, subject.strategy.name, subject.manifest.ci.job
    return [run for run in subject.record.runs if (run.driver, run.strategy, run.job) == names]


def _admits(line: Supports, evidence: Evidence) -> bool:
    cell = evidence.cell
    os_name, _, os_version = cell.os.partition(" ")
    return (
        line.os.admits(os_name, os_version)
        and line.python.admits("python", cell.python)
        and line.backend.admits(cell.backend, cell.backend_version)
        and (line.client is None or line.client.admits(cell.client, cell.client_version))
    )
