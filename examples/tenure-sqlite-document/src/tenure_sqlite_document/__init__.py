"""A driver for Tenure over one SQLite file: `sqlite-document:///path/of/the/file.db`.

Sessions, queues, tokens and the burial of the dead come from `DocumentDriver`. What is
here can load a document, and save it if nobody else has in between.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TypeVar

from tenure.drivers.base import Runtime, Server, Traits, Url
from tenure.drivers.document import Document, DocumentDriver
from tenure.errors import BackendError, InvalidURL, StorageError, Unavailable

T = TypeVar("T")

_TABLE = """
CREATE TABLE IF NOT EXISTS documents (
    namespace TEXT, kind TEXT, name TEXT, version TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (namespace, kind, name)
) WITHOUT ROWID
"""
_LOAD = "SELECT body, version FROM documents WHERE (namespace, kind, name) = (?, ?, ?)"
_NAMES = "SELECT name FROM documents WHERE (namespace, kind) = (?, ?)"
_INSERT = "INSERT OR IGNORE INTO documents VALUES (?, ?, ?, ?, ?)"
_UPDATE = """
UPDATE documents SET version = ?, body = ?
WHERE (namespace, kind, name, version) = (?, ?, ?, ?)
"""
_DELETE = "DELETE FROM documents WHERE (namespace, kind, name, version) = (?, ?, ?, ?)"


class SqliteDocumentDriver(DocumentDriver):
    """Documents are rows; each call has a connection of its own.

    So there is nothing to lose in a fork, and no thread to which a connection belongs.
    """

    traits = Traits(scope="processes", durable_claims=True, push=False, poll=0.02, server=False)

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        url.check_options(())
        if url.hosts or url.username or not url.path.strip("/"):
            raise InvalidURL("sqlite-document: the URL is sqlite-document:///file, three slashes")

    async def open(self) -> None:
        await self._call(lambda database: database.execute(_TABLE))

    async def close(self) -> None:
        """Nothing is open between two calls."""

    async def server(self) -> Server:
        return Server("sqlite", sqlite3.sqlite_version)

    async def load(self, kind: str, name: str) -> tuple[Document | None, Any]:
        key = (self.namespace, kind, name)
        row = await self._call(lambda database: database.execute(_LOAD, key).fetchone())
        return (None, None) if row is None else (json.loads(row[0]), row[1])

    async def save(self, kind: str, name: str, document: Document | None, version: Any) -> Any:
        key, body = (self.namespace, kind, name), json.dumps(document)
        # A version is never used twice, so one that was read names one state for ever.
        new = self.runtime.unique()
        change: tuple[str, tuple[Any, ...]]
        if version is None:
            change = _INSERT, (*key, new, body)
        elif document is None:
            change = _DELETE, (*key, version)
        else:
            change = _UPDATE, (new, body, *key, version)
        # One statement is one transaction: compared and set at once, or not at all.
        rows = await self._call(lambda database: database.execute(*change).rowcount)
        return new if rows else None

    async def names(self, kind: str) -> Sequence[str]:
        key = (self.namespace, kind)
        rows = await self._call(lambda database: database.execute(_NAMES, key).fetchall())
        return [row[0] for row in rows]

    async def _call(self, use: Callable[[sqlite3.Connection], T]) -> T:
        """Use a connection; on a thread of its own, where that would hold up a loop."""

        def work() -> T:
            path, patience = self.url.path, self.patience
            with closing(sqlite3.connect(path, patience, isolation_level=None)) as database:
                return use(database)

        try:
            return await self.runtime.blocking(work)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> BackendError:
        text = f"{self.url}: {error}"
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Unavailable(text)  # rolled back: certainly not carried out
        if code in _STORAGE:
            return StorageError(text)
        return BackendError(text)


_STORAGE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
