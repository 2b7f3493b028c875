"""How much of a driver's own code its suite runs, if coverage.py is installed."""

from __future__ import annotations

import glob
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path


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
