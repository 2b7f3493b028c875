"""The benchmark harness works: its numbers are for an idle machine, not for a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
_QUICKLY = ("--quick", "--no-peers", "--no-pin")


def bench(folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """Run the command without the peers; what it wrote as JSON, and as a page."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *_QUICKLY, "--output", str(folder), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "results.json").read_text())
    return results, (folder / "README.md").read_text()


def test_every_driver_is_measured_against_its_raw_client(tmp_path: Path) -> None:
    """Tenure and the raw client of each backend appear, in both flavours."""
    results, page = bench(tmp_path, "--only", "uncontended")
    for driver, found in results["uncontended"]["results"].items():
        rows = {(row["kind"], row["flavour"]): row for row in found["rows"]}
        assert not found["missing"], driver
        for flavour in ("sync", "asyncio"):
            assert rows["raw", flavour]["ratio"] == 1.0
            assert rows["tenure", flavour]["us"] > 0
    assert "these are no measurements" in page


def test_the_other_scenarios_run(tmp_path: Path) -> None:
    """Each scenario measures the file driver, and no contestant fails."""
    scenarios = ("imports", "handover", "contention", "queues", "killed", "names")
    results, page = bench(tmp_path, "--drivers", "file", "--only", ",".join(scenarios))
    assert set(results) == set(scenarios)
    for scenario in scenarios[1:]:
        rows = results[scenario]["results"]["file"]["rows"]
        assert rows
        assert not [row for row in rows if row.get("failed") or row.get("failures")]
    assert results["names"]["results"]["file"]["rows"][0]["taken"] == 200
    assert page.count("###") == len(scenarios) + 1


def test_the_scenarios_with_groups_run(tmp_path: Path) -> None:
    """Groups, watchers, elections and rings are measured on the file driver."""
    scenarios = ("groups", "idle", "watching", "elections", "rings")
    results, page = bench(tmp_path, "--drivers", "file", "--only", ",".join(scenarios))
    assert set(results) == set(scenarios)
    for scenario in scenarios[:-1]:
        rows = results[scenario]["results"]["file"]["rows"]
        assert rows
        assert not [row for row in rows if row.get("failed")]
    assert [row["members"] for row in results["groups"]["results"]["file"]["rows"]] == [1, 10]
    assert [row["own"] for row in results["watching"]["results"]["file"]["rows"]] == [False, True]
    assert results["rings"]["results"]["rows"][0]["per_second"] > 0
    assert page.count("###") == len(scenarios) + 1


def test_results_are_merged_between_the_markers(tmp_path: Path) -> None:
    """A part that is measured anew leaves the rest of the page and the other parts alone."""
    begin, end = "<!-- results: begin -->", "<!-- results: end -->"
    (tmp_path / "README.md").write_text(f"above\n{begin}\nold\n{end}\nbelow\n")
    bench(tmp_path, "--drivers", "memory", "--only", "names")
    results, page = bench(tmp_path, "--only", "imports")
    assert set(results) == {"imports", "names"}
    assert page.startswith("above\n")
    assert page.endswith("below\n")
    assert "old" not in page
    assert "Many names" in page


@pytest.mark.parametrize("arguments", [("--only", "nothing"), ("--drivers", "tape")])
def test_a_wrong_argument_is_named(arguments: tuple[str, str]) -> None:
    """What is not known is refused, with what is."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert f"'{arguments[1]}' is none of" in done.stderr
