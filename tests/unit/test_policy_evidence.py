"""Files of evidence are read strictly, and say the same when they are written again."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.policy import MANIFEST, evidence, runs
from tenure.policy import home
from tenure.policy.evidence import InvalidEvidence, dump, latest, load, parse
from tenure.policy.home import Home, append_run, load_runs, suite_hash


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Evidence survives the way to a file and back, and its text is the same each time."""
    path = tmp_path / "cell.json"
    path.write_text(dump(evidence()))
    assert load(path) == evidence()
    assert dump(load(path)) == path.read_text()


def spoil(*path: Any, value: Any) -> str:
    """The text of evidence with one value replaced; `...` removes it."""
    found = json.loads(dump(evidence()))
    at = found
    for part in path[:-1]:
        at = at[part]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return json.dumps(found)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not JSON"),
        ("[]", "an object was expected"),
        (spoil("schema", value=2), "schema 2; this reads 1"),
        (spoil("level", value="stable"), "there is no field 'level'"),
        (spoil("cell", value=...), "the field 'cell' is missing"),
        (spoil("run", "dirty", value=0), r"run\.dirty: bool was expected, not 0"),
        (spoil("tests", 0, "outcome", value="skipped"), r"tests\[0\]\.outcome: 'skipped' is none"),
        (spoil("tests", value={}), "tests: a list was expected"),
        (spoil("checks", value=[]), "checks: an object was expected"),
        (
            spoil("characteristics", 0, "characteristic", value="FAST"),
            "'FAST' is no characteristic",
        ),
        (spoil("characteristics", 0, "faults", 0, "proof", value=1), r"faults\[0\]\.proof: str"),
        (spoil("characteristics", 0, "characteristic", value=[]), r"\[\] is no characteristic"),
        (spoil("run", "started", value="lately"), r"run\.started: 'lately' is no time"),
        (spoil("run", "started", value="2026-01-31T12:00:00"), r"run\.started: .* is no time"),
        (spoil("run", "started", value="9999-12-31T23:59:59-01:00"), r"run\.started: .* no time"),
        (spoil("run", "seconds", value=math.nan), r"run\.seconds: a finite number"),
        (spoil("run", "seconds", value=10**400), r"run\.seconds: a finite number"),
        (spoil("benchmark", "p99_seconds_1", value=math.inf), r"p99_seconds_1: a finite number"),
        (
            spoil("characteristics", 0, "parameters", "ttl", value=[math.nan]),
            r"parameters\.ttl\[0\]: a finite number",
        ),
        (spoil("planned", value={"lock/thread": "2"}), r"planned\.lock/thread: int was"),
        (spoil("checks", "P6", "released", value="soon"), r"checks\.P6\.released: a day was"),
        ("[" * 100_000, "not JSON"),
        (b"\xff{}", "not JSON"),
        (spoil("provenance", value="hearsay"), "'hearsay' is none of in-tree"),
    ],
)
def test_a_bad_file_is_refused(text: str | bytes, message: str) -> None:
    """What the runner would not have written is refused, with the name of the field."""
    with pytest.raises(InvalidEvidence, match=message) as caught:
        parse(text, "x.json")
    assert str(caught.value).startswith("x.json")


def test_the_newest_comes_first() -> None:
    """Evidence is ordered by when its run began, whatever the time zone it was written in."""
    old, new = evidence(days=2), evidence(days=1)
    shifted = new._replace(run=new.run._replace(started="2030-05-30T23:30:00-01:00"))
    assert latest([old, new]) == [new, old]
    assert latest([old, shifted]) == [shifted, old]


def test_a_cell_has_a_plain_name() -> None:
    """The name of a cell can be a file's, whatever the server and the system are called."""
    cell = evidence().cell._replace(backend_version="7.2 (a/b)", os="my os/12")
    assert cell.name == "my-os-12_py3.11.7_sample7.2_client3.1"


def test_a_cell_is_named_by_all_that_makes_it_one() -> None:
    """Another topology, or another release of the client library, is another cell."""
    cell = evidence().cell
    cluster = cell._replace(topology="ext4, write-ahead log/\N{SNOWMAN}", client_version="3.2rc1")
    assert cluster.name == "debian-12_py3.11.7_sample7.2.1_ext4-write-ahead-log-_client3.2"
    plain = cell._replace(topology="", client="", client_version="")
    assert plain.name == "debian-12_py3.11.7_sample7.2.1"
    assert len(cell._replace(topology="x" * 300).name) < 100


def test_a_home_reads_its_evidence_and_runs(tmp_path: Path) -> None:
    """A record holds what lies in the driver's folder; what lies in the wrong one is an error."""
    (tmp_path / "sample.toml").write_text(MANIFEST)
    (tmp_path / "sample.py").write_text("")
    here = Home(tmp_path, "sample")
    folder = here.evidence / "sample" / "default"
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(dump(evidence()))
    for run in runs(3):
        append_run(here.runs, run)
    append_run(here.runs, runs(1)[0]._replace(driver="another"))
    record = here.record()
    assert record.evidence == (evidence(provenance="self-reported"),)
    assert record.runs == tuple(runs(3))
    assert (record.source_hash, record.suite_hash) == (here.source_hash(here.load()), suite_hash())
    wrong = here.evidence / "sample" / "other"
    wrong.mkdir()
    (wrong / "cell.json").write_text(dump(evidence()))
    with pytest.raises(InvalidEvidence, match="not about where it lies"):
        here.record()


@pytest.fixture(autouse=True)
def _then(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the day of the samples."""
    monkeypatch.setattr(home, "now", lambda: datetime(2030, 6, 1, tzinfo=UTC))


@pytest.mark.parametrize("says", ["in-tree", "reproduced", "self-reported"])
def test_evidence_of_others_is_self_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    """What lies with a driver of another distribution its author has written, all of it."""
    (tmp_path / "sample.toml").write_text(MANIFEST)
    (tmp_path / "sample.py").write_text("")
    here = Home(tmp_path, "sample")
    path = here.evidence / "sample" / "default" / "cell.json"
    path.parent.mkdir(parents=True)
    path.write_text(dump(evidence(provenance=says)))
    assert [each.provenance for each in here.record().evidence] == ["self-reported"]
    monkeypatch.setattr(Home, "outside", False)
    assert [each.provenance for each in here.record().evidence] == [says]


def test_what_is_yet_to_come_is_no_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a run of the ledger nor a file of evidence is from a day after tomorrow."""
    (tmp_path / "sample.toml").write_text(MANIFEST)
    (tmp_path / "sample.py").write_text("")
    here = Home(tmp_path, "sample")
    path = here.evidence / "sample" / "default" / "cell.json"
    path.parent.mkdir(parents=True)
    path.write_text(dump(evidence()))
    assert here.record().evidence
    monkeypatch.setattr(home, "now", lambda: datetime(2030, 5, 29, tzinfo=UTC))
    with pytest.raises(InvalidEvidence, match=r"cell\.json\.run\.started: 2030-05-31.* to come"):
        here.record()
    path.unlink()
    append_run(here.runs, runs(1)[0])
    with pytest.raises(InvalidEvidence, match=r"runs\.jsonl:1\.started: 2030-05-31.* to come"):
        here.record()


@pytest.mark.parametrize(
    "field, value", [("passed", '"12"'), ("started", '"lately"'), ("voting", "1"), ("job", "NaN")]
)
def test_a_run_has_the_form_of_one(tmp_path: Path, field: str, value: str) -> None:
    """The fields of a line are checked as those of evidence are."""
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(runs(1)[0]._asdict() | {field: "?"}).replace('"?"', value) + "\n")
    with pytest.raises(InvalidEvidence, match=rf"runs\.jsonl:1\.{field}: "):
        load_runs(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(InvalidEvidence, match=r"runs\.jsonl:1: not JSON"):
        load_runs(path)


def test_a_bad_line_of_the_ledger_is_refused(tmp_path: Path) -> None:
    """A line that is no run is an error with its number; no ledger is an empty one."""
    path = tmp_path / "runs.jsonl"
    assert load_runs(path) == []
    append_run(path, runs(1)[0])
    with path.open("a") as file:
        file.write('{"job": "kit"}\n')
    with pytest.raises(InvalidEvidence, match=r"runs\.jsonl:2"):
        load_runs(path)
