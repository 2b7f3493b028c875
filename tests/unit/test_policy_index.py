"""The index says what follows from the evidence, on any day, and is quickly read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.policy import MANIFEST, TODAY, evidence, judgement, record, sample
from tenure.drivers import registry
from tenure.policy import home, index, manifest
from tenure.policy.evidence import Check, dump
from tenure.policy.home import Home, homes
from tenure.policy.index import Known
from tenure.policy.levels import POLICY, Record, evaluate
from tenure.policy.manifest import Manifest

DRIVERS = Path(registry.__file__).parent
OLD_CLIENT = ["2031-12-31", "experimental"]
"""When the last release of the sample's client library is too long ago."""
WAIVER = """
[[waivers]]
requirement = "S4"
reason = "the programs are being written"
until = 2030-07-01
spec = "docs/specs/programs.rst"
"""


@pytest.fixture(autouse=True)
def _then(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the day of the samples."""
    monkeypatch.setattr(home, "now", lambda: datetime(2030, 6, 1, tzinfo=UTC))


def built(known: Record | None = None, of: Manifest | None = None) -> Any:
    """What the index says of the sample."""
    found = Known(of or sample(), record() if known is None else known)
    return index.build([found])["drivers"]["sample"]


def lacking_programs() -> Record:
    checks = {**evidence().checks, "S4": Check(False, "nightly_job: it failed")}
    return record(evidence(checks=checks), evidence("other"))


def test_the_index_of_the_tree_is_current() -> None:
    """What is in the tree is what follows from its manifests and evidence today.

    `python -m tenure.policy.index` makes it anew.
    """
    found = [index.known(home) for home in homes() if home.folder == DRIVERS]
    written = (DRIVERS / "evidence" / "index.json").read_text()
    assert index.render(index.build(found)) == written
    assert {entry.module.rpartition(".")[2] for entry in registry.BUILT_IN.values()} == set(
        index.parse(written, "index.json")
    )


def test_a_folder_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong folder, or an unknown option, is an error, and nothing is made."""
    for wrong in (str(tmp_path / "nowhere"), "--nothing"):
        with pytest.raises(SystemExit) as ended:
            index.main([wrong])
        assert ended.value.code == 2
        assert wrong in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_levels_are_those_of_the_policy_on_every_day() -> None:
    """On each day of a year the index says the level that the evidence gives on that day."""
    of = manifest.parse(MANIFEST.replace("[ci]", f"{WAIVER}\n[ci]", 1), "sample.toml")
    known = lacking_programs()
    found = built(known, of)
    for days in range(365):
        day = TODAY + timedelta(days=days - 30)
        assessed = evaluate(of, known, POLICY, day)
        for name, options in (("default", {}), ("other", {"lock": "other"})):
            chosen = index.strategy(found, options)
            step = index.step(chosen, day.isoformat())
            assert chosen["name"] == name
            assert step["level"] == str(assessed.strategies[name].level)
            for profile, standing in assessed.strategies[name].profiles.items():
                assert step["profiles"][profile] == str(standing.level)
                assert [
                    (each["requirement"], each["reason"], each.get("waived", ""))
                    for each in step["unmet"]
                    if profile in each.get("profiles", standing and [profile])
                ] == [(each.requirement, each.reason, each.waived) for each in standing.unmet]


def test_a_level_falls_on_the_days_that_are_known_beforehand() -> None:
    """A waiver's end and the age of evidence are steps; what changes nothing is none."""
    of = manifest.parse(MANIFEST.replace("[ci]", f"{WAIVER}\n[ci]", 1), "sample.toml")
    assert built(lacking_programs(), of)["levels"] == [
        [index.ALWAYS, "stable"],
        ["2030-07-02", "preview"],
        OLD_CLIENT,
    ]
    assert built()["levels"] == [[index.ALWAYS, "stable"], ["2030-08-30", "preview"], OLD_CLIENT]


def test_a_level_falls_when_a_client_library_is_too_old() -> None:
    """The day is known beforehand: so many months after the last release."""
    of = POLICY._replace(evidence_days_max=10_000)
    steps = index.build([Known(sample(), record())], of)["drivers"]["sample"]["levels"]
    assert steps == [[index.ALWAYS, "stable"], OLD_CLIENT]


def test_a_waiver_may_end_on_the_last_of_days() -> None:
    """There is no day after it, and so it never ends."""
    waiver = WAIVER.replace("2030-07-01", "9999-12-31")
    of = manifest.parse(MANIFEST.replace("[ci]", f"{waiver}\n[ci]", 1), "sample.toml")
    assert built(lacking_programs(), of)["levels"] == built()["levels"]


def test_nothing_known_is_unverified_for_ever() -> None:
    """Without evidence there is one step, with the reasons, and no version is known."""
    found = built(Record())
    assert found["levels"] == [[index.ALWAYS, "unverified"]]
    (step,) = found["strategies"][0]["steps"]
    assert {"requirement": "E1", "level": "experimental", "reason": "there is no evidence"} in step[
        "unmet"
    ]
    assert found["strategies"][0]["backends"] == {}
    assert found["strategies"][0]["characteristics"]["FENCED"] == {
        "claimed": True,
        "verdict": None,
        "backends": {},
    }


def test_characteristics_have_their_verdicts_and_reasons() -> None:
    """A refutation is told with its counterexample, in one line that is not too long."""
    example = "token 7 came\nafter token 9; " + "again " * 60
    known = record(evidence(characteristics=(judgement("refuted", counterexample=example),)))
    line = built(known)["strategies"][0]["characteristics"]["FENCED"]
    assert (line["claimed"], line["verdict"], line["backends"]) == (True, "refuted", {})
    assert line["reason"].startswith("token 7 came after token 9; again")
    assert len(line["reason"]) == index.REASON_CHARACTERS_MAX


def test_versions_are_those_of_the_evidence_in_their_order() -> None:
    """7.10 comes after 7.2, and each backend has its own list."""
    cell = evidence().cell
    known = record(
        *(
            evidence(cell=cell._replace(backend=product, backend_version=version))
            for product, version in (("sample", "7.10.0"), ("sample", "7.2.1"), ("twin", "1.0"))
        )
    )
    found = built(known)["strategies"][0]
    assert found["backends"] == {"sample": ["7.2.1", "7.10.0"], "twin": ["1.0"]}
    assert found["pythons"] == ["3.11.7"]
    assert found["characteristics"]["FENCED"]["backends"] == found["backends"]


def self_reported() -> Record:
    """What makes the sample stable, if somebody else than its author had seen it."""
    return record(*(evidence(each, provenance="self-reported") for each in ("default", "other")))


def test_an_author_alone_reaches_a_preview() -> None:
    """What is self-reported makes a preview at most, and says what it lacks."""
    assert built()["levels"][0][1] == "stable"
    found = built(self_reported())
    assert found["levels"] == [[index.ALWAYS, "preview"], OLD_CLIENT]
    reasons = [each["reason"] for each in found["strategies"][0]["steps"][0]["unmet"]]
    cell = evidence().cell.name
    assert reasons == [f"that of {cell} is self-reported, and nobody has reproduced it"]


def test_no_waiver_makes_up_for_a_witness() -> None:
    """An author who waives what he lacks is a preview all the same."""
    waiver = WAIVER.replace("S4", "S6").replace("2030-07-01", "2039-01-01")
    of = manifest.parse(MANIFEST.replace("[ci]", f"{waiver}\n[ci]", 1), "sample.toml")
    assert built(self_reported(), of)["levels"] == [[index.ALWAYS, "preview"], OLD_CLIENT]
    assert built(of=of)["levels"][0] == [index.ALWAYS, "stable"]


def test_the_text_depends_on_nothing_but_the_evidence() -> None:
    """The order of files changes nothing, and the text has no day of its own making."""
    forward = record(evidence(days=1), evidence(days=9), evidence("other"))
    backward = record(*reversed(forward.evidence))
    texts = {
        index.render(index.build([Known(sample(), each)])) for each in (forward, backward, forward)
    }
    (text,) = texts
    assert str(datetime.now(UTC).date()) not in text


def test_it_is_written_where_the_evidence_lies(tmp_path: Path) -> None:
    """A refresh reads manifest and evidence of a folder, and says whether anything is new."""
    home = Home(tmp_path, "sample")
    home.manifest.write_text(MANIFEST)
    (tmp_path / "sample.py").write_text("")
    cell = evidence(source_hash=home.source_hash(sample()))
    place = home.evidence / "sample" / "default" / f"{cell.cell.name}.json"
    place.parent.mkdir(parents=True)
    place.write_text(dump(cell))
    assert index.write(home.evidence, [index.known(home)])
    assert not index.write(home.evidence, [index.known(home)])
    drivers = index.read(home.index_file)
    assert index.strategy(drivers["sample"], {})["backends"] == {"sample": ["7.2.1"]}
    assert [path.name for path in home.evidence.iterdir() if path.is_file()] == ["index.json"]


@pytest.mark.parametrize(
    "text, says",
    [
        ("{", "not JSON"),
        ("[]", "lists no drivers"),
        ('{"schema": 1, "drivers": []}', "lists no drivers"),
        ('{"schema": 2, "drivers": {}}', "schema 2; this reads 1"),
    ],
)
def test_what_is_no_index_is_refused(text: str, says: str) -> None:
    """An index that is none, or is of another version, is named with what is wrong."""
    with pytest.raises(index.InvalidIndex, match=says) as caught:
        index.parse(text, "there/index.json")
    assert str(caught.value).startswith("there/index.json: ")


def test_a_deprecation_is_in_it() -> None:
    """The block of a deprecation is there as the manifest has it, with a day that JSON can say."""
    block = """
[deprecation]
since = "0.5"
since_date = 2030-01-31
remove_in = "0.8"
reason = "its client is dead"
replacement = "redis"
migration = "docs/drivers/redis.md"
"""
    found = built(of=manifest.parse(MANIFEST + block, "sample.toml"))["deprecation"]
    assert found["since_date"] == "2030-01-31"
    assert json.loads(json.dumps(found)) == found
    assert built()["deprecation"] is None
