"""How a backend of this driver is brought up, for Tenure's suite."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from contextlib import closing

from tenure.testing.backends import Backend


class SqliteDocumentBackend(Backend):
    """A file in a folder of its own."""

    name = "sqlite-document"
    scheme = "sqlite-document"

    def start(self) -> None:
        self._folder = tempfile.mkdtemp()

    def stop(self) -> None:
        shutil.rmtree(self._folder)

    @property
    def url(self) -> str:
        return f"sqlite-document://{self._folder}/locks.db"

    def footprint(self, namespace: str) -> int:
        """How many claims the file holds for a namespace."""
        query = "SELECT body FROM documents WHERE (namespace, kind) = (?, 'roster')"
        with closing(sqlite3.connect(f"{self._folder}/locks.db")) as database:
            return sum(
                len(json.loads(body)["claims"]) for (body,) in database.execute(query, (namespace,))
            )
