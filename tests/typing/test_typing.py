"""The typed public API: what mypy must understand, and the mistakes that it must find."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def mypy(path: Path, cache: Path) -> dict[int, set[str]]:
    """The error codes that mypy reports in a file, by line."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        "",
        "--hide-error-context",
    ]
    command += [
        "--no-pretty",
        "--show-error-codes",
        "--warn-unreachable",
        "--cache-dir",
        str(cache),
    ]
    command += ["--enable-error-code", "unused-awaitable", str(path)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=cache,
        env={"MYPYPATH": str(ROOT / "src"), "PATH": ""},
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[int, set[str]] = {}
    for line in done.stdout.splitlines():
        match = re.fullmatch(r"(.*?):(\d+): error: .*\[([a-z-]+)\]", line)
        if match:
            assert Path(match[1]).name == path.name, f"an error in the library itself: {line}"
            found.setdefault(int(match[2]), set()).add(match[3])
    return found


def test_the_api_is_understood(tmp_path: Path) -> None:
    """mypy in strict mode infers what each call of the public API returns."""
    assert mypy(HERE / "accepted.py", tmp_path) == {}


def test_mistakes_are_found(tmp_path: Path) -> None:
    """mypy in strict mode finds each of the listed mistakes, and no other."""
    # Kept as text, or checking the whole repository would report these very mistakes.
    source = (HERE / "refused.txt").read_text(encoding="utf-8")
    path = tmp_path / "refused.py"
    path.write_text(source, encoding="utf-8")
    expected = {}
    for number, line in enumerate(source.splitlines(), 1):
        _, marker, codes = line.partition("# error: ")
        if marker:
            expected[number] = set(codes.split(","))
    assert mypy(path, tmp_path) == expected
