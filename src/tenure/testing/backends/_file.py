"""The file driver's backend."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from ._base import Backend


class FileBackend(Backend):
    """A folder of files."""

    name = "file"
    scheme = "file"
    _folder = ""

    def start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="tenure-kit-")

    def stop(self) -> None:
        shutil.rmtree(self._folder)

    @property
    def url(self) -> str:
        return f"file://{self._folder}"

    def footprint(self, namespace: str) -> int:
        with os.scandir(os.path.join(self._folder, namespace)) as files:
            inodes = {str(file.inode()) for file in files}
        with open("/proc/locks", encoding="ascii") as table:
            locks = [line.split() for line in table if "FLOCK" in line]
        held = sum(word.rpartition(":")[2] in inodes for words in locks for word in words)
        rosters = Path(self._folder, namespace, "rosters").glob("*.json")
        return held + sum(map(self._claims, rosters))

    @staticmethod
    def _claims(roster: Path) -> int:
        lines = roster.read_text().splitlines()
        return len(json.loads(lines[1])["claims"]) if lines else 0
