"""A driver of another distribution, installed as a user would, is found and passes the kit.

It is also a second proof of the document rung, here between processes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tenure._url import Url
from tenure.drivers import registry
from tenure.testing.kit import CASES, table

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tenure-sqlite-document"
SCHEME = "sqlite-document"
INSTALL_SECONDS_MAX = 120.0
KIT_SECONDS_MAX = 900.0


def run(*command: str, seconds: float, **environment: str) -> str:
    """Run a command to its end; fail with what it said if it fails."""
    done = subprocess.run(
        command,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pip has installed the example."""
    folder = tmp_path_factory.mktemp("third-party")
    source, target = folder / "source", folder / "target"
    shutil.copytree(EXAMPLE, source)
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install")
    # Nothing is fetched: the build backend is here already, and so is Tenure.
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    options = (*offline, "--target", str(target), str(source))
    run(sys.executable, *pip, *options, seconds=INSTALL_SECONDS_MAX)
    return target


def test_the_driver_passes_the_kit(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every case that the driver's traits allow passes, with threads and with asyncio."""
    test = shutil.copy(EXAMPLE / "tests" / "test_conformance.py", tmp_path)
    results = tmp_path / "results.jsonl"
    memory = Path("/dev/shm")  # spares the wait for a disk
    run(
        *(sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"),
        *("--rootdir", str(tmp_path), "-c", os.devnull, str(test)),
        seconds=KIT_SECONDS_MAX,
        PYTHONPATH=f"{installed}{os.pathsep}{ROOT / 'src'}",
        TENURE_KIT_RESULTS=str(results),
        TMPDIR=str(memory if memory.is_dir() else tmp_path),
    )
    monkeypatch.syspath_prepend(str(installed))
    traits = registry.find(Url(SCHEME)).traits
    assert traits.scope == "processes"
    assert table.load(results) == {
        (SCHEME, case.name, flavour)
        for case in CASES
        for flavour in case.flavours
        if case.unmet(traits) is None
    }


def test_it_is_listed(installed: Path) -> None:
    """`tenure drivers` shows it as installed, next to the built-in ones."""
    shown = run(
        *(sys.executable, "-m", "tenure", "drivers"),
        seconds=INSTALL_SECONDS_MAX,
        PYTHONPATH=f"{installed}{os.pathsep}{ROOT / 'src'}",
    )
    (line,) = (line for line in shown.splitlines() if SCHEME in line)
    assert "installed" in line
    assert "not installed" not in line


def test_the_guide_shows_the_very_same_code() -> None:
    """The guide's listings are the example's files, but for the future import."""
    guide = (ROOT / "docs" / "guides" / "write-a-driver.md").read_text()
    driver = (EXAMPLE / "src" / "tenure_sqlite_document" / "__init__.py").read_text()
    driver = driver.replace("from __future__ import annotations\n\n", "", 1)
    project = (EXAMPLE / "pyproject.toml").read_text()
    assert f"```python\n{driver}```" in guide
    assert f"```toml\n{project}```" in guide
