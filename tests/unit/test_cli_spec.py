"""`tenure spec new` and `tenure spec check`: what they print, and what they end with."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tenure.cli import ExitCode, main, spec
from tenure.policy import specs

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "specs"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have an empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_new_writes_where_check_looks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new spec is put into docs/specs, and a check without files finds it there."""
    assert main(["spec", "new", "my-change"]) == ExitCode.DONE
    assert capsys.readouterr().out == "docs/specs/my-change.rst\n"
    assert main(["spec", "check"]) == spec.VIOLATED
    out, err = capsys.readouterr()
    assert all(
        re.match(r"docs/specs/my-change\.rst:\d+: [a-z-]+: .", line)
        for line in out.split("\n")[:-1]
    )
    assert "driver-impact" in out
    assert re.search(r"1 spec checked, \d+ violations in 1\n", err)


def test_new_writes_elsewhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--out names the file or the folder, and what is there is not overwritten."""
    assert main(["spec", "new", "mine", "--out", "mine.rst"]) == ExitCode.DONE
    assert (folder / "mine.rst").read_text().startswith("..\n This work is licensed")
    assert main(["spec", "new", "mine", "--out", "."]) == ExitCode.USAGE
    assert "exists already" in capsys.readouterr().err


def test_check_of_a_good_spec(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing found is nothing on standard output, and 0."""
    assert main(["spec", "check", str(FIXTURES / "good.rst")]) == ExitCode.DONE
    assert capsys.readouterr() == ("", "tenure: 1 spec checked, nothing found\n")


def test_check_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json there is one object with the files and each violation's parts."""
    files = [str(FIXTURES / "good.rst"), str(FIXTURES / "image.rst")]
    assert main(["spec", "check", "--json", *files]) == spec.VIOLATED
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert found["files"] == files
    assert found["unchecked"] == {}
    ((violation),) = found["violations"]
    assert violation["file"] == files[1]
    assert violation["rule"] == "image"
    assert ".. image::" in Path(files[1]).read_text().splitlines()[violation["line"] - 1]
    assert violation["message"].startswith("draw 'clients.png'")


def test_check_outside_a_checkout(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be looked for outside a checkout is said on standard error."""
    text = (FIXTURES / "good.rst").read_text()
    Path("good.rst").write_text(text.replace("``tests/unit/test_specs.py``", "S3"))
    assert main(["spec", "check", "good.rst"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert out == ""
    assert "good.rst is in no checkout: whether there is docs/guides/write-a-spec.md, " in err
    assert "was not checked" in err


def test_what_a_terminal_would_obey(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A spec's own text cannot control the terminal."""
    text = (FIXTURES / "good.rst").read_text()
    Path("good.rst").write_text(text.replace("specs/good", "specs/g\x1b[2J"))
    assert main(["spec", "check", "good.rst"]) == spec.VIOLATED
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert r"\x1b" in out


@pytest.mark.parametrize(
    "arguments", [[], ["mend"], ["new"], ["new", "Mine"], ["check", "nothing.rst"], ["check"]]
)
def test_wrong_usage(
    folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong command line makes one line and the code for usage."""
    try:
        code = main(["spec", *arguments])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tenure: ")
    assert err.count("\n") == 1


def test_without_docutils(folder: Path) -> None:
    """Where docutils is not installed, all else works, and check says what to install."""
    (folder / "docutils.py").write_text("raise ModuleNotFoundError(name='docutils')\n")
    done = subprocess.run(
        [sys.executable, "-m", "tenure", "spec", "check", str(FIXTURES / "good.rst")],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert "pip install 'tenure[specs]'" in done.stderr


def test_the_reference_has_every_option() -> None:
    """The reference's table has the options of both actions, and its exit codes are real."""
    actions = argparse.ArgumentParser().add_subparsers()
    spec.add_to(actions)
    (parser,) = actions.choices.values()
    nested = next(each for each in parser._actions if isinstance(each.choices, dict))
    assert isinstance(nested.choices, dict)
    real = {
        (name, option)
        for name, each in nested.choices.items()
        for action in each._actions
        for option in action.option_strings
        if option not in ("-h", "--help")
    }
    text = (ROOT / "docs/reference/cli.md").read_text()
    section = text.partition("## tenure spec\n")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    listed = {
        (row[1].split()[0].strip("`"), option)
        for row in rows
        for option in re.findall(r"`(--[a-z]+)", row[2])
    }
    assert listed == real
    assert f"ends with {spec.VIOLATED} " in section


def test_rules_have_names_that_a_line_can_carry() -> None:
    """A rule's name has no space and no colon, so that a violation can be taken apart."""
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", rule) for rule in specs.RULES)
