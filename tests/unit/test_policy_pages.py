"""The pages that follow from the evidence say what it says, and those in the tree are current."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.policy import MANIFEST, TODAY, evidence, judgement, runs
from tenure.cli import main
from tenure.policy import home, pages
from tenure.policy.badges import badge
from tenure.policy.evidence import Evidence, dump
from tenure.policy.home import Home, append_run, built_in, suite_hash
from tenure.policy.levels import Level
from tenure.policy.pages import BEGIN, END, Unmarked
from tenure.policy.survey import Surveyed, lifts, matrix, survey

ROOT = Path(__file__).parents[2]
WITHDRAWN = """
[[strategies.default.withdrawn]]
characteristic = "FENCED"
on = 2030-05-01
reason = "tokens began anew"
"""


@pytest.fixture(autouse=True)
def _then(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the day of the samples, whose driver is one of Tenure's own."""
    monkeypatch.setattr(home, "now", lambda: datetime(2030, 6, 1, tzinfo=UTC))
    monkeypatch.setattr(home.Home, "outside", False)


def test_the_pages_in_the_tree_are_current() -> None:
    """What is committed is what the manifests and the evidence in the tree make."""
    stale = pages.stale(pages.pages(ROOT, survey(found=built_in())))
    assert not stale, f"scripts/pages makes them anew: {', '.join(map(str, stale))}"


def place(folder: Path, *found: Evidence, manifest: str = MANIFEST, green: int = 1) -> Path:
    """A small project with the sample driver, its page, a front page and this evidence."""
    for name in ("drivers", "guides"):
        (folder / "docs" / name).mkdir(parents=True)
    for page in ("README.md", "docs/drivers/sample.md", "docs/guides/choose-a-backend.md"):
        (folder / page).write_text(f"# By hand\n\n{BEGIN}old\n{END}\nThe end.\n")
    (folder / "sample.toml").write_text(manifest)
    (folder / "sample.py").write_text("")
    here = Home(folder, "sample")
    for each in found:
        each = each._replace(
            source_hash=here.source_hash(here.load()),
            suite_hash=suite_hash(),
            run=each.run._replace(started=f"{TODAY}T00:00:00+00:00"),
        )
        path = here.evidence / "sample" / each.strategy / f"{each.cell.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dump(each))
    for strategy in ("default", "other"):
        for run in runs(green, strategy):
            append_run(here.runs, run)
    return folder


def surveyed(folder: Path) -> list[Surveyed]:
    """How the sample in the folder stands."""
    return survey(found=[Home(folder, "sample")])


def test_a_page_keeps_what_is_written_by_hand(tmp_path: Path) -> None:
    """Only what stands between the marks is made, and making it again changes nothing."""
    root = place(tmp_path, evidence(), evidence("other"))
    made = pages.pages(root, surveyed(root))
    pages.write(made)
    assert not pages.stale(pages.pages(root, surveyed(root)))
    page = (root / "docs/drivers/sample.md").read_text()
    assert page.startswith("# By hand\n")
    assert page.endswith("The end.\n")
    assert "old" not in page
    assert "sample is **technical preview**" in page
    assert "- [S1](../policy/requirements.md), for stable: the last 1 recorded runs" in page
    assert "| object-lock | unsupported: not built |" in page
    assert "With `?lock=other`: experimental" in page


def test_a_page_without_marks_is_an_error(tmp_path: Path) -> None:
    """Where a made part has no place, nothing is written and the page is named."""
    root = place(tmp_path, evidence())
    (root / "README.md").write_text("# By hand\n")
    with pytest.raises(Unmarked, match=r"README\.md"):
        pages.pages(root, surveyed(root))


def test_the_front_page_says_what_would_lift_each(tmp_path: Path) -> None:
    """Each strategy has its level and what is missing for the next one, and nothing beyond."""
    root = place(tmp_path, evidence(coverage_percent=12.0), evidence("other"))
    front = pages.front(surveyed(root))
    assert "| sample | experimental | for technical preview: 12 % of its lines" in front
    assert "S1" not in front.splitlines()[2]
    (each,) = surveyed(root)
    goal, missing = lifts(each.assessment.strategies["default"])
    assert goal is Level.PREVIEW
    assert [unmet.requirement for unmet in missing] == ["P5"]


def test_a_strategy_goes_on_to_stable(tmp_path: Path) -> None:
    """Where a strategy lacks nothing for a preview, which it cannot be, it is told for stable."""
    root = place(tmp_path, evidence(), evidence("other"))
    (each,) = surveyed(root)
    other = each.assessment.strategies["other"]
    assert other.level is Level.EXPERIMENTAL
    goal, missing = lifts(other)
    assert goal is Level.STABLE
    assert [unmet.requirement for unmet in missing] == ["S1"]


def test_the_matrix_counts_what_passed(tmp_path: Path) -> None:
    """A cell tells how many runs of a profile passed, and whether that was all of them."""
    tests = evidence().tests
    spoiled = (tests[0]._replace(outcome="failed"), *tests[1:])
    root = place(tmp_path, evidence(tests=spoiled))
    head, default, other = matrix(surveyed(root))
    row = dict(zip(head, default, strict=True))
    assert row["lock"] == "\N{BALLOT X} 3/4"
    assert row["group"] == "\N{CHECK MARK} 4/4"
    assert row["watch"] == "\N{EN DASH}"
    assert row["backend"] == "sample 7.2.1, client 3.1"
    assert dict(zip(head, other, strict=True))["lock"] == "?"


def test_the_ledger_tells_what_refuted_a_claim(tmp_path: Path) -> None:
    """A refutation is told with its counterexample; a claim that was withdrawn, with the day."""
    text = MANIFEST.replace('claims = ["FENCED"]', "claims = []")
    text = text.replace(
        "[[strategies.default.supports]]", f"{WITHDRAWN.strip()}\n\n[[strategies.default.supports]]"
    )
    refuted = judgement("refuted", counterexample="A had token 7, then B had token 7")
    root = place(tmp_path, evidence(characteristics=(refuted,)), manifest=text)
    page = pages.ledger_page(surveyed(root))
    assert "A had token 7, then B had token 7" in page
    assert "withdrawn on 2030-05-01: tokens began anew" in page
    assert "| `FENCED` | withdrawn, refuted |" in page
    untestable = judgement("untestable", reason="one node")
    root = place(tmp_path / "two", evidence(characteristics=(untestable,)))
    assert "| `FENCED` | one node | sample |" in pages.ledger_page(surveyed(root))


def test_the_guide_sorts_drivers_by_what_was_found(tmp_path: Path) -> None:
    """For each characteristic that was tried, the guide lists whom it holds for, and whom not."""
    other = evidence("other", characteristics=(judgement("refuted"),))
    choice = pages.choice(surveyed(place(tmp_path, evidence(), other)))
    (row,) = (line for line in choice.splitlines() if "FENCED" in line)
    assert row.endswith("(`FENCED`) | sample | sample, other |")
    assert "CAUSAL" not in choice


def test_requirements_are_counted(tmp_path: Path) -> None:
    """For each requirement it is told how many profiles of strategies meet it."""
    page = pages.requirements_page(surveyed(place(tmp_path, evidence(), evidence("other"))))
    rows = {line.split(" | ")[0][2:]: line for line in page.splitlines() if line.startswith("| ")}
    assert rows["P3"].endswith("| 3 of 3 |")
    assert rows["S1"].endswith("| 0 of 3 |")


def test_the_calendar_names_what_is_deprecated(tmp_path: Path) -> None:
    """A deprecated driver stands in the calendar with its dates and what to use instead."""
    text = MANIFEST + (
        '\n[deprecation]\nsince = "1.4"\nsince_date = 2030-05-01\nremove_in = "1.7"\n'
        'reason = "nobody owns it"\nreplacement = "redis"\nmigration = "docs/x.md"\n'
    )
    page = pages.deprecations_page(surveyed(place(tmp_path, manifest=text)))
    assert "| sample | 1.4 (2030-05-01) | 1.7 | redis | nobody owns it |" in page
    assert "No driver is deprecated." in pages.deprecations_page([])


@pytest.mark.parametrize("level", Level)
def test_a_badge_is_a_picture(level: Level) -> None:
    """A badge is well-formed, and says the driver's name and level, whatever the name is."""
    root = ET.fromstring(badge("a<b", level))
    texts = [each.text for each in root.iter() if each.tag.endswith("}text")]
    assert texts == ["a<b", str(level)]


def test_the_matrix_shows_what_is_waived(tmp_path: Path) -> None:
    """A level that was reached by a waiver says so, until the waiver ends."""
    waiver = '\n[[waivers]]\nrequirement = "P5"\nreason = "soon"\nuntil = {}\nspec = "docs/x.rst"\n'
    text = MANIFEST + waiver.format("2030-07-01")
    root = place(tmp_path, evidence(), evidence("other"), manifest=text)
    _, default, other = matrix(surveyed(root))
    assert default[2] == "preview, waived: P5 until 2030-07-01"
    assert other[2] == "experimental"
    (root / "sample.toml").write_text(MANIFEST + waiver.format("2030-05-01"))
    assert matrix(surveyed(root))[1][2] == "preview"


def test_the_command_line_prints_the_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    """`tenure drivers --matrix` prints the matrix of the pages, from what is installed."""
    assert main(["drivers", "--matrix"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = matrix(survey())
    assert len(lines) == len(rows)
    assert lines[0].split()[:3] == ["driver", "backend", "level"]
    for line, row in zip(lines, rows, strict=True):
        assert line.startswith(row[0])
        assert row[2] in line


def test_what_others_have_broken_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evidence or a manifest of another distribution that cannot be read is told under the rest."""
    root = place(tmp_path, evidence())
    (path,) = root.glob("evidence/sample/default/*.json")
    here = Home(root, "sample")
    monkeypatch.setattr(home, "homes", lambda: [*built_in(), here])
    monkeypatch.setattr(Home, "outside", property(lambda self: self.folder == root))
    assert main(["drivers", "--matrix"]) == 0
    assert "sample, other" in capsys.readouterr().out
    path.write_text("{")
    assert main(["drivers", "--matrix"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1].startswith(f"sample: broken: {path}: not JSON")
    assert told[:-1] == [line for line in told if not line.startswith("sample")]
    here.manifest.write_text("x")
    assert main(["drivers", "--matrix"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"sample: broken: {here.manifest}")


def test_the_check_names_what_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`scripts/pages --check` fails for a page that is not current; without it, makes it."""
    root = place(tmp_path, evidence())
    monkeypatch.setattr(pages, "__file__", str(root / "src" / "tenure" / "policy" / "pages.py"))
    monkeypatch.setattr(pages, "survey", lambda found: surveyed(root))
    assert pages.main(["--check"]) == 1
    assert "stale: docs/policy/matrix.md" in capsys.readouterr().err
    assert pages.main([]) == 0
    assert pages.main(["--check"]) == 0
