"""Rosters and records of the MySQL driver: documents in a table, saved by compare-and-set.

A session's claims live as long as its main connection, which has a user lock of its own:
what asks for that lock knows. Whoever enters a claim does so on that connection, so a
statement that is carried out at all is one of a session that lives.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from typing import Any

from ..errors import (
    AuthenticationFailed,
    InvalidURL,
    ProtocolError,
    SessionLost,
    TenureError,
    Unavailable,
)
from ..wires._mysql_errors import DUPLICATE_KEY, NO_SUCH_TABLE, Refused
from ..wires._mysql_packets import Reply
from ..wires.mysql import Link, literal
from ._mysql_locks import UserSession, digest, session_lock
from ._mysql_notes import text_of
from ._serversessions import SessionDriver
from .document import Document, DocumentDriver

logger = logging.getLogger("tenure")

TABLES = ("tenure_document", "tenure_connection", "tenure_name")

_LIKE = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
_DOCUMENT = f"""CREATE TABLE IF NOT EXISTS tenure_document (
    place CHAR(32) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
    namespace TEXT NOT NULL, kind VARCHAR(16) NOT NULL, name TEXT NOT NULL,
    version VARCHAR(64) NOT NULL, claims INT UNSIGNED NOT NULL, body LONGTEXT NOT NULL,
    KEY (kind, namespace(64))) {_LIKE}"""
_CONNECTION = f"""CREATE TABLE IF NOT EXISTS tenure_connection (
    number BIGINT UNSIGNED PRIMARY KEY, token BIGINT UNSIGNED NOT NULL,
    alive VARCHAR(64) NOT NULL, owner TEXT NOT NULL) {_LIKE}"""
_NAME = f"""CREATE TABLE IF NOT EXISTS tenure_name (
    place VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
    name TEXT NOT NULL, seen TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) {_LIKE}"""
DEFINITIONS = tuple(" ".join(each.split()) for each in (_DOCUMENT, _CONNECTION, _NAME))
GRANT = f"GRANT SELECT, INSERT, UPDATE, DELETE ON {{}} TO this user, for {', '.join(TABLES)}"

_ASKED_AT_ONCE = 500
_DEADLOCKS = 20
_CACHED = 256


class TableDocuments(SessionDriver[UserSession, Link], DocumentDriver):
    """The document rung over a table, on whatever connections the driver has."""

    database: str

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._read: dict[str, tuple[Document, str]] = {}
        """Of each document read last: what it was, and its version."""

    def _place(self, kind: str, name: str) -> str:
        return digest(kind, self.namespace, name)

    async def load(self, kind: str, name: str) -> tuple[Document | None, Any]:
        place = self._place(kind, name)
        known = self._read.get(place)
        # What was read before need not be sent again if it is the same still.
        old = b"''" if known is None else literal(known[1])
        question = b"SELECT version, IF(version = %b, NULL, body) FROM tenure_document " % old
        rows = (await self.ask(question + b"WHERE place = '%b'" % place.encode())).rows
        if not rows:
            self._read.pop(place, None)
            return None, None
        version, body = rows[0]
        if version is None:
            raise ProtocolError("mysql: a document without a version")
        if body is None and known is not None and known[1] == version.decode():
            return known
        try:
            document = json.loads(body or b"")
        except ValueError as error:
            raise ProtocolError(f"mysql: the document of {name!r} is no JSON: {error}") from error
        self._remember(place, document, version.decode())
        return document, version.decode()

    async def save(self, kind: str, name: str, document: Document | None, version: Any) -> Any:
        return await self._put(await self.questions(), kind, name, document, version)

    async def save_for(self, session: str, roster: str, document: Document, version: Any) -> Any:
        if self.session is None or self.session.id != session:
            # Of another client's: seen to live at some moment before it is saved.
            if session not in await self.living([session]):
                raise SessionLost("mysql: the session is over")
            return await self.save("roster", roster, document, version)
        current = self.current(session)
        try:
            return await self._put(current.main, "roster", roster, document, version)
        except TenureError as error:
            current.check(error)
            raise

    async def _put(
        self, link: Link, kind: str, name: str, document: Document | None, version: Any
    ) -> str | None:
        """Save it if the version is still that; a version is a name that is used once."""
        place = self._place(kind, name)
        new = self.runtime.unique()
        where = b"WHERE place = '%b'" % place.encode()
        if version is not None:
            where += b" AND version = %b" % literal(version)
        if document is None:
            if version is None:
                raise ProtocolError("mysql: nothing cannot be deleted")
            statement = b"DELETE FROM tenure_document " + where
        else:
            body = literal(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
            claims = len(document.get("claims", ()))
            if version is None:
                fields = (self.namespace, kind, name, new)
                statement = b"INSERT INTO tenure_document VALUES ('%b', %b, %d, %b)" % (
                    place.encode(),
                    b", ".join(map(literal, fields)),
                    claims,
                    body,
                )
            else:
                statement = (
                    b"UPDATE tenure_document SET version = %b, claims = %d, body = %b "
                    % (literal(new), claims, body)
                ) + where
        try:
            reply = await self.ask(statement, link)
        except Refused as error:
            if error.code != DUPLICATE_KEY:
                raise
            return None
        if not reply.changed:
            return None
        if document is None:
            self._read.pop(place, None)
        else:
            self._remember(place, document, new)
        return new

    def _remember(self, place: str, document: Document, version: str) -> None:
        if len(self._read) >= _CACHED:
            self._read.clear()
        self._read[place] = (document, version)

    async def names(self, kind: str) -> Sequence[str]:
        return await self._names(kind, "")

    async def rosters(self, prefix: str) -> Sequence[str]:
        found = await self._names("roster", " AND claims > 0")
        return sorted(name for name in found if name.startswith(prefix))

    async def _names(self, kind: str, more: str) -> list[str]:
        question = b"SELECT name FROM tenure_document WHERE kind = %b AND namespace = %b%b" % (
            literal(kind),
            literal(self.namespace),
            more.encode(),
        )
        return [text_of(row[0]) for row in (await self.ask(question)).rows]

    # -- sessions --------------------------------------------------------------

    async def living(self, sessions: Collection[str]) -> set[str]:
        found: set[str] = set()
        asked = list(sessions)
        for at in range(0, len(asked), _ASKED_AT_ONCE):
            part = asked[at : at + _ASKED_AT_ONCE]
            locks = ",".join(f"IS_USED_LOCK('{session_lock(each)}') IS NOT NULL" for each in part)
            (row,) = await (await self.questions()).rows(f"SELECT {locks}".encode())
            found.update(each for each, lives in zip(part, row, strict=True) if lives == b"1")
        return found

    async def last_seen(self, session: str) -> float | None:
        return 0.0 if await self.living([session]) else None

    # -- the tables ------------------------------------------------------------

    async def ask(self, statement: bytes, link: Link | None = None) -> Reply:
        """Run a statement on the tables; make them if there are none."""
        if not self.database:
            raise InvalidURL("mysql: rosters and records need a database: mysql://host/database")
        link = link or await self.questions()
        for attempt in range(_DEADLOCKS):
            try:
                return await link.run(statement)
            except Refused as error:
                if error.code != NO_SUCH_TABLE or attempt:
                    raise
                await self._create_tables(link)
            except AuthenticationFailed as error:
                raise AuthenticationFailed(
                    f"mysql: no permission for the tables of rosters and records ({error}); "
                    f"their owner runs: {GRANT.format('them')}"
                ) from error
            except Unavailable as error:
                # Two clients that add rows at once may be in each other's way for a moment.
                if "Deadlock" not in str(error) or attempt == _DEADLOCKS - 1:
                    raise
        raise Unavailable("mysql: the tables are too contended")

    async def _create_tables(self, link: Link) -> None:
        try:
            for definition in DEFINITIONS:
                await link.run(definition.encode())
        except AuthenticationFailed as error:
            raise AuthenticationFailed(
                "mysql: rosters and records are kept in tables that this user may not create; "
                f"run once: {'; '.join(DEFINITIONS)}; {GRANT.format('them')}"
            ) from error
