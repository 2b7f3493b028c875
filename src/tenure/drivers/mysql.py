"""MySQL and MariaDB: user locks (`GET_LOCK`), with the fencing token from `UUID_SHORT`.

One connection, the main one, carries every lock that was free when it was asked for: a
lock and its token are one statement. Who finds a lock taken and may wait asks for it
again on a connection of its own, where the statement blocks: the server's own queue orders
the waiters. A lock that was granted there lives there until it is freed.

A session is these connections. The server frees their locks when they end, and ends them
itself when it has heard nothing for four TTLs. The other way round, a connection
that ends takes the whole session with it, at once and for good: nothing is ever silently
connected again under a lease.
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
    InvalidURL,
    ProtocolError,
    Unavailable,
    Unsupported,
)
from ..wires.links import Row
from ..wires.mysql import Link, literal
from ..wires.mysql_loop import LoopWire
from ..wires.mysql_thread import ThreadWire
from ._mysql_documents import TableDocuments
from ._mysql_locks import UserLocks, UserSession, session_lock
from ._mysql_url import OPTIONS, targets
from ._serverlocks import Session
from .base import Lost

logger = logging.getLogger("tenure")

SILENT_TTLS = 4
"""After so many TTLs without a word, the server ends a connection.

It cannot tell a client that was cut off from one that is merely paused: of the one it should
free the locks soon, of the other it had better not, since that may be about to write.
"""
_MARK = 0  # the row of `tenure_connection` that tells how far tokens had come
_START_BITS = 24  # the part of a token that counts within one run of the server


class MysqlDriver(TableDocuments):
    """Locks, rosters and records on MySQL 5.7, MariaDB 10.5 or later, through PyMySQL."""

    service = "mysql"

    traits = Traits(
        scope="hosts",
        shared=True,
        fair=True,
        frees_on_death=True,
        durable_tokens=True,
        durable_claims=False,
        push=False,
        poll=0.05,
        min_ttl=1.0,
        linger=SILENT_TTLS,
    )

    mutex: UserLocks

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        url.check_options(OPTIONS)
        self._targets = targets(url)
        self.database = self._targets[0].database
        self._connect_seconds = min(
            self.patience, url.number("connect_timeout", self.patience, least=0.1)
        )
        self._wire: ThreadWire | LoopWire
        if runtime.flavour == "thread":
            self._wire = ThreadWire(runtime, self.patience)
        elif runtime.flavour == "asyncio":
            self._wire = LoopWire(self.patience)
        else:
            raise Unsupported("mysql: there is no simulated connection")
        self._server: Row | None = None  # what tells the server from every other one
        self._writes = bool(self.database)  # whether names and owners are written down
        self._warned = False
        self._nodes = 0  # of the Galera cluster, if there is one
        self._sweeps = [_FORGET_NAMES, _FORGET_CONNECTIONS]  # yet to be carried out, once
        # A database whose name differs only in case may be the same one.
        self.mutex = UserLocks(self, runtime, self.database.lower())

    async def examine(self) -> Sequence[Finding]:
        from ._mysql_examine import examine  # only an operator needs it

        return await examine(await self.questions(), self.ttl, self.database)

    async def server(self) -> Server:
        """What the server said in the greeting of the main connection."""
        return (await self.questions()).server(self._nodes)

    # -- the session -------------------------------------------------------------

    async def _begin(self, id: str, owner: str, link: Link, lost: Lost) -> UserSession:
        alive = session_lock(id)
        if not await self._register(link, alive, owner, b"GET_LOCK('%b', 0) = 1"):
            taken = await link.call(b"SELECT GET_LOCK('?',0)", (alive.encode(),), b"")
            if taken != b"1":
                raise ProtocolError("mysql: the server does not give out locks")
        self._owners[id] = owner
        return UserSession(self, self.runtime, id, alive, owner, link, lost)

    async def _renew(self, session: UserSession) -> None:
        await self.mutex.keep(session)
        await super()._renew(session)
        if self._writes:
            await self._note(session)

    async def end(self, session: str) -> None:
        self._owners.pop(session, None)
        try:
            await super().end(session)
        finally:
            self._public.pop(session, None)

    async def _take_leave(self, session: UserSession) -> None:
        link = session.main
        if link.reason is not None or link.parked:
            return
        public = self._public.pop(session.id, ())
        await link.ping(b"SELECT RELEASE_ALL_LOCKS()")
        if self._writes:
            await link.run(b"DELETE FROM tenure_connection WHERE number = %d" % link.number)
        for roster in sorted(public):
            await self.census(roster)  # buries its claims there

    # -- what is written down ------------------------------------------------------

    async def _register(self, link: Link, alive: str, owner: str, only_if: bytes = b"1") -> bool:
        """Write down whose connection it is, if that may be done; say whether it was."""
        if not self._writes:
            return False
        # The condition takes the session's lock, in the same round trip.
        condition = only_if.replace(b"%b", alive.encode())
        row = b"%d, UUID_SHORT(), %b, %b" % (link.number, literal(alive), literal(owner))
        statement = b"REPLACE INTO tenure_connection SELECT %b FROM DUAL WHERE %b"
        try:
            return (await self.ask(statement % (row, condition), link)).changed > 0
        except Unavailable:
            raise
        except BackendError as error:
            self._give_up_writing(error)
            return False

    def _give_up_writing(self, error: BackendError) -> None:
        self._writes = False
        logger.info("tenure: an operator will not see the names and owners of locks: %s", error)

    async def _check_tokens(self, link: Link) -> None:
        """See that no token is lower than those of earlier runs of the server, if that is known."""
        question = b"SELECT token, UUID_SHORT() FROM tenure_connection WHERE number = %d" % _MARK
        try:
            rows = (await self.ask(question, link)).rows
            before, now = (int(each or 0) for each in rows[0]) if rows else (0, 1 << _START_BITS)
            if now >> _START_BITS > before >> _START_BITS:
                await self.ask(_SET_MARK, link)
        except Unavailable:
            raise
        except BackendError as error:
            self._give_up_writing(error)
            return
        if before > now:
            raise BackendError(_FELL.format(now=now, before=before))

    async def _note(self, session: UserSession) -> None:
        """Write down what has been held for long: the server's locks have keys, and no names."""
        names = session.long_held()
        if not names:
            if self._sweeps:
                # One at a time: a renewal must not take long.
                await self.ask(self._sweeps.pop(), session.main)
            return
        rows = b", ".join(
            b"('%b', %b, CURRENT_TIMESTAMP)" % (key, literal(name)) for key, name in names.items()
        )
        try:
            await self.ask(b"REPLACE INTO tenure_name VALUES " + rows, session.main)
            session.noted(names.values())
        except Unavailable:
            raise
        except BackendError as error:
            self._give_up_writing(error)

    async def locks(self, prefix: str) -> list[Row]:
        """The names of the locks that begin so, with the connections that have them, and 1."""
        link = await self.questions()
        like = prefix.encode() + b"%"
        session = self.session
        own = b"" if session is None else str(session.alive).encode()
        for question in (_OF_PLUGIN, _OF_SCHEMA):
            try:
                rows = await link.rows(question.replace(b"?", like).replace(b"!", own))
            except Unavailable:
                raise
            except BackendError:
                continue  # this server does not tell, or not in this way
            # A list that lacks a lock that is held for certain is no list.
            if not own or any(row[0] == own for row in rows):
                return [row for row in rows if row[0] != own]
        names = await self.known_names(prefix)
        if not names:
            return []
        keys = list(names)
        asked = ",".join(f"IS_USED_LOCK('{key}')" for key in keys)
        (held,) = await link.rows(f"SELECT {asked}".encode())
        return [
            (key.encode(), number, b"1")
            for key, number in zip(keys, held, strict=True)
            if number is not None
        ]

    # -- connections -----------------------------------------------------------

    async def another(self, session: Session[Link]) -> Link:
        """One more connection for the session, on which to wait."""
        link = await self._connect()
        try:
            await self._register(link, str(session.alive), session.owner)
        except BaseException:
            link.end("it could not be set up")
            raise

        async def kill(number: int) -> None:
            await session.main.call(b"KILL QUERY ?", (b"%d" % number,), b"")

        link.kill = kill
        return link

    async def _main(self) -> Link:
        link = await self._connect(main=True)
        try:
            if self._writes:
                await self._check_tokens(link)
        except BaseException:
            link.end("it will not do")
            raise
        return link

    async def _connect(self, *, main: bool = False) -> Link:
        """Connect to the first host that will do, and see that it is a server of its own."""
        share = self._connect_seconds / len(self._targets)
        failure: BackendError | InvalidURL | None = None
        for target in self._targets:
            try:
                link = await self._wire.connect(target, share, self._ended)
            except (BackendError, InvalidURL) as error:
                failure = error
                continue
            try:
                await self._prepare(link, main)
                return link
            except BaseException as error:
                link.end("it will not do")
                if not isinstance(error, Unavailable):
                    raise
                failure = error
        assert failure is not None
        raise failure

    async def _prepare(self, link: Link, main: bool) -> None:
        """Guard the connection against time limits, and see where it has led to."""
        settings = {
            "wait_timeout": str(math.ceil(self.ttl * SILENT_TTLS)),
            "sql_mode": "'STRICT_ALL_TABLES'",
            "autocommit": "1",
            "innodb_lock_wait_timeout": str(max(1, int(self.patience / 2))),
            "max_statement_time" if link.mariadb else "max_execution_time": "0",
            # The older name is the only one that every MariaDB has.
            "tx_isolation" if link.mariadb else "transaction_isolation": "'REPEATABLE-READ'",
        }
        each = ", ".join(f"SESSION {name} = {value}" for name, value in settings.items())
        await link.run(f"SET NAMES utf8mb4, {each}".encode())
        question = _IDENTITY if link.mariadb else _IDENTITY + b", @@server_uuid, @@super_read_only"
        (row,) = await link.rows(b"SELECT " + question)
        number, packet, read_only, *name = row
        if number != b"%d" % link.number:
            raise Unsupported(_BETWEEN)
        link.packet_max = int(packet or 0)
        if read_only not in (b"0", b"OFF"):
            raise Unavailable("mysql: this server is read-only, a replica most likely")
        if main:
            self._server = tuple(name)
            await self._look_around(link)
        elif self._server is not None and self._server != tuple(name):
            raise Unsupported(_BALANCED)

    async def _look_around(self, link: Link) -> None:
        """Warn, once, of a cluster whose nodes do not know of each other's locks."""
        rows = await link.rows(b"SHOW GLOBAL STATUS LIKE 'wsrep_cluster_size'")
        self._nodes = int(rows[0][1] or 0) if rows else 0
        if self._nodes > 1 and not self._warned:
            self._warned = True
            logger.warning(
                "tenure: this server is one of a Galera cluster of %d, whose nodes do not know of "
                "each other's locks: all clients must use the same node",
                self._nodes,
            )


# Who it is, and how it is set up; and after these, what tells the server from every other.
_IDENTITY = b"""CONNECTION_ID(), @@max_allowed_packet, @@read_only,
    @@hostname, @@port, @@server_id, @@datadir"""

_OF_PLUGIN = b"""
    SELECT TABLE_SCHEMA, THREAD_ID, 1 FROM information_schema.METADATA_LOCK_INFO
    WHERE LOCK_TYPE = 'User lock' AND (TABLE_SCHEMA LIKE '?' OR TABLE_SCHEMA = '!')"""
_OF_SCHEMA = b"""
    SELECT OBJECT_NAME, PROCESSLIST_ID, LOCK_STATUS = 'GRANTED'
    FROM performance_schema.metadata_locks
    JOIN performance_schema.threads ON THREAD_ID = OWNER_THREAD_ID
    WHERE OBJECT_TYPE = 'USER LEVEL LOCK'
    AND (OBJECT_NAME LIKE '?' OR OBJECT_NAME = '!')"""

_SET_MARK = (
    b"INSERT INTO tenure_connection VALUES (%d, UUID_SHORT(), '', '') "
    b"ON DUPLICATE KEY UPDATE token = GREATEST(token, VALUES(token))" % _MARK
)
_FORGET_NAMES = (
    b"DELETE FROM tenure_name WHERE seen < CURRENT_TIMESTAMP - INTERVAL 1 DAY "
    b"AND IS_USED_LOCK(place) IS NULL"
)

_FELL = (
    "mysql: tokens would fall: UUID_SHORT() gives {now}, after {before}. The server's clock was "
    "set back, it was started twice within a second, or it took the place of one with a higher "
    "server_id. Correct that and restart it; or, if nothing relies on older tokens, empty the "
    "table tenure_connection"
)

_FORGET_CONNECTIONS = (
    b"DELETE FROM tenure_connection WHERE alive <> '' AND IS_USED_LOCK(alive) IS NULL"
)

_BETWEEN = (
    "mysql: there is something between this client and the server that shares connections; a "
    "lock belongs to a connection of the server's. Connect to the server itself"
)
_BALANCED = (
    "mysql: two connections to this address led to two servers, which do not know of each other's "
    "locks: there is a load balancer. Connect to one of the servers itself"
)
