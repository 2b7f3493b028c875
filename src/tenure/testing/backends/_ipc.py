"""The ipc driver's backend."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from ._base import Backend


class IpcBackend(Backend):
    """Semaphores of this machine, and a folder in its memory."""

    name = "ipc"
    scheme = "ipc"
    _name = ""

    def start(self) -> None:
        self._name = f"kit-{os.urandom(6).hex()}"

    def stop(self) -> None:
        from ...drivers.ipc import own_folder

        shutil.rmtree(Path(own_folder(os.geteuid()), self._name), ignore_errors=True)

    @property
    def url(self) -> str:
        return f"ipc://{self._name}"

    def footprint(self, namespace: str) -> int:
        from ...drivers._ipc_sets import in_use
        from ...drivers.ipc import own_folder

        folder = Path(own_folder(os.geteuid()), self._name, namespace)
        rosters = (folder / "rosters").glob("*.json")
        return in_use(str(folder)) + sum(map(self._claims, rosters))

    @staticmethod
    def _claims(roster: Path) -> int:
        lines = roster.read_text().splitlines()
        return len(json.loads(lines[1])["claims"]) if lines else 0
