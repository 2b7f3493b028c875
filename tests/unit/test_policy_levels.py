"""Levels follow from evidence, and from nothing else; each requirement can fail alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.policy import MANIFEST, RELEASED, TODAY, evidence, judgement, record, runs, sample
from tenure.errors import InvalidArgument
from tenure.policy import manifest
from tenure.policy.characteristics import Characteristic
from tenure.policy.evidence import Check, Fault
from tenure.policy.levels import POLICY, Level, Record, Standing, evaluate
from tenure.policy.manifest import Manifest
from tenure.policy.requirements import REQUIREMENTS


def standing(known: Record, of: Manifest | None = None, profile: str = "lock") -> Standing:
    """How the sample's profile stands."""
    found = evaluate(of or sample(), known, POLICY, TODAY)
    return found.strategies["default"].profiles[profile]


def unmet(known: Record, of: Manifest | None = None, profile: str = "lock") -> dict[str, str]:
    """The requirements that do not hold, with their reasons."""
    return {each.requirement: each.reason for each in standing(known, of, profile).unmet}


def changed(old: str, new: str) -> Manifest:
    """The sample's manifest with one passage replaced."""
    assert old in MANIFEST
    return manifest.parse(MANIFEST.replace(old, new), "sample.toml")


def test_who_meets_everything_is_stable() -> None:
    """With all that is asked for, every profile and the driver are stable, and nothing is unmet."""
    found = evaluate(sample(), record(), POLICY, TODAY)
    assert found.level is Level.STABLE
    for strategy in found.strategies.values():
        assert strategy.level is Level.STABLE
        assert all(not each.unmet for each in strategy.profiles.values())


def test_who_has_no_evidence_is_unverified() -> None:
    """Without any evidence the level is none, and the reasons say so."""
    found = evaluate(sample(), Record(), POLICY, TODAY)
    assert found.level is Level.UNVERIFIED
    reasons = {each.reason for each in found.strategies["default"].profiles["lock"].unmet}
    assert "there is no evidence" in reasons


def without_check(id: str) -> Record:
    bad = {**evidence().checks, id: Check(False, f"{id} failed")}
    return record(evidence(checks=bad))


def failing(case: str) -> Record:
    tests = tuple(
        test._replace(outcome="failed") if test.case == case else test for test in evidence().tests
    )
    return record(evidence(tests=tests))


SPOILED: dict[str, tuple[Callable[[], Record], Callable[[], Manifest], str]] = {
    "E1": (lambda: failing("acquire_and_release_leave_nothing"), sample, "acquire_and_release"),
    "E2": (lambda: without_check("E2"), sample, "E2 failed"),
    "E3": (
        record,
        lambda: manifest.parse(
            MANIFEST.replace(
                MANIFEST[
                    MANIFEST.index("[[strategies.default.supports]]") : MANIFEST.index(
                        "[strategies.other]"
                    )
                ],
                "",
            ),
            "sample.toml",
        ),
        "lists nothing",
    ),
    "E4": (record, lambda: changed('["tests/test_sample.py"]', "[]"), "no unit tests"),
    "E5": (lambda: without_check("E5"), sample, "E5 failed"),
    "E6": (lambda: without_check("E6"), sample, "E6 failed"),
    "E7": (record, lambda: changed('["Somebody"]', "[]"), "no owner"),
    "P1": (lambda: failing("another_of_lock"), sample, "another_of_lock"),
    "P2": (lambda: record(ran=[]), sample, "no run of the job kit"),
    "P3": (lambda: without_check("P3"), sample, "P3 failed"),
    "P4": (
        lambda: record(evidence(characteristics=(judgement("refuted"),))),
        sample,
        "FENCED is claimed and refuted",
    ),
    "P5": (lambda: record(evidence(coverage_percent=59.9)), sample, "not 60 %"),
    "P6": (lambda: without_check("P6"), sample, "P6 failed"),
    "S1": (lambda: record(ran=runs(19)), sample, "19"),
    "S2": (
        record,
        lambda: changed('"sample >=7,<8"\nclient', '"sample >=8"\nclient'),
        "sample >=8",
    ),
    "S3": (
        lambda: record(
            evidence(characteristics=(judgement(faults=(Fault("cut", True, "n", True, 11.0),)),))
        ),
        sample,
        "it took 11.0 s",
    ),
    "S4": (lambda: without_check("S4"), sample, "S4 failed"),
    "S5": (lambda: record(evidence(benchmark={"p99_seconds_1": 0.01})), sample, "16 contenders"),
    "S6": (lambda: record(evidence(days=91)), sample, "2030-03-02"),
}


def test_every_requirement_is_spoiled() -> None:
    """There is a way to fail each requirement, and each has its own level and sentence."""
    assert SPOILED.keys() == REQUIREMENTS.keys()
    for id, each in REQUIREMENTS.items():
        assert each.level == {"E": 1, "P": 2, "S": 3}[id[0]]
        assert each.sentence
        assert each.document


@pytest.mark.parametrize("id", SPOILED)
def test_a_requirement_alone_lowers_the_level(id: str) -> None:
    """What fails one requirement fails the level that asks for it, with a reason that names it."""
    known, of, reason = SPOILED[id]
    found = unmet(known(), of())
    assert reason in found[id]
    others = {"E1": {"E1", "P1"}, "E3": {"E3", "S2"}, "P2": {"P2", "S1"}}.get(id, {id})
    assert found.keys() == others
    assert standing(known(), of()).level is Level(REQUIREMENTS[id].level - 1)


@pytest.mark.parametrize("id", ["E1", "E2", "E4", "E5", "E6", "P1", "P3", "P4", "P5", "P6", "S4"])
def test_nothing_known_is_not_met(id: str) -> None:
    """Where nothing is known, nothing is taken for granted."""
    assert id in unmet(record(evidence("other")))


def test_the_driver_is_its_lowest_profile() -> None:
    """A profile that fails lowers the driver, and leaves the other profile where it was."""
    known = failing("another_of_group")
    found = evaluate(sample(), known, POLICY, TODAY)
    assert found.level is Level.EXPERIMENTAL
    profiles = found.strategies["default"].profiles
    assert profiles["lock"].level is Level.STABLE
    assert profiles["group"].level is Level.EXPERIMENTAL


def test_another_strategy_is_experimental_or_stable() -> None:
    """Beside the default there is no preview, but by a waiver, and never more than the default."""
    half = record(evidence(), evidence("other", coverage_percent=90.0), ran=runs())
    two = half._replace(runs=(*runs(), *runs(3, "other")))
    found = evaluate(sample(), two, POLICY, TODAY)
    assert found.strategies["other"].level is Level.EXPERIMENTAL
    waiver = (
        '\n[[waivers]]\nrequirement = "preview"\nstrategy = "other"\nreason = "soon"\n'
        'until = 2030-06-01\nspec = "docs/specs/x.rst"\n'
    )
    allowed = manifest.parse(MANIFEST + waiver, "sample.toml")
    assert evaluate(allowed, two, POLICY, TODAY).strategies["other"].level is Level.PREVIEW
    later = evaluate(allowed, two, POLICY, TODAY + timedelta(days=1))
    assert later.strategies["other"].level is Level.EXPERIMENTAL
    low = record(evidence(coverage_percent=1.0), evidence("other"))
    assert evaluate(sample(), low, POLICY, TODAY).strategies["other"].level is Level.EXPERIMENTAL


def test_a_waiver_counts_until_its_last_day() -> None:
    """What is waived is still listed, with the waiver's reason, and lowers nothing until then."""
    waiver = (
        '\n[[waivers]]\nrequirement = "P5"\nreason = "soon"\nuntil = 2030-06-01\n'
        'spec = "docs/specs/x.rst"\n'
    )
    of = manifest.parse(MANIFEST + waiver, "sample.toml")
    known = record(evidence(coverage_percent=1.0))
    found = standing(known, of)
    assert found.level is Level.STABLE
    assert [(each.requirement, each.waived) for each in found.unmet] == [("P5", "soon")]
    later = evaluate(of, known, POLICY, TODAY + timedelta(days=1))
    assert later.strategies["default"].profiles["lock"].level is Level.EXPERIMENTAL


def test_no_waiver_makes_up_for_evidence() -> None:
    """About whom nothing is known is unverified, whatever is waived."""
    waivers = "".join(
        f'\n[[waivers]]\nrequirement = "{id}"\nreason = "r"\nuntil = 2039-01-01\nspec = "s"\n'
        for id in REQUIREMENTS.keys() - manifest.NEVER_WAIVED
    )
    of = manifest.parse(MANIFEST + waivers, "sample.toml")
    assert evaluate(of, Record(), POLICY, TODAY).level is Level.UNVERIFIED
    assert evaluate(of, record(), POLICY, TODAY).level is Level.STABLE


def test_green_runs_must_be_many_and_last() -> None:
    """Twenty runs in a day are not enough, nor are twenty with a red one among the last."""
    assert "cover 1 of 14 days" in unmet(record(ran=runs(20, every_hours=1)))["S1"]
    red = runs(30)
    red[5] = red[5]._replace(failed=1)
    assert "last 5 recorded runs" in unmet(record(ran=red))["S1"]
    empty = runs(30)
    empty[0] = empty[0]._replace(passed=0)
    assert "last 0 recorded runs" in unmet(record(ran=empty))["S1"]
    others = [*runs(1), *(run._replace(job="nightly") for run in runs(30))]
    assert "last 1 recorded runs" in unmet(record(ran=others))["S1"]
    # By the clock it was before the last two, though its text comes after theirs.
    late = runs(30)
    late.append(late[0]._replace(started="2030-05-30T07:00:00+12:00", failed=1))
    assert "last 2 recorded runs" in unmet(record(ran=late))["S1"]
    silent = [run._replace(voting=False) for run in runs(30)]
    assert "S1" in unmet(record(ran=silent))


def test_evidence_must_be_about_this_code_and_from_this_suite() -> None:
    """A changed driver or a changed suite makes evidence stale."""
    assert "other code" in unmet(record(evidence(source_hash="then")))["S6"]
    assert "another suite" in unmet(record(evidence(suite_hash="then")))["S6"]


def test_a_fault_that_was_not_seen_to_bite_counts_for_nothing() -> None:
    """Without proof of the fault, and with an unsafe one, the fault suite is not met."""
    doubtful = judgement(faults=(Fault("cut", False, "", True),))
    assert "not seen to bite" in unmet(record(evidence(characteristics=(doubtful,))))["S3"]
    unsafe = judgement(faults=(Fault("cut", True, "seen", False),))
    assert "broke FENCED" in unmet(record(evidence(characteristics=(unsafe,))))["S3"]
    assert unmet(record(evidence(characteristics=(judgement(faults=()),))))["S3"]


def test_who_does_not_recover_has_not_met_the_faults() -> None:
    """That it did not work again is no missing measurement, and fails like a slow recovery."""
    stuck = Fault("leader killed", True, "seen", True, None, recovered=False)
    found = unmet(record(evidence(characteristics=(judgement(faults=(stuck,)),))))
    assert found == {"S3": "leader killed: it did not work again, in tokens"}
    unknown = stuck._replace(recovered=None)
    assert not unmet(record(evidence(characteristics=(judgement(faults=(unknown,)),))))


def without(*left_out: tuple[str, str]) -> Record:
    """All that is known, but for these cases with these runtimes, which were not run."""
    tests = tuple(test for test in evidence().tests if (test.case, test.runtime) not in left_out)
    return record(evidence(tests=tests))


def test_an_absent_case_has_failed() -> None:
    """What the plan has and the run has not is missing; a run that is told twice is one."""
    absent = ("another_of_lock", "thread")
    cell = evidence().cell.name
    wanted = {"P1": f"in {cell}: 1 of 2 runs of cases with thread"}
    assert unmet(without(absent)) == wanted
    (twice,) = without(absent).evidence
    twice = twice._replace(tests=twice.tests + twice.tests)
    assert unmet(record(twice)) == wanted
    assert not unmet(without(absent), profile="group")


def test_the_least_is_seen_on_both_runtimes() -> None:
    """One runtime alone is not even experimental."""
    basic = "acquire_and_release_leave_nothing"
    found = unmet(without((basic, "asyncio")))
    assert found["E1"] == f"no run has seen {basic} pass on thread and asyncio"
    assert found.keys() == {"E1", "P1"}


def test_evidence_without_a_plan_is_not_enough() -> None:
    """Where nobody knows how many cases there are, nobody knows that all of them passed."""
    found = unmet(record(evidence(planned={"group/thread": 2, "group/asyncio": 2})))
    assert found.keys() == {"P1"}
    assert "run `tenure verify` again" in found["P1"]


def test_the_release_of_a_client_library_grows_old() -> None:
    """It is the day of the release that is kept, and not that it was young when somebody looked."""

    def found(released: date | None) -> dict[str, str]:
        return unmet(
            record(evidence(checks={**evidence().checks, "P6": Check(True, "", released)}))
        )

    assert found(date(2028, 6, 2)) == {}
    old = "the last release of client was on 2028-06-01, over 24 months ago"
    assert found(date(2028, 6, 1)) == {"P6": old}
    assert "run `tenure verify` again" in found(None)["P6"]
    bare = changed('client = "client"\n', "")
    assert not unmet(record(evidence(checks={**evidence().checks, "P6": Check(True, "")})), bare)


def test_only_the_newest_of_a_cell_counts() -> None:
    """A run that is repeated replaces the older one of its cell, and not that of another."""
    bad = evidence(days=3, coverage_percent=1.0, checks={})
    assert not unmet(record(evidence(days=1), bad))
    other = bad._replace(cell=bad.cell._replace(backend_version="7.1.0"))
    assert "P3" in unmet(record(evidence(days=1), other))


def test_one_refutation_outweighs_corroborations() -> None:
    """A characteristic that is refuted in one cell is refuted, however often it was not."""
    there = evidence(characteristics=(judgement("refuted", counterexample="two at once"),))
    there = there._replace(cell=there.cell._replace(backend_version="7.1.0"))
    found = evaluate(sample(), record(evidence(), there), POLICY, TODAY).strategies["default"]
    line = found.ledger[Characteristic.FENCED]
    assert line.verdict == "refuted"
    assert line.judgement is not None
    assert line.judgement.counterexample == "two at once"
    assert line.cell == there.cell.name
    assert not found.corroborated


def test_a_refutation_ends_with_the_code_that_it_was_about() -> None:
    """What was refuted of older code no longer counts when the newer one was not refuted."""
    then = evidence(days=5, source_hash="then", characteristics=(judgement("refuted"),))
    then = then._replace(cell=then.cell._replace(backend_version="7.1.0"))
    found = evaluate(sample(), record(evidence(), then), POLICY, TODAY).strategies["default"]
    assert found.ledger[Characteristic.FENCED].verdict == "corroborated"


def test_nothing_is_corroborated_of_other_code() -> None:
    """What was found out about other code is forgotten, but for what broke it."""
    then = record(evidence(source_hash="then"))
    found = evaluate(sample(), then, POLICY, TODAY).strategies["default"]
    assert found.ledger[Characteristic.FENCED].verdict is None
    assert not found.corroborated
    broke = record(evidence(source_hash="then", characteristics=(judgement("refuted"),)))
    found = evaluate(sample(), broke, POLICY, TODAY).strategies["default"]
    assert found.ledger[Characteristic.FENCED].verdict == "refuted"


def test_what_was_never_tried_has_no_verdict() -> None:
    """The ledger has a line for every characteristic, also for those that nobody has tried."""
    found = evaluate(sample(), record(), POLICY, TODAY).strategies["default"]
    assert found.ledger.keys() == set(Characteristic)
    assert found.ledger[Characteristic.CAUSAL].verdict is None
    assert found.corroborated == {Characteristic.FENCED}


def test_levels_have_an_order_and_names() -> None:
    """Levels compare, print in lower case, and are found by name; another is an error."""
    assert Level.UNVERIFIED < Level.EXPERIMENTAL < Level.PREVIEW < Level.STABLE
    assert [Level.parse(str(each)) for each in Level] == list(Level)
    assert Level.parse("Technical Preview") is Level.PREVIEW
    with pytest.raises(InvalidArgument, match="min_level is one of unverified, experimental"):
        Level.parse("good", "min_level")


IDS = sorted(REQUIREMENTS)


@given(st.sets(st.sampled_from(IDS)), st.sampled_from(IDS))
def test_less_evidence_never_raises_a_level(missing: set[str], one: str) -> None:
    """Whatever is missing already, failing one more requirement never raises the level."""

    def level(without: set[str]) -> Level:
        checks = {
            id: Check(id not in without, "no", RELEASED)
            for id in ("E2", "E4", "E5", "E6", "P3", "P6", "S4")
        }
        found = evidence(
            checks=checks,
            coverage_percent=1.0 if "P5" in without else 99.0,
            characteristics=() if {"P4", "S3"} & without else (judgement(),),
            days=100 if "S6" in without else 1,
            benchmark={} if "S5" in without else evidence().benchmark,
            tests=() if {"E1", "P1"} & without else evidence().tests,
        )
        ran = runs(1 if "S1" in without else 20)
        return standing(record(found, ran=[] if "P2" in without else ran)).level

    assert level(missing | {one}) <= level(missing)


def test_nothing_depends_on_the_clock() -> None:
    """The same evidence gives the same assessment, whenever it is asked; the day is an argument."""
    assert evaluate(sample(), record(), POLICY, TODAY) == evaluate(
        sample(), record(), POLICY, TODAY
    )
    assert evaluate(sample(), record(), POLICY, date(2031, 1, 1)).level is Level.PREVIEW
