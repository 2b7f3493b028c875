"""The benchmark of Tooz's API runs: its numbers are for an idle machine, not for a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import targets

ROOT = Path(__file__).resolve().parents[2]


def test_the_scenario_runs(tmp_path: Path) -> None:
    """Locks and groups are measured on the file driver, without Tooz, and laid in a table."""
    options = ("--quick", "--no-peers", "--no-pin", "--only", "compat", "--drivers", "file")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, "--output", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "results.json").read_text())["compat"]["results"].values()
    assert [row["name"] for row in found["rows"]] == ["Tenure as Tooz", "Tenure"]
    for row in found["rows"]:
        assert all(row[measure]["us"] > 0 for measure in ("lock", "turn", "census"))
    assert "**Tenure as Tooz**" in (tmp_path / "README.md").read_text()


def test_the_targets_are_judged() -> None:
    """Half the time of Tooz for a lock over a network, and no more for groups, anywhere."""

    def row(lock: float, turn: float | None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": "Tenure as Tooz",
            "lock": {"us": 1.0, "ratio": lock},
            "census": None,
        }
        return found | {"turn": None if turn is None else {"us": 1.0, "ratio": turn}}

    results = {
        "redis": {"rows": [row(0.4, 1.2)]},
        "etcd": {"rows": [row(0.6, None)]},
        "file": {"rows": [row(2.0, 0.9)]},
    }
    judged = {target.what: target.met for target in targets.judge({"compat": results})}
    assert judged == {
        "redis: Tooz's API, acquire and release": True,
        "redis: Tooz's API, join and leave": False,
        "etcd: Tooz's API, acquire and release": False,
        "file: Tooz's API, join and leave": True,
    }
