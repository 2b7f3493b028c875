"""What the checker of specs finds, and that the project's own specs give it nothing to find."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenure.drivers import registry
from tenure.errors import InvalidArgument, StorageError
from tenure.policy import _spec_facts as facts
from tenure.policy import specs
from tenure.policy._spec_form import NEVER_NONE
from tenure.policy._spec_page import parse
from tenure.testing.kit import CASES

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "specs"
GOOD = FIXTURES / "good.rst"
BROKEN = sorted(set(FIXTURES.glob("*.rst")) - {GOOD})
OWN = sorted((ROOT / "docs" / "specs").glob("*.rst"))


def checked(folder: Path, change: Callable[[str], str], root: Path | None = ROOT) -> specs.Report:
    """Check the good spec after a change to it."""
    file = folder / "good.rst"
    text = change(GOOD.read_text())
    assert text != GOOD.read_text(), "the change changes nothing"
    file.write_text(text)
    return specs.check([file], root)


def rules(report: specs.Report) -> list[str]:
    """The rules that were broken, in the order of lines."""
    return [each.rule for each in report.violations]


@pytest.mark.parametrize("file", OWN, ids=lambda file: file.stem)
def test_the_projects_own_specs_break_no_rule(file: Path) -> None:
    """Each spec in docs/specs keeps to every rule."""
    assert "\n".join(map(str, specs.check([file]).violations)) == ""


def test_there_are_specs() -> None:
    """The folder of the project's specs is where the checker looks for them."""
    assert len(OWN) >= 6
    assert OWN[0].parent == ROOT / specs.FOLDER


def test_the_good_spec_breaks_no_rule() -> None:
    """What the broken specs were made from is not broken itself."""
    report = specs.check([GOOD])
    assert (report.violations, report.unchecked) == ([], {})


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_a_broken_spec_breaks_its_rule_and_no_other(file: Path) -> None:
    """Each broken spec is found out once, by the rule that it is named after."""
    assert rules(specs.check([file])) == [file.stem.partition("--")[0]]


def test_each_rule_has_a_spec_that_breaks_it() -> None:
    """No rule is without a broken spec, and no broken spec without a rule."""
    assert {file.stem.partition("--")[0] for file in BROKEN} == set(specs.RULES)


@pytest.mark.parametrize(
    "old, new, line",
    [
        ("Security impact\n---", "Safety impact\n---", "Safety impact"),
        ("* Write them.", "* Write *them.", "* Write *them."),
        ("write-a-spec.md", "write-no-spec.md", "The guide, ``docs/guides/write-no-spec.md``."),
        ("None\n\nAPI impact", "\n\nAPI impact", "Data model impact"),
        ("``mysql``, ", "", "Driver impact"),
    ],
)
def test_a_violation_names_its_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    """A violation tells the file, and the line on which the writer has to look."""
    (found,) = checked(tmp_path, lambda text: text.replace(old, new)).violations
    assert (tmp_path / "good.rst").read_text().splitlines()[found.line - 1] == line
    assert str(found).startswith(f"{tmp_path / 'good.rst'}:{found.line}: {found.rule}: ")


def test_a_spec_without_a_title(tmp_path: Path) -> None:
    """Without a title over the sections that is what is missing, and nothing is raised."""
    title = "=========================\nA spec with nothing wrong\n=========================\n"
    report = checked(tmp_path, lambda text: text.replace(title, ""))
    assert "a title over all sections is missing" in report.violations[0].message


@pytest.mark.parametrize("text", ["", "\n", "x", "=\nx\n=\n", "..", "*", "\x00", "::\n\n  x"])
def test_anything_can_be_checked(tmp_path: Path, text: str) -> None:
    """A text that is no spec at all breaks rules, and never the checker."""
    assert {"section-missing", "template"} <= set(rules(checked(tmp_path, lambda _: text)))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A file in another encoding is told as such."""
    file = tmp_path / "good.rst"
    file.write_bytes(GOOD.read_bytes() + b"\xff")
    assert rules(specs.check([file])) == ["docutils"]


@pytest.mark.parametrize(
    "directive",
    [
        ".. include:: secret.txt",
        ".. raw:: html\n   :file: secret.txt",
        ".. raw:: html\n\n   <img src='clients.png'>",
    ],
)
def test_a_spec_is_text_and_reads_no_file(tmp_path: Path, directive: str) -> None:
    """A spec has no files of the checker's machine put into it, and no HTML."""
    (tmp_path / "secret.txt").write_text("secret")
    report = checked(tmp_path, lambda text: text.replace("* Write them.", directive))
    assert set(rules(report)) == {"docutils", "empty"}


def test_a_section_in_another_one(tmp_path: Path) -> None:
    """A section of the template at another level is out of order."""
    report = checked(
        tmp_path,
        lambda text: text.replace("Alternatives\n------------", "Alternatives\n" + "=" * 12),
    )
    assert report.violations[0].rule == "section-order"
    assert report.violations[0].message == "'Alternatives' belongs within 'Proposed change'"


@pytest.mark.parametrize(
    "named",
    [
        "``acquire_and_release_leave_nothing``",
        "S3",
        "FENCED",
        "``tests/unit/test_specs.py::test_there_are_specs``",
    ],
)
def test_what_testing_may_name(tmp_path: Path, named: str) -> None:
    """A case of the kit, a requirement, a characteristic or one test is enough."""
    report = checked(tmp_path, lambda text: text.replace("``tests/unit/test_specs.py``", named))
    assert report.violations == []


def test_a_test_that_its_file_has_not(tmp_path: Path) -> None:
    """The name of a test behind a file must be one in it."""
    named = "``tests/unit/test_specs.py::test_nothing``"
    report = checked(tmp_path, lambda text: text.replace("``tests/unit/test_specs.py``", named))
    assert rules(report) == ["testing", "reference"]


def test_outside_a_checkout(tmp_path: Path) -> None:
    """Where there is no tree, its files are listed as unchecked, and all else is checked."""
    report = checked(tmp_path, lambda text: text.replace("None\n\nAPI", "\n\nAPI"), None)
    assert rules(report) == ["empty"]
    (paths,) = report.unchecked.values()
    assert paths == [
        "docs/guides/write-a-spec.md",
        "src/tenure/policy/spec-template.rst",
        "tests/unit/test_specs.py",
    ]


@pytest.mark.parametrize("path", ["tests/unit/test_*.py", "docs/specs/"])
def test_several_files_at_once(tmp_path: Path, path: str) -> None:
    """A pattern must match something, and a folder must be there."""
    old = "``src/tenure/policy/spec-template.rst``"
    assert rules(checked(tmp_path, lambda text: text.replace(old, f"``{path}``"))) == []
    wrong = path.replace("t", "q")
    wrong = "tests/" + wrong.partition("/")[2]
    report = checked(tmp_path, lambda text: text.replace(old, f"``{wrong}``"))
    assert rules(report) == ["reference"]


@pytest.mark.parametrize(
    "path, says",
    [
        ("src/**.py", "is no path: Invalid pattern"),
        (f"src/{'a' * 300}/x", "is no path: File name too long"),
        (f"src/*/{'a' * 300}", "a"),
        ("docs/../../../etc/passwd", "leads up"),
        ("docs/specs/../specs/", "leads up"),
    ],
)
def test_paths_that_none_can_have(tmp_path: Path, path: str, says: str) -> None:
    """What is no path, or leads out of the repository, breaks the rule and nothing else."""
    old = "``src/tenure/policy/spec-template.rst``"
    report = checked(tmp_path, lambda text: text.replace(old, f"``{path}``"))
    assert "reference" in rules(report)
    assert set(rules(report)) <= {"reference", "line-length"}
    assert says in next(each.message for each in report.violations if each.rule == "reference")


def test_links_that_lead_to_no_path(tmp_path: Path) -> None:
    """A link whose target no file can have leads nowhere."""
    link = f"Write them.\n\nSee `it <{'a' * 300}>`_."
    report = checked(tmp_path, lambda text: text.replace("Write them.", link))
    assert "reference" in rules(report)


def test_a_url_that_cannot_be_taken_apart(tmp_path: Path) -> None:
    """It is a violation, as every other URL that is none."""
    report = checked(tmp_path, lambda text: text.replace(":url: https://", ":url: https://[bad/"))
    assert rules(report) == ["file-name"]
    assert "is no URL: Invalid IPv6 URL" in report.violations[0].message


def test_tabs_in_a_literal_block(tmp_path: Path) -> None:
    """Literal blocks may be wide, also where docutils has made spaces of their tabs."""
    block = f"Write them::\n\n      a\tb{'x' * 90}\n"
    assert rules(checked(tmp_path, lambda text: text.replace("Write them.", block))) == []
    wide = f"Write {chr(9).join('abcdefghijkl')}"
    report = checked(tmp_path, lambda text: text.replace("Write them.", wide))
    assert rules(report) == ["line-length"]


@pytest.mark.parametrize("text", ["redis://h/0", "and/or", "WAIT", "a::b", "/etc/passwd", "x.py"])
def test_literals_that_are_no_files(tmp_path: Path, text: str) -> None:
    """Only what begins with a folder of the repository is taken for a file of it."""
    old = "``src/tenure/policy/spec-template.rst``"
    assert rules(checked(tmp_path, lambda page: page.replace(old, f"``{text}``"))) == []


def test_columns_are_counted_as_they_are_seen(tmp_path: Path) -> None:
    """Wide characters take two columns, and combining ones none."""
    old = "Write them."
    assert rules(checked(tmp_path, lambda text: text.replace(old, "n\u0303" * 77))) == []
    report = checked(tmp_path, lambda text: text.replace(old, "\u6f22" * 39))
    assert rules(report) == ["line-length"]


def test_the_cases_of_the_kit_are_found_without_importing_it() -> None:
    """What the checker takes for a case of the kit is what the kit has registered."""
    assert facts.kit_cases() == {case.name for case in CASES}


def test_the_drivers_are_those_that_have_a_page() -> None:
    """A driver is called in a spec as its page is."""
    assert set(facts.drivers()) == {page.stem for page in (ROOT / "docs/drivers").glob("*.md")}
    assert len(facts.drivers()) == len({each.module for each in registry.BUILT_IN.values()})


def test_the_template_has_the_sections_that_the_rules_name() -> None:
    """No rule looks for a section that the template has not."""
    titles = [each.title for each in parse(Path("x"), specs.template()).sections]
    assert {*NEVER_NONE, facts.DRIVERS, facts.TESTS} <= set(titles)
    assert len(titles) == len(set(titles))


def test_the_template_is_right_but_for_its_guidance() -> None:
    """A new spec breaks no rule that is not about what its writer has still to write."""
    text = specs.template()
    page = parse(Path("example.rst"), text)
    assert page.messages == []
    assert max(map(len, text.splitlines())) <= 79


def test_a_new_spec_is_not_yet_one(tmp_path: Path) -> None:
    """A new spec is named after its URL, and lacks what only its writer knows."""
    file = specs.new("redis-redlock", tmp_path)
    assert file == tmp_path / "redis-redlock.rst"
    report = specs.check([file])
    assert set(rules(report)) == {"template-text", "driver-impact"}
    guided = {each.line for each in report.violations}
    assert len(guided) > 50


@pytest.mark.parametrize("name", ["", "Redis", "a--b", "-a", "a.rst", "../a", "a/b", "a\n", "é"])
def test_names_that_no_spec_can_have(tmp_path: Path, name: str) -> None:
    """A name that would not do in a URL, or leads elsewhere, is refused."""
    with pytest.raises(InvalidArgument, match="is no name for a spec"):
        specs.new(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_spec_is_never_overwritten(tmp_path: Path) -> None:
    """What is there already stays as it is."""
    file = specs.new("mine", tmp_path / "deep" / "mine.rst")
    file.write_text("mine")
    with pytest.raises(InvalidArgument, match="exists already"):
        specs.new("mine", file)
    assert file.read_text() == "mine"
    with pytest.raises(InvalidArgument, match=r"must be called other\.rst"):
        specs.new("other", file)


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A file in the way of a folder is an error of storage, with the file's name."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"mine\.rst cannot be written"):
        specs.new("mine", tmp_path / "file" / "mine.rst")


def test_files_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking nothing is an error, and not a success."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument, match=r"no file 'nothing\.rst'"):
        specs.check(["nothing.rst"])
    with pytest.raises(InvalidArgument, match="no spec in docs/specs"):
        specs.check()
    with pytest.raises(InvalidArgument, match="no spec in "):
        specs.check([tmp_path])


def test_without_docutils(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without docutils checking says what to install, and writing a spec works."""
    real = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "docutils":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    for name in [each for each in sys.modules if each.startswith("tenure.policy._spec_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", lacking)
    file = specs.new("mine", tmp_path)
    with pytest.raises(specs.DocutilsMissing, match=r"pip install 'tenure\[specs\]'"):
        specs.check([file])


def test_the_guide_has_every_rule() -> None:
    """The guide's table of rules has those that there are, and no others."""
    text = (ROOT / "docs/guides/write-a-spec.md").read_text()
    table = text.partition("| rule |")[2].partition("\n\n")[0]
    listed = [line.split("|")[1].strip().strip("`") for line in table.splitlines()[2:]]
    assert listed == sorted(specs.RULES)
