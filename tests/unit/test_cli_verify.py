"""`tenure verify`: its lines, its progress, its exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenure.cli import ExitCode, main, verify
from tenure.policy import evidence as evidence_
from tenure.policy.evidence import Cell, Check, Evidence, Judgement, Run
from tenure.policy.home import home
from tenure.policy.levels import POLICY, Record, evaluate
from tenure.testing.verify import events, runner

Told = Callable[..., tuple[int, str, str]]

CELL = Cell("debian 12", "3.11.7", "redis", "7.0.15", "standalone", "hiredis", "3.1")
PASSED = evidence_.Test("lock", "a_case", "thread", "passed", 0.1)
FAILED = evidence_.Test("lock", "b_case", "asyncio", "failed", 0.1, "AssertionError (\x1b[31m)")
NOT_RUN = evidence_.Test(
    "lock", "c_case", "thread", "failed", 0.0, "not run: it restarts the server"
)
REFUTED = Judgement("FENCED", "refuted", "x", {}, 1, 2, 0.1, counterexample="token 1 came after 2")  # type: ignore[arg-type]
FOUND = Evidence(
    driver="redis",
    strategy="default",
    entry_point="m:C",
    driver_version="1",
    source_hash="s",
    suite_version="1",
    suite_hash="h",
    cell=CELL,
    run=Run("c", False, "2026-01-01T00:00:00+00:00", 1.0, False),
    tests=(PASSED, FAILED),
    characteristics=(REFUTED,),
    checks={},
)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """Run the command with a runner that tells of one failure of each kind, or of none."""

    def run(
        *arguments: str, terminal: bool = False, failures: tuple[str, ...] = ("b_case",)
    ) -> Any:
        def verify_driver(name: str, strategy: Any, options: Any, hear: events.Hear) -> Any:
            given.append((name, strategy, options))
            found = events.Found(FOUND, Path("x.json"), failures)
            hear(events.Began("redis", "default", CELL, 2, 1))
            hear(events.Tried(1, 3, FAILED, True))
            hear(events.Tried(2, 3, NOT_RUN, False))
            hear(events.Tried(3, 3, PASSED, True))
            hear(events.Judged(REFUTED, True))
            hear(events.Measured({"p99_seconds_1": 0.001}, None))
            hear(events.Checked("E2", Check(True, "it was up")))
            hear(events.Left("verify-1"))
            hear(found)
            manifest = home("tenure.drivers.redis").load()
            assessment = evaluate(manifest, Record((FOUND,)), POLICY, FOUND.started.date())
            hear(events.Standing(assessment, ("default",)))
            return [found]

        monkeypatch.setattr(runner, "verify_driver", verify_driver)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        code = main(["verify", "redis", *arguments])
        return (code, *capsys.readouterr())

    given: list[Any] = []
    run.given = given  # type: ignore[attr-defined]
    return run


def test_lines_to_read(told: Told) -> None:
    """Failures, verdicts, checks, and why it is not stable; nothing that a terminal obeys."""
    code, out, _ = told()
    assert code == ExitCode.UNMET
    lines = out.splitlines()
    assert lines[0] == (
        "redis/default on redis 7.0.15 (standalone), hiredis 3.1, Python 3.11.7, debian 12"
    )
    assert r"  FAILED  b_case (asyncio): AssertionError (\x1b[31m)" in lines
    assert "  c_case (thread): not run: it restarts the server" in lines
    assert "  3 runs of cases, 2 failed" in lines
    assert "  refuted       FENCED (claimed): token 1 came after 2" in lines
    assert "  coverage: not measured" in lines
    assert "  E2 holds: it was up" in lines
    assert "  left behind: verify-1" in lines
    assert "  evidence: x.json" in lines
    assert "redis/default: unverified" in lines
    assert [line for line in lines if line.startswith("  experimental needs E1 (lock): ")]
    assert [line for line in lines if line.startswith("  stable needs S1: ")]
    assert "\r" not in out


def test_progress_on_a_terminal(told: Told) -> None:
    """One line says which case has ended, of how many, and goes when there is more to say."""
    _, out, _ = told(terminal=True)
    assert "\r\x1b[Kcase 1 of 3: b_case (asyncio)\r\x1b[K" in out
    assert "\r\x1b[K  3 runs of cases, 2 failed\n" in out


def test_json_lines(told: Told) -> None:
    """Each event is one object, and the level comes last."""
    code, out, _ = told("--json", terminal=True)
    assert code == ExitCode.UNMET
    lines = [json.loads(line) for line in out.splitlines()]
    names = ["began", "tried", "tried", "tried", "judged", "measured", "checked", "left", "found"]
    assert [line["event"] for line in lines] == [*names, "standing"]
    assert lines[1]["test"]["case"] == "b_case"
    assert lines[1]["number"] == 1
    assert lines[4]["judgement"]["verdict"] == "refuted"
    assert lines[-2] == {
        "event": "found",
        "path": "x.json",
        "cell": CELL._asdict(),
        "failures": ["b_case"],
    }
    assert lines[-1]["level"] == "unverified"
    lock = lines[-1]["strategies"]["default"]["profiles"]["lock"]
    assert lock["unmet"][0]["requirement"] == "E1"
    assert lock["unmet"][0]["level"] == "experimental"


def test_all_that_is_claimed_held(told: Told) -> None:
    """Then the exit code is 0, whatever the level."""
    assert told(failures=())[0] == ExitCode.DONE


def test_options_are_passed_on(told: Told) -> None:
    """What was asked for is what the runner gets."""
    told("--strategy", "redlock", "--profile", "lock", "--jobs", "3", "--no-experiments")
    ((name, strategy, options),) = told.given  # type: ignore[attr-defined]
    assert (name, strategy) == ("redis", "redlock")
    assert (options.profiles, options.jobs, options.experiments) == (["lock"], 3, False)
    assert options.partial


@pytest.mark.parametrize(
    "arguments",
    [
        ("nosuch",),
        ("redis/nosuch",),
        ("nosuch://",),
        ("redis", "--jobs", "0"),
        ("redis", "--profile", "nosuch"),
        ("redis://h", "--strategy", "redlock"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be is told in one line, and nothing is started."""
    try:
        code = main(["verify", *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("tenure: ")


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """It is unreachable, and the password is not told."""
    assert main(["verify", "redis://u:secret@127.0.0.1:1"]) == ExitCode.UNREACHABLE
    assert "secret" not in capsys.readouterr().err


def test_nowhere_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That is told before the work starts."""
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "x")
    assert main(["verify", "memory", "--out", out]) == ExitCode.FAILED
    assert capsys.readouterr().out == ""


def test_a_real_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command to the evidence, for one profile of one driver."""
    arguments = ("--profile", "object-lock", "--no-experiments", "--json", "--out", str(tmp_path))
    assert main(["verify", "memory", *arguments]) == ExitCode.DONE
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["event"] == "began"
    assert sum(line["event"] == "tried" for line in lines) == lines[0]["cases"] > 5
    (path,) = tmp_path.rglob("*.json")
    assert lines[-2]["path"] == str(path)
    assert verify.__doc__
