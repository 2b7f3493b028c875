"""PostgreSQL: session-level advisory locks, with the fencing token from a sequence.

One connection, the main one, carries every lock that was free when it was asked for: a
lock and its token are one statement, which tries the advisory lock and draws
`nextval` if it was got. Who finds a lock taken and may wait asks for it again on a
connection of its own, where the statement blocks: the server's own queue orders the
waiters. A lock that was granted there lives there until it is freed.

A session is these connections. The server frees their locks when they end, and ends
them itself when their client is cut off, by its keepalives, though never before the
client's own deadline. A client that is merely paused keeps them. The other way round, a
connection that ends takes the whole session with it, at once and for good: nothing is
ever silently connected again under a lease.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from .._model import Finding, Server, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import (
    BackendError,
    TenureError,
    Unavailable,
)
from ..wires.links import Row
from ..wires.postgresql import Link
from . import _postgresql_sql as sql
from ._advisory import AdvisoryLocks, escaped, halves, key
from ._postgresql_rosters import TableRosters
from ._postgresql_server import Doors, check_tokens, refuse_rows
from ._postgresql_url import by_rows
from ._serverlocks import Session
from .base import Driver, Lost

logger = logging.getLogger("tenure")


class PostgresqlDriver(TableRosters):
    """Locks, rosters and records on PostgreSQL 12 or later, through psycopg 3."""

    service = "postgresql"

    traits = Traits(
        scope="hosts",
        shared=True,
        fair=True,
        frees_on_death=True,
        durable_tokens=True,
        durable_claims=False,
        push=True,
        poll=0.5,
        min_ttl=1.0,
    )

    mutex: AdvisoryLocks

    @classmethod
    def chosen(cls, url: Url) -> type[Driver]:
        if not by_rows(url):
            return cls
        from ._postgresql_row import PostgresqlRowDriver

        return PostgresqlRowDriver

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._doors = Doors(url, runtime, self.patience, self._ended)
        self._wire = self._doors.wire
        self._badge = key("namespace", namespace)
        self._notes = True
        self.mutex = AdvisoryLocks(self, runtime, namespace)

    async def close(self) -> None:
        self._forget("closed")  # what it holds is free before anything is waited for
        await self.ear.close()
        await super().close()

    async def examine(self) -> Sequence[Finding]:
        from ._postgresql_examine import examine  # only an operator needs it

        return await examine(await self.questions(), self.ttl, rows=False)

    async def server(self) -> Server:
        """What the server said in the greeting of the main connection."""
        return (await self.questions()).server()

    async def _begin(self, id: str, owner: str, link: Link, lost: Lost) -> Session[Link]:
        alive = key("session", id)
        high, low = halves(alive)
        await link.script(
            f"SELECT set_config('application_name', {_application(link, owner)}, false), "
            f"pg_try_advisory_lock({high}, {low})"
        )
        return Session(self, self.runtime, id, alive, owner, link, lost)

    async def _renew(self, session: Session[Link]) -> None:
        await super()._renew(session)
        if self._notes:
            await self._note(session)

    async def _note(self, session: Session[Link]) -> None:
        """Write down what has been held for long: the server's locks have keys, and no names."""
        names = session.long_held()
        if not names:
            return
        try:
            await self.set_up(session.main)
            keys = b"{%b}" % b",".join(names)
            texts = b"{%b}" % b",".join(map(_element, names.values()))
            await session.main.ping(b"tn_note", (escaped(self.namespace).encode(), keys, texts))
            session.noted(names.values())
        except Unavailable:
            raise
        except BackendError as error:
            self._notes = False
            logger.info("tenure: an operator will not see the names of locks: %s", error)

    async def _take_leave(self, session: Session[Link]) -> None:
        """Free what it holds, remove its claims, and tell who watches them.

        Without that the server does it when it sees the connections end, which may be later than
        the return of this call.
        """
        for link in (session.main, *tuple(session.holding)):
            if link.reason is not None or link.parked:
                continue
            try:
                if link is session.main and self.is_set_up(link):
                    await link.ping(b"tn_leave", (b"%d" % session.alive,))
                else:
                    await link.ping(b"leave", ())
            except TenureError as error:
                logger.debug("tenure: a session ended without a farewell: %s", error)

    async def locks(self) -> list[Row]:
        """Every lock of the namespace that somebody holds or waits for; see `sql.TAKEN`."""
        link = await self.questions()
        try:
            await self.set_up(link)
            names = {"name": "n.name", "names": sql.NAMES.format(**self.tables)}
        except Unavailable:
            raise
        except BackendError:
            names = {"name": "NULL", "names": ""}
        return await link.rows(sql.TAKEN.format(badge=self._badge, **names))

    # -- connections -----------------------------------------------------------

    async def another(self, session: Session[Link]) -> Link:
        """One more connection for the session, on which to wait."""
        link = await self._doors.connect(own_server=True)
        try:
            await self._prepare(link, session.owner)
        except BaseException:
            link.end("it could not be set up")
            raise
        return link

    async def ear_link(self) -> Link:
        link = await self._doors.connect(own_server=True)
        try:
            owner = "" if self.session is None else self.session.owner
            await link.script(self._settings(link, owner))
        except BaseException:
            link.end("it could not be set up")
            raise
        return link

    async def _main(self) -> Link:
        link = await self._doors.connect(own_server=True)
        try:
            await check_tokens(link, self._doors.sequence)
            await self._prepare(link, "")
            # Now that the namespace's mark can be seen: does somebody keep it in rows already?
            await refuse_rows(link, self.namespace, self._doors.rows_table)
        except BaseException:
            link.end("it could not be set up")
            raise
        return link

    async def _prepare(self, link: Link, owner: str) -> None:
        """Name the connection, guard it against time limits, and prepare the statements."""
        script = [self._settings(link, owner), _FLUSH_TOKENS]
        if link.server_version >= 140000:
            script.append(_CHECK_WAITERS)
        # By this an operator's question finds the connections of a namespace.
        script.append("SELECT pg_try_advisory_lock_shared({}, {})".format(*halves(self._badge)))
        script += [
            f"PREPARE {name} AS {text.format(token=self.next_token(link))}"
            for name, text in _STATEMENTS.items()
        ]
        await link.script("; ".join(script))

    def _settings(self, link: Link, owner: str) -> str:
        quiet = math.ceil(self.ttl)
        settings = {
            "statement_timeout": "0",
            "lock_timeout": "0",
            # A client that was cut off: not before it has counted its own time out.
            "tcp_keepalives_idle": str(quiet),
            "tcp_keepalives_interval": "1",
            "tcp_keepalives_count": "2",
            "tcp_user_timeout": str(quiet * 1000 + 2000),
        }
        if link.server_version >= 140000:
            # A holder that was paused keeps its lock, so that nobody is let in beside it.
            settings["idle_session_timeout"] = "0"
        chosen = [f"set_config('application_name', {_application(link, owner)}, false)"]
        chosen += [
            f"set_config('{name}', {link.literal(value)}, false)"
            for name, value in settings.items()
        ]
        return f"SELECT {', '.join(chosen)}"

    @property
    def schema(self) -> str:
        return self._doors.schema

    def next_token(self, link: Link) -> str:
        return f"nextval({link.literal(self._doors.sequence)}::regclass)"


def _application(link: Link, owner: str) -> str:
    return link.literal(f"tenure:{owner}".encode()[:63].decode(errors="ignore"))


def _element(name: str) -> bytes:
    """The name as an element of an array."""
    text = escaped(name).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'.encode()


_STATEMENTS = {
    "seize(bigint)": "SELECT CASE WHEN pg_try_advisory_lock($1) THEN {token} END",
    "share(bigint)": "SELECT CASE WHEN pg_try_advisory_lock_shared($1) THEN {token} END",
    # The server lets a connection that has the lock have it again, past whoever waits:
    # readers that overlap would keep a writer out for ever.
    "share_again(bigint)": """
        SELECT CASE WHEN NOT EXISTS (
            SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (classid::bigint << 32 | objid::bigint) = $1)
        THEN CASE WHEN pg_try_advisory_lock_shared($1) THEN {token} END END""",
    # The lock function returns void, which is not null: the token is drawn after it.
    "queue(bigint)": "SELECT CASE WHEN pg_advisory_lock($1) IS NOT NULL THEN {token} END",
    "queue_shared(bigint)": """
        SELECT CASE WHEN pg_advisory_lock_shared($1) IS NOT NULL THEN {token} END""",
    "free(bigint)": "SELECT pg_advisory_unlock($1)",
    "free_shared(bigint)": "SELECT pg_advisory_unlock_shared($1)",
    "ping": "SELECT 1",
    "leave": "SELECT pg_advisory_unlock_all()",
    "holder(bigint)": """
        SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (l.classid::bigint << 32 | l.objid::bigint) = $1
        ORDER BY a.backend_start LIMIT 1""",
}

# Else a crash of the server could take back tokens that it has handed out.
_FLUSH_TOKENS = """
    SELECT set_config('synchronous_commit', 'local', false)
    WHERE current_setting('synchronous_commit') = 'off'"""

# Notices within a second that a waiting client is gone; a server on Windows cannot.
_CHECK_WAITERS = """
    SELECT set_config('client_connection_check_interval', '1000', false)
    WHERE version() !~* 'mingw|visual|cygwin'"""
