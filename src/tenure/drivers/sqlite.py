"""Coordination between the processes of one machine over a SQLite file: `sqlite:///path/locks.db`.

The file may be the application's own database: there are three tables, whose names begin with
`tenure_`. A file that is new is set to a write-ahead log, of which a crash of the
machine may undo the last statements. No session outlives that, and neither may tokens fall:
each version of a row names the run of the machine that has written it, and the first to load a
roster in a later one goes on from the clock's microseconds. Records are forced to the disk.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from .._model import Finding, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import InvalidURL, Unavailable
from ..wires.sqlite import BOOT, SqliteMaker
from ._file_mounts import kind_of
from ._sql_documents import SqlDocuments
from ._sql_text import SQLITE
from .document import Document

_TABLES = "SELECT name FROM sqlite_master LIMIT 1"
_FORCED = "PRAGMA synchronous=FULL"
_QUICK = "PRAGMA synchronous=NORMAL"


class SqliteDriver(SqlDocuments):
    """The document rung over two tables of one file, through the standard library."""

    traits = Traits(
        scope="processes",
        shared=True,
        durable_claims=True,
        push=False,
        poll=0.05,
        server=False,
    )

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        url.check_options(())
        self.path = os.path.normpath(url.path)
        if url.hosts or url.username is not None or url.password is not None:
            raise InvalidURL("sqlite: the URL is sqlite:///path/of/the/file.db, with three slashes")
        if not url.path.strip("/") or url.path.endswith(":memory:"):
            raise InvalidURL(
                "sqlite: a database in memory excludes nobody else; name a file, as in "
                "sqlite:///path/of/the/file.db, or use memory:// for the threads of one process"
            )
        if url.path.endswith("/"):
            raise InvalidURL("sqlite: the URL names a file, not a folder")
        self._boot = BOOT[:8]
        self._logged = False
        maker = self._maker = SqliteMaker(f"sqlite: {self.path}", self.path, runtime.now)
        # SQLite lets one in at a time; a second connection would wait by sleeping.
        self.connected(maker, SQLITE, "?", 1)
        self._mine = f"{self._boot}.{self._mine}"

    def shown_url(self) -> str:
        return f"sqlite://{self.path}"

    async def open(self) -> None:
        await super().open()
        ((mode,),) = await self.rows("PRAGMA journal_mode")
        self._logged = mode == "wal"

    async def server(self) -> Server:
        """The SQLite library; the type of the file system, and how the file keeps a journal."""
        kind = await self.runtime.blocking(lambda: kind_of(self.path))
        journal = "write-ahead log" if self._logged else "rollback journal"
        return self._maker.server(f"{kind}, {journal}" if kind else journal)

    async def before_tables(self) -> None:
        if not await self.rows(_TABLES):
            with contextlib.suppress(Unavailable):  # somebody else does it at this moment
                await self.rows("PRAGMA journal_mode=WAL")
                await self.change(_QUICK)

    async def load(self, kind: str, name: str) -> tuple[Document | None, Any]:
        document, version = await super().load(kind, name)
        if kind == "roster" and not (version and version.startswith(self._boot)):
            # What was written last before the machine went down may be lost.
            document = document or {"token": 0, "claims": []}
            token = max(document["token"], int(self.runtime.wall() * 1e6))
            document = {**document, "token": token}
        return document, version

    async def save(self, kind: str, name: str, document: Document | None, version: Any) -> Any:
        if kind != "record" or not self._logged:
            return await super().save(kind, name, document, version)
        await self.change(_FORCED)
        try:
            return await super().save(kind, name, document, version)
        finally:
            await self.change(_QUICK)

    async def examine(self) -> Sequence[Finding]:
        # Imported by whoever asks: few do.
        from ._sql_examine import examine_sqlite

        return await examine_sqlite(self, self.path)
