"""PostgreSQL without a session of its own: locks as rows, for poolers between transactions.

Chosen with `?lock=row`. Every step is a single statement in the simple protocol, which a
pooler may send to whatever server connection is free: no advisory lock outlives it, nothing
is prepared, set or listened for. A roster is a document in one row, compared by its version and
set (see `document`); a session is a row that its owner changes at every renewal.

The versions, and the number that the tokens of a session are above, come from the sequence
that the other strategy draws its tokens from, so tokens rise also where one took over from the
other: each save draws from it, so no token is ever ahead of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .._model import Finding, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import OutcomeUnknown, SessionLost, Unavailable
from ..wires.libpq import Refused
from ..wires.links import NotSent, Row
from ..wires.postgresql import Link
from ._advisory import key, plain
from ._postgresql_rosters import literal
from ._postgresql_server import Doors, check_tokens, make, refuse_advisory
from .base import Lost
from .document import BURIED, Document, DocumentDriver, encoded

_DEFINITION = """
    CREATE TABLE IF NOT EXISTS {table} (
        kind text COLLATE "C" NOT NULL, namespace text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL, version bigint NOT NULL, document text NOT NULL,
        expires timestamptz, PRIMARY KEY (namespace, kind, name))"""

_HERE = "kind = {kind} AND namespace = {space} AND name = {name}"
_LIVES = (
    "EXISTS (SELECT FROM {table} WHERE kind = 'session' AND namespace = {space}"
    " AND name = {session})"
)

_WRITTEN = {
    "load": "SELECT version, document FROM {table} WHERE {here}",
    "draw": "SELECT {next}",
    "begin": """
        INSERT INTO {table} (kind, namespace, name, version, document, expires)
        VALUES ({kind}, {space}, {name}, {next}, {document}, {expires})
        ON CONFLICT DO NOTHING RETURNING version{flush}""",
    "save": """
        UPDATE {table} SET version = {next}, document = {document}, expires = {expires}
        WHERE {here} AND version = {version} RETURNING version{flush}""",
    "renew": """
        UPDATE {table} SET version = {next}, document = {document}, expires = {expires}
        WHERE {here} RETURNING version""",
    "delete": """
        DELETE FROM {table} WHERE {here} AND version = {version}
        RETURNING {next}{flush}""",
    "begin_for": """
        INSERT INTO {table} (kind, namespace, name, version, document, expires)
        SELECT {kind}, {space}, {name}, {next}, {document}, {expires} WHERE {lives}
        ON CONFLICT DO NOTHING RETURNING version{flush}""",
    "save_for": """
        UPDATE {table} SET version = {next}, document = {document}, expires = {expires}
        WHERE {here} AND version = {version} AND {lives} RETURNING version{flush}""",
    "lives": "SELECT {lives}",
    "names": "SELECT name FROM {table} WHERE namespace = {space} AND kind = {kind}",
    # What nobody has touched for a day: sessions that died, and rosters without a claim. A
    # quote within JSON's text is escaped, so this pattern matches no text of a caller's.
    "sweep": """
        DELETE FROM {table} WHERE namespace = {space}
        AND expires < clock_timestamp() - interval '1 day'
        AND (kind = 'session' OR kind = 'roster' AND document LIKE '%"claims":[]%')""",
}

_STATEMENTS = {
    name: " ".join(text.replace("{here}", _HERE).replace("{lives}", _LIVES).split())
    for name, text in _WRITTEN.items()
}

_FLUSH = ", set_config('synchronous_commit', 'local', true)"
"""In the transaction of a statement: a crash of the server must not take it back."""

_CONFLICTS = {"40001", "40P01"}
"""Somebody else was faster, under a stricter isolation than the default one."""


class PostgresqlRowDriver(DocumentDriver):
    """Locks, rosters and records on PostgreSQL 12 or later, through any pooler."""

    traits = Traits(
        scope="hosts",
        shared=True,
        fair=True,
        frees_on_death=False,
        durable_tokens=True,
        durable_claims=True,
        push=False,
        poll=0.05,
        min_ttl=1.0,
    )

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        # The end of a connection ends nothing here.
        self._doors = Doors(url, runtime, self.patience, lambda _link, _reason: None)
        self._table = self._doors.rows_table
        self._badge = key("namespace", namespace)
        self._link: Link | None = None
        self._connecting = runtime.mutex()
        self._flush = ""
        self._floor = 0
        self._over = ""

    async def open(self) -> None:
        try:
            async with self._connecting:
                link = self._link = await self._doors.connect(own_server=False)
            await check_tokens(link, self._doors.sequence)
            await self._find_table(link)
            (mode,) = await link.script("SELECT current_setting('synchronous_commit')")
            if mode == b"off":
                self._flush = _FLUSH
            await refuse_advisory(link, self.namespace, self._badge)
            await self._run("sweep")
        except BaseException:
            await self._doors.wire.close()
            raise

    async def close(self) -> None:
        self._over = "closed"
        await self._doors.wire.close()

    def abandon(self) -> None:
        self._over = "the process was forked"
        self._doors.wire.abandon()

    async def examine(self) -> Sequence[Finding]:
        from ._postgresql_examine import examine  # only an operator needs it

        return await examine(await self._linked(), self.ttl, rows=True)

    async def server(self) -> Server:
        """What the server said in the connection's greeting."""
        return (await self._linked()).server()

    async def start(self, owner: str, lost: Lost) -> str:
        self._known.clear()  # it was guessed under another session's number
        session = self.runtime.unique()
        if await self.save("session", session, self._life(owner), 0) is None:
            raise OutcomeUnknown("postgresql: the session's row was written by somebody else")
        # Now that whoever opens the other strategy sees this session: is one open already?
        try:
            link = await self._linked()
            await refuse_advisory(link, self.namespace, self._badge)
            ((drawn,),) = await self._run("draw")
        except BaseException:
            await self.end(session)
            raise
        self._floor = int(drawn or 0)
        self._owners[session] = owner
        return session

    async def renew(self, session: str) -> None:
        document = self._life(self._owners.get(session, ""))
        if not await self._run("renew", "session", session, document):
            raise SessionLost(BURIED)

    def _life(self, owner: str) -> Document:
        """A session's document; each time it is written, its row has a new version."""
        wall = round(self.runtime.wall(), 3)
        return {"owner": owner, "ttl": self.ttl, "beat": 0, "wall": wall}

    # -- documents -------------------------------------------------------------

    async def load(self, kind: str, name: str) -> tuple[Document | None, Any]:
        found = await self._run("load", kind, name)
        document: Document | None = None
        version = 0
        if found:
            ((number, text),) = found
            version, document = int(number or 0), json.loads(text or b"{}")
        if kind == "roster":
            known = document or {"token": 0, "claims": []}
            document = {**known, "token": max(known["token"], self._floor)}
        return document, version

    async def save(self, kind: str, name: str, document: Document | None, version: Any) -> Any:
        change = "save" if version else "begin"
        statement = "delete" if document is None else change
        found = await self._run(statement, kind, name, document, version)
        return int(found[0][0] or 0) if found else None

    async def save_for(self, session: str, roster: str, document: Document, version: Any) -> Any:
        statement = "save_for" if version else "begin_for"
        found = await self._run(statement, "roster", roster, document, version, session)
        if found:
            return int(found[0][0] or 0)
        # Asked apart, for it is rarely asked, and a statement that tells both costs a third more.
        ((lives, *_),) = await self._run("lives", session=session)
        if lives != b"t":
            raise SessionLost(BURIED)
        return None

    async def names(self, kind: str) -> Sequence[str]:
        return [plain((name or b"").decode()) for (name,) in await self._run("names", kind)]

    async def _run(
        self,
        statement: str,
        kind: str = "",
        name: str = "",
        document: Document | None = None,
        version: int = 0,
        session: str = "",
    ) -> list[Row]:
        values = {
            "space": self.namespace,
            "name": name,
            "document": "" if document is None else encoded(document),
            "session": session,
        }
        expires = "clock_timestamp()"
        if document and kind == "session":
            # How long it counts as being there, for the other strategy's sake; its life does
            # not depend on the database's clock.
            expires += f" + {2 * document['ttl']:.3f} * interval '1 second'"

        def text(link: Link) -> str:
            put_in = {key: literal(link, value) if value else "''" for key, value in values.items()}
            return _STATEMENTS[statement].format(
                table=self._table,
                kind=f"'{kind}'",
                expires=expires,
                next=f"nextval({link.literal(self._doors.sequence)}::regclass)",
                flush=self._flush,
                version=version,
                **put_in,
            )

        try:
            link = await self._linked()
            try:
                return await link.rows(text(link))
            except (OutcomeUnknown, NotSent):
                raise
            except Unavailable:
                if link.reason is None:
                    raise
            # It had ended while it was idle, and nothing was sent.
            link = await self._linked()
            return await link.rows(text(link))
        except Refused as error:
            if error.state in _CONFLICTS:
                return []
            raise

    async def _linked(self) -> Link:
        link = self._link
        if link is not None and link.reason is None:
            return link
        async with self._connecting:
            if self._over:
                raise Unavailable(f"postgresql: not connected: {self._over}")
            link = self._link
            if link is None or link.reason is not None:
                link = self._link = await self._doors.connect(own_server=False)
        return link

    async def _find_table(self, link: Link) -> None:
        question = f"SELECT to_regclass({link.literal(self._table)})"
        if await link.script(question) == (None,):
            definition = _DEFINITION.format(table=self._table)
            forbidden = (
                "the locks are rows of a table that this user may not create; run once: "
                f"{' '.join(definition.split())}; "
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {self._table} TO this user"
            )
            await make(link, definition, forbidden)
