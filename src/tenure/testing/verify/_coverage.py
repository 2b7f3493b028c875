"""How much of a driver's own code its suite runs, if coverage.py is installed."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

UNIT_TESTS_SECONDS_MAX = 900.0


class Coverage:
    """What the workers measure; without coverage.py there is nothing, and `percent` is None."""

    def __init__(self, sources: Sequence[Path]) -> None:
        self.sources = sources
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0
        if importlib.util.find_spec("coverage") is not None:
            self._folder = tempfile.TemporaryDirectory(prefix="tenure-coverage-")

    def file(self) -> str:
        """Where one worker writes to, as a prefix; empty if nothing is measured."""
        if self._folder is None:
            return ""
        self._files += 1
        return f"{self._folder.name}/data-{self._files}"

    def unit_tests(self, root: Path, names: Sequence[str]) -> None:
        """Run the driver's unit tests, for the lines that they run, whether they pass or not.

        Where they or pytest are not at hand, as with an installed package, nothing happens.
        """
        paths = [name for name in names if (root / name).exists()]
        if self._folder is None or not paths or importlib.util.find_spec("pytest") is None:
            return
        included = ",".join(map(str, self.sources))
        command = [sys.executable, "-m", "coverage", "run", "--rcfile", os.devnull]
        command += ["--data-file", self.file(), "--include", included]
        pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [*command, *pytest],
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=UNIT_TESTS_SECONDS_MAX,
                check=False,
            )

    def percent(self) -> float | None:
        """How many of 100 lines were run by any of the workers."""
        if self._folder is None:
            return None
        import coverage

        found = glob.glob(f"{glob.escape(self._folder.name)}/data-*")
        if not found:
            return None
        measured = coverage.Coverage(data_file=f"{self._folder.name}/all", config_file=False)
        measured.combine(found)
        lines = missing = 0
        for path in self.sources:
            _, statements, _, unrun, _ = measured.analysis2(str(path))
            lines += len(statements)
            missing += len(unrun)
        return round(100 * (lines - missing) / lines, 1) if lines else None

    def close(self) -> None:
        """Remove what was measured."""
        if self._folder is not None:
            self._folder.cleanup()
