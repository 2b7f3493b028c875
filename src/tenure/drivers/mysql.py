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
from ..wires.mysql import Link
from ..wires.mysql_loop import LoopWire
from ..wires.mysql_thread import ThreadWire
from ._mysql_documents import TableDocuments
from ._mysql_locks import UserLocks, UserSession, session_lock
from ._mysql_notes import Notes
from ._mysql_url import OPTIONS, targets
from ._serverlocks import Session
from .base import Lost

logger = logging.getLogger("tenure")

SILENT_TTLS = 4
"""After so many TTLs without a word, the server ends a connection.

It cannot tell a client that was cut off from one that is merely paused: of the one it should
free the locks soon, of the other it had better not, since that may be about to write.
"""


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
        self.notes = Notes(self.ask, bool(self.database))
        self._warned = False
        self._nodes = 0  # of the Galera cluster, if there is one
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
        if not await self.notes.register(link, alive, owner, b"GET_LOCK('%b', 0) = 1"):
            taken = await link.call(b"SELECT GET_LOCK('?',0)", (alive.encode(),), b"")
            if taken != b"1":
                raise ProtocolError("mysql: the server does not give out locks")
        self._owners[id] = owner
        return UserSession(self, self.runtime, id, alive, owner, link, lost)

    async def _renew(self, session: UserSession) -> None:
        await self.mutex.keep(session)
        await super()._renew(session)
        await self.notes.name_locks(session)

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
        await self.notes.forget(link)
        for roster in sorted(public):
            await self.census(roster)  # buries its claims there

    # -- connections -----------------------------------------------------------

    async def another(self, session: Session[Link]) -> Link:
        """One more connection for the session, on which to wait."""
        link = await self._connect()
        try:
            await self.notes.register(link, str(session.alive), session.owner)
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
            await self.notes.check_tokens(link)
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

_BETWEEN = (
    "mysql: there is something between this client and the server that shares connections; a "
    "lock belongs to a connection of the server's. Connect to the server itself"
)
_BALANCED = (
    "mysql: two connections to this address led to two servers, which do not know of each other's "
    "locks: there is a load balancer. Connect to one of the servers itself"
)
