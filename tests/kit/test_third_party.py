"""A driver of another distribution, installed as a user would, is found and passes the kit.

It is verified with one command, ships what was found, and is judged by that. It is also a second
proof of the document rung, here between processes. Nothing here lifts the policy's gate.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tenure._ungated import UNGATED
from tenure._url import Url
from tenure.drivers import registry
from tenure.policy import evidence, index
from tenure.testing.kit import CASES, table

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tenure-sqlite-document"
SCHEME = "sqlite-document"
INSTALL_SECONDS_MAX = 120.0
KIT_SECONDS_MAX = 900.0
VERIFY_SECONDS_MAX = 600.0
PACKAGE = "tenure_sqlite_document"


def run(*command: str, seconds: float, **environment: str) -> str:
    """Run a command to its end; fail with what it said if it fails."""
    own = {key: value for key, value in os.environ.items() if key != UNGATED}
    done = subprocess.run(
        command,
        env=own | environment,
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
    shutil.copytree(EXAMPLE, folder / "source")
    return install(folder / "source", folder / "target")


def install(source: Path, target: Path) -> Path:
    """Install the example with pip, from its source into a folder."""
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install")
    # Nothing is fetched: the build backend is here already, and so is Tenure.
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    options = (*offline, "--target", str(target), str(source))
    run(sys.executable, *pip, *options, seconds=INSTALL_SECONDS_MAX)
    return target


def paths(*folders: Path) -> str:
    """Where Python looks for modules: in the folders, and for Tenure."""
    return os.pathsep.join(map(str, (*folders, ROOT / "src")))


def memory(folder: Path) -> str:
    """A folder that spares the wait for a disk, if there is one."""
    shared = Path("/dev/shm")
    return str(shared if shared.is_dir() else folder)


def test_the_driver_passes_the_kit(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own tests pass, and every case that its traits allow, with threads and with asyncio."""
    tests = [shutil.copy(path, tmp_path) for path in (EXAMPLE / "tests").glob("test_*.py")]
    results = tmp_path / "results.jsonl"
    run(
        *(sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"),
        *("--rootdir", str(tmp_path), "-c", os.devnull, *map(str, tests)),
        seconds=KIT_SECONDS_MAX,
        PYTHONPATH=paths(installed),
        TENURE_KIT_RESULTS=str(results),
        TMPDIR=memory(tmp_path),
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
        PYTHONPATH=paths(installed),
    )
    (line,) = (line for line in shown.splitlines() if SCHEME in line)
    assert "installed" in line
    assert "not installed" not in line


PROGRAM = """
import tenure
from tenure._url import Url
from tenure.drivers import registry
from tenure.policy import index, standing

url = "sqlite-document://{folder}/locks.db"
try:
    tenure.connect(url)
except tenure.LevelTooLow as error:
    print("refused:", error)
entry = registry.entry(Url.parse(url))
found = standing.of(entry, dict())
print("backends:", *found.backends)
with tenure.connect(url, allow="sqlite-document") as coordinator:
    print("token:", coordinator.lock("a").acquire().token > 0)
"""


def program(folder: Path, *where: Path) -> str:
    """What a program says that connects to the driver, first without allowing it."""
    code = PROGRAM.replace("{folder}", str(folder))
    command = (sys.executable, "-W", "error", "-c", code)
    return run(*command, seconds=INSTALL_SECONDS_MAX, PYTHONPATH=paths(*where))


def test_without_evidence_it_is_refused(installed: Path, tmp_path: Path) -> None:
    """As it comes out of the tree, nothing is known about it; it works if it is allowed."""
    if (
        installed / PACKAGE / "evidence"
    ).exists():  # the tree has some, and this is about a driver that has none
        installed = Path(shutil.copytree(installed, tmp_path / "target"))
        shutil.rmtree(installed / PACKAGE / "evidence")
    said = program(tmp_path, installed)
    assert f"refused: {PACKAGE}: this driver is unverified" in said
    assert "there is no evidence beside its module" in said
    assert "token: True" in said


def test_it_ships_what_one_command_found(installed: Path, tmp_path: Path) -> None:
    """Verified in its checkout and installed anew, it is judged by the evidence in its wheel."""
    source = Path(shutil.copytree(EXAMPLE, tmp_path / "source"))
    folder = source / "src" / PACKAGE / "evidence"
    shutil.rmtree(folder, ignore_errors=True)
    # One profile alone, for it takes minutes to run them all; the test above has run their cases.
    verify = ("verify", PACKAGE, "--profile", "object-lock", "--no-experiments", "--out")
    # Its entry point is known from the installed one, its code is that of the checkout.
    where = paths(source / "src", installed)
    run(
        *(sys.executable, "-m", "tenure", *verify, str(folder)),
        seconds=VERIFY_SECONDS_MAX,
        PYTHONPATH=where,
        TMPDIR=memory(tmp_path),
    )

    target = install(source, tmp_path / "target")
    (file,) = (target / PACKAGE / "evidence" / PACKAGE / "default").glob("*.json")
    assert evidence.load(file).provenance == "self-reported"
    driver = index.read(target / PACKAGE / "evidence" / "index.json")[PACKAGE]
    step = driver["strategies"][0]["steps"][0]
    assert step["profiles"]["object-lock"] == "experimental"
    assert step["profiles"]["lock"] == step["level"] == "unverified"
    assert "is self-reported" in next(
        each["reason"] for each in step["unmet"] if each["requirement"] == "S6"
    )
    said = program(tmp_path, target)
    assert "refused: " in said
    assert "E1: no run has seen acquire_and_release_leave_nothing pass" in said
    assert "backends: sqlite" in said
    assert "token: True" in said


def test_the_guide_shows_the_very_same_code() -> None:
    """The guide's listings are the example's files, but for the future import."""
    guide = (ROOT / "docs" / "guides" / "write-a-driver.md").read_text()
    package = EXAMPLE / "src" / PACKAGE
    for name in ("__init__.py", "testing.py"):
        text = (package / name).read_text()
        text = text.replace("from __future__ import annotations\n\n", "", 1)
        assert f"```python\n{text}```" in guide, name
    for path in (EXAMPLE / "pyproject.toml", package / f"{PACKAGE}.toml"):
        assert f"```toml\n{path.read_text()}```" in guide, path
