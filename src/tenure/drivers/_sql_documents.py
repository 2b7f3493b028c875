"""The document rung over two tables, for SQLite and for database servers.

A roster or a record is a row with a version, and saving it is one statement that compares and
sets. A session is a row with an expiry, by the database's own clock and by nobody else's:
the statement that saves a claim asks that clock whether its session lives, the one that renews
asks it, and so does whoever finds a claim in the way. What has expired is deleted
before its claims are, so that it never comes back to life, not even if the clock is set back.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

from .._model import Roll
from ..errors import (
    AuthenticationFailed,
    BackendError,
    OutcomeUnknown,
    SessionLost,
    StorageError,
    TenureError,
    Unsupported,
)
from ..wires.sql import Duplicate, Limit, Maker, MissingTable, Row
from . import _sql_text as text
from .base import Lost
from .document import BURIED, KNOWN_MAX, Document, DocumentDriver, encoded, roll_of

CREATE_TRIES = 5
OPEN_SECONDS = 1.0
"""How long connecting may take at the least, however short the TTL is."""
MANY_SESSIONS = 100
"""From how many on all of a namespace are asked for, rather than each by its id."""


class Pool(Protocol):
    """Connections of one flavour; see `wires.sql`."""

    limit: Limit

    async def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """What the statement finds."""
        ...

    async def change(self, statement: str, values: Sequence[Any] = ()) -> int:
        """How many rows the statement has changed."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...

    def abandon(self) -> None:
        """In a forked child: forget every connection."""
        ...


class _Look(NamedTuple):
    """What a waiter was told, at which version of the roster, and whose session is at its head."""

    version: str
    head: str
    roll: Roll


class SqlDocuments(DocumentDriver):
    """Documents and sessions in tables. A subclass says how to connect."""

    dialect: text.Dialect
    label: str

    def connected(self, maker: Maker, dialect: text.Dialect, mark: str, size: int) -> None:
        """Make the pool, which connects when it is first used; once, by the constructor."""
        self.dialect = dialect
        self.label = maker.label
        self._sql = text.Statements(dialect, mark)
        self._key = functools.lru_cache(maxsize=4096)(self._make_key)
        self._space = _hash(self.namespace)
        self._mine = self.runtime.unique()
        self._serial = itertools.count()
        self._looks: dict[tuple[str, str], _Look] = {}
        self.pool: Pool
        if self.runtime.flavour == "thread":
            from ..wires._sql_thread import ThreadPool

            self.pool = ThreadPool(maker, self.runtime, self.patience, size)
        elif self.runtime.flavour == "asyncio":
            from ..wires._sql_asyncio import LoopPool

            self.pool = LoopPool(maker, self.patience, size)
        else:
            raise Unsupported(f"{self.label}: there is no simulated connection")

    @abstractmethod
    def shown_url(self) -> str:
        """The URL as somebody would type it, without a password."""

    async def open(self) -> None:
        self.pool.limit.seconds = max(self.patience, OPEN_SECONDS)
        try:
            version = await self.schema_version()
            if version is None:
                await self._create()
            elif version != text.SCHEMA_VERSION:
                raise self._other_version(version)
        except (Duplicate, MissingTable) as error:
            raise BackendError(f"{self.label}: the tables cannot be made: {error}") from error
        finally:
            self.pool.limit.seconds = self.patience

    async def close(self) -> None:
        await self.pool.close()

    def abandon(self) -> None:
        self.pool.abandon()

    # -- the tables --------------------------------------------------------------

    async def schema_version(self) -> int | None:
        """Which version the tables have; None if there are none."""
        try:
            found = await self.pool.rows(self._sql["schema"])
        except MissingTable:
            return None
        return int(found[0][0]) if found else None

    async def migrate(self) -> tuple[int, int]:
        """Make the tables, or bring them to this version; from which to which. Idempotent.

        `BackendError` if they are newer than this code; `AuthenticationFailed` without the right.
        """
        before: int | None = None
        for left in reversed(range(CREATE_TRIES)):
            try:
                version = await self.schema_version()
                before = (version or 0) if before is None else before
                if version is not None and version > text.SCHEMA_VERSION:
                    raise self._other_version(version)
                await self._migrate_from(version)
                return before, text.SCHEMA_VERSION
            except (Duplicate, MissingTable) as error:
                # Somebody else makes them at this moment, and the catalogue's own index clashed.
                if not left:
                    raise BackendError(
                        f"{self.label}: the tables cannot be made: {error}"
                    ) from error
        raise AssertionError("not reached")

    def script(self) -> str:
        """The statements that make the tables in an empty database, for somebody else to run."""
        return text.script(self.dialect)

    async def _migrate_from(self, version: int | None) -> None:
        if version is None:
            await self.before_tables()
            await self.pool.change(text.version_table(self.dialect))
        for number, step in enumerate(text.MIGRATIONS[version or 0 :], version or 0):
            for statement in step(self.dialect):
                await self.pool.change(statement)
            if version is not None:
                await self.pool.change(self._sql["migrated"], (number + 1, number))
        if version is None:
            # At the end: whoever finds a version finds its tables.
            with contextlib.suppress(Duplicate):  # somebody else was faster
                await self.pool.change(self._sql["first"], (text.SCHEMA_VERSION,))

    async def before_tables(self) -> None:
        """What is to be done once, before the first table is made."""

    async def _create(self) -> None:
        try:
            await self.migrate()
        except AuthenticationFailed as error:
            raise AuthenticationFailed(
                f"{self.label}: the tables are not there, and this user may not make them. Whoever "
                f"may runs: tenure migrate {self.shown_url()} (its --sql prints the statements), "
                f"and grants SELECT, INSERT, UPDATE and DELETE ({error})"
            ) from error

    def _other_version(self, version: int) -> TenureError:
        ours = text.SCHEMA_VERSION
        advice = (
            f"run: tenure migrate {self.shown_url()}"
            if version < ours
            else "this Tenure is too old for them: install the version that has made them"
        )
        return BackendError(
            f"{self.label}: the tables have version {version}, this code needs {ours}; {advice}"
        )

    # -- documents -----------------------------------------------------------------

    def _make_key(self, kind: str, name: str) -> str:
        return f"{self._space}.{kind}.{_hash(name)}"

    async def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """What a statement finds, with every error as one of `tenure.errors`."""
        try:
            return await self.pool.rows(statement, values)
        except (MissingTable, Duplicate) as error:
            raise self._gone(error) from error

    async def change(self, statement: str, values: Sequence[Any] = ()) -> int:
        """How many rows a statement changes; as above, but 0 for a row that is there already."""
        try:
            return await self.pool.change(statement, values)
        except Duplicate:
            return 0
        except MissingTable as error:
            raise self._gone(error) from error

    def _gone(self, error: Exception) -> BackendError:
        return BackendError(f"{error}; run: tenure migrate {self.shown_url()}")

    async def load(self, kind: str, name: str) -> tuple[Document | None, Any]:
        if kind == "session":
            found = await self.rows(self._sql["session"], (name,))
            return ({"owner": _plain(found[0][0])} if found else None), None
        found = await self.rows(self._sql.load, (self._key(kind, name),))
        if not found:
            return None, None
        body, version = found[0]
        return _document(self.label, kind, name, body), version

    async def save(self, kind: str, name: str, document: Document | None, version: Any) -> Any:
        key, new = self._key(kind, name), self.new_version()
        if document is None:
            if version is None:
                return new
            count = await self.change(self._sql["delete"], (key, version))
        elif version is None:
            row = (key, _escaped(self.namespace), kind, _escaped(name), new, encoded(document))
            count = await self.change(self._sql["insert"], row)
        else:
            values = (new, encoded(document), key, version)
            count = await self.change(self._sql.update, values)
        return new if count else None

    async def save_for(self, session: str, roster: str, document: Document, version: Any) -> Any:
        key, new = self._key("roster", roster), self.new_version()
        if version is None:
            name = _escaped(roster)
            row = (key, _escaped(self.namespace), "roster", name, new, encoded(document), session)
            count = await self.change(self._sql["insert_for"], row)
        else:
            values = (new, encoded(document), key, version, session)
            count = await self.change(self._sql.update_for, values)
        if count:
            return new
        if not await self.living((session,)):
            raise SessionLost(BURIED)
        return None

    def new_version(self) -> str:
        """A version that was never used."""
        return f"{self._mine}.{next(self._serial)}"

    async def names(self, kind: str) -> Sequence[str]:
        start = f"{self._space}.{kind}"
        # The character after the dot is the slash.
        found = await self.rows(self._sql["names"], (f"{start}.", f"{start}/"))
        return [_plain(name) for (name,) in found]

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        # A waiter looks many times a second. One statement says whether what it was told is
        # still so: the roster is the same, and whoever is at its head lives.
        if width != 1 or not id:
            return await super().read(session, roster, id, width)
        look = self._looks.pop((roster, id), None)
        if look is not None:
            same = (self._key("roster", roster), look.version, look.head)
            if await self.rows(self._sql["unchanged"], same):
                self._looks[roster, id] = look
                return look.roll
        document, version = await self.load("roster", roster)
        claims = document["claims"] if document else []
        mine = next((each for each in claims if each[0] == id), None)
        if mine is None or mine[5] or not await self.living((claims[0][1],)):
            # Readers look for more than the head, and the dead are buried.
            return await super().read(session, roster, id, width)
        assert document is not None
        roll = roll_of(roster, id, document)
        if roll.rank:
            if len(self._looks) >= KNOWN_MAX:
                self._looks.clear()
            self._looks[roster, id] = _Look(version, claims[0][1], roll)
        return roll

    # -- sessions --------------------------------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        await self._bury([row[0] for row in await self.rows(self._sql["expired"])])
        session, ttl = self.runtime.unique(), self._microseconds
        row = (session, _escaped(self.namespace), _escaped(owner), ttl, ttl)
        if not await self.change(self._sql["start"], row):
            raise OutcomeUnknown(f"{self.label}: the session's row was not written")
        self._owners[session] = owner
        return session

    @property
    def _microseconds(self) -> int:
        return int(self.ttl * 1e6)

    async def renew(self, session: str) -> None:
        if not await self.change(self._sql["renew"], (self._microseconds, session)):
            raise SessionLost(f"{self.label}: by the database's clock the session had expired")

    async def end(self, session: str) -> None:
        self._owners.pop(session, None)
        await self.change(self._sql["end"], (session,))
        for roster in sorted(self._public.pop(session, ())):
            await self.census(roster)  # buries its claims there, and tells the watchers

    async def last_seen(self, session: str) -> float | None:
        found = await self.rows(self._sql["session"], (session,))
        return max(0.0, float(found[0][1]) / 1e6) if found else None

    async def living(self, sessions: Collection[str]) -> set[str]:
        wanted = sorted(sessions)
        if len(wanted) > MANY_SESSIONS:
            found = await self.rows(self._sql["alive"], (_escaped(self.namespace),))
        else:
            found = await self.rows(self._sql.living(len(wanted)), wanted)
        living = {row[0] for row in found}.intersection(wanted)
        if len(living) < len(wanted):
            living.update(await self._bury([each for each in wanted if each not in living]))
        return living

    async def _bury(self, sessions: Sequence[str]) -> set[str]:
        """Delete those that have expired; return those that have not, after all."""
        left: set[str] = set()
        for session in sessions:
            if not await self.change(self._sql["bury"], (session,)):
                # Gone already, or the clock was set back.
                left.update(row[0] for row in await self.rows(self._sql["present"], (session,)))
        return left

    async def database_now(self) -> float:
        """The database's clock, in seconds."""
        return float((await self.rows(self._sql["now"]))[0][0]) / 1e6


@functools.lru_cache(maxsize=4096)
def _hash(name: str) -> str:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@functools.lru_cache(maxsize=4096)
def _escaped(name: str) -> str:
    """ASCII, as in JSON, since not every database takes every character."""
    return json.dumps(name)[1:-1]


def _plain(name: str) -> str:
    plain: str = json.loads(f'"{name}"')
    return plain


def _document(label: str, kind: str, name: str, body: str) -> Document:
    try:
        document: Document = json.loads(body)
        if kind == "roster":
            whole = isinstance(document["token"], int) and all(
                isinstance(each, list) and len(each) == 6 for each in document["claims"]
            )
        else:
            whole = isinstance(document["text"], str)
    except (ValueError, LookupError, TypeError) as error:
        raise StorageError(f"{label}: the {kind} {name!r} is damaged: {error!r}") from error
    if not whole:
        raise StorageError(f"{label}: the row of the {kind} {name!r} is damaged")
    return document
