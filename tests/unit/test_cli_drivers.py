"""`tenure drivers`, `tenure --version` and the rest of the command line's frame."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tenure
from tenure.cli import ExitCode, main

DISTRIBUTION = """
[tenure.drivers]
good = outside_good:GoodDriver
broken = outside_broken:Driver
stranger = outside_good:Stranger
missing = outside_nowhere:Driver
"""


def cli(*arguments: str, path: Path | None = None) -> tuple[int, str, str]:
    """Run the command line; return its exit code, output and errors."""
    paths = [str(path)] if path else []
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    done = subprocess.run(
        [sys.executable, "-m", "tenure", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Have a distribution with drivers, good ones and others, to put into the path."""
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(DISTRIBUTION)
    (tmp_path / "outside_good.py").write_text(
        "from tenure.drivers.memory import MemoryDriver\n"
        "class GoodDriver(MemoryDriver): pass\n"
        "class Stranger: pass\n"
    )
    (tmp_path / "outside_broken.py").write_text("raise RuntimeError('on\\x1bpurpose\\n!')\n")
    return tmp_path


def drivers(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """What `tenure drivers --json` says, by name."""
    code, output, errors = cli("drivers", "--json", path=path)
    assert (code, errors) == (0, "")
    return {each["driver"]: each for each in json.loads(output)}


def test_built_in_drivers() -> None:
    """The built-in drivers are listed once each, with their schemes and traits."""
    found = drivers()
    assert {"etcd", "file", "memory", "postgresql", "redis"} <= set(found)
    assert found["file"]["schemes"] == ["file"]
    assert found["file"]["state"] == "installed"
    assert found["file"]["traits"]["scope"] == "processes"
    assert "rediss" in found["redis"]["schemes"]


def test_table() -> None:
    """The table has a heading and a line for each driver."""
    code, output, errors = cli("drivers")
    assert (code, errors) == (0, "")
    heading, *lines = output.splitlines()
    assert heading.split()[:4] == ["DRIVER", "SCHEMES", "SCOPE", "SHARED"]
    assert len(lines) == len(drivers())
    assert any(line.split()[:3] == ["file", "file", "processes"] for line in lines)


def test_drivers_of_others(outside: Path) -> None:
    """A driver of another distribution is listed; a broken one says why, and is no crash."""
    found = drivers(outside)
    assert found["good"]["state"] == "installed"
    assert found["broken"]["state"] == "broken"
    assert found["broken"]["reason"] == r"RuntimeError: on\x1bpurpose !"
    assert "not a Tenure driver" in found["stranger"]["reason"]
    assert "outside_nowhere" in found["missing"]["reason"]
    assert found["memory"]["state"] == "installed"


def test_client_library_missing(outside: Path) -> None:
    """A driver without its client library says what to install."""
    (outside / "psycopg.py").write_text("raise ImportError('not here', name='psycopg')\n")
    found = drivers(outside)["postgresql"]
    assert found["state"] == "not installed"
    assert found["reason"] == "pip install 'tenure[postgresql]'"
    code, _, errors = cli("lock", "x", "--url", "postgresql://h/d", "--", "true", path=outside)
    assert code == ExitCode.USAGE
    assert "pip install 'tenure[postgresql]'" in errors


def test_output_that_nobody_reads() -> None:
    """A reader that leaves early is no error."""
    script = f"{sys.executable} -m tenure drivers | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_version() -> None:
    """`tenure --version` names the version."""
    assert cli("--version") == (0, f"tenure {tenure.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [[], ["unlock"], ["drivers", "--yaml"], ["drivers", "--", "x"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    """A wrong command line makes one line and the code for usage."""
    code, output, errors = cli(*arguments)
    assert (code, output) == (ExitCode.USAGE, "")
    assert errors.startswith("tenure: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["lock", "--help"], ["drivers", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Help goes to standard output and is no error."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: tenure")
