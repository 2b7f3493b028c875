"""PostgreSQL: session-level advisory locks, with the fencing token from a sequence.

One connection, the main one, carries every lock that was free when it was asked for: a
lock and its token are one statement, which tries the advisory lock and draws
`nextval` if it was got. Who finds a lock taken and may wait asks for it again on a
connection of its own, where the statement blocks: the server's own queue orders the
waiters. A lock that was granted there lives there until it is freed.

A session is these connections. The server frees their locks when they end, and ends
them itself when they have been idle for the TTL, so that a client that was paused or
cut off does not hold its locks for ever. The other way round, a connection that ends
takes the whole session with it, at once and for good: nothing is ever silently
connected again under a lease.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import NamedTuple

from .._model import Grant, Holder, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import (
    AuthenticationFailed,
    BackendError,
    InvalidURL,
    SessionLost,
    TenureError,
    Unavailable,
    Unsupported,
)
from ..wires.libpq import Refused
from ..wires.postgresql import Link, LoopWire, ThreadWire
from .base import Driver, Lost, Mutex

_SLICE = 1.0  # seconds between two looks at the session while a lock is waited for
_SPARE = 4  # idle connections kept for the next wait

# fmt: off
_PASSED_ON = frozenset((
    "channel_binding", "gssencmode", "hostaddr", "krbsrvname", "passfile", "require_auth",
    "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl", "sslcrldir",
    "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni",
    "target_session_attrs",
))
# fmt: on
_OPTIONS = _PASSED_ON | {"connect_timeout", "host", "port", "schema"}


class PostgresqlDriver(Driver):
    """Locks on PostgreSQL 12 or later, through psycopg 3."""

    traits = Traits(
        scope="hosts",
        shared=True,
        fair=True,
        frees_on_death=True,
        durable_tokens=True,
        durable_claims=False,
        push=True,
        poll=_SLICE,
        min_ttl=1.0,
    )

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        url.check_options(_OPTIONS)
        self._attempts = _attempts(url)
        self._connect_seconds = min(
            self.patience, url.number("connect_timeout", self.patience, least=0.1)
        )
        self._sequence = _sequence(url.options.get("schema", "public"))
        self._wire: ThreadWire | LoopWire
        if runtime.flavour == "thread":
            self._wire = ThreadWire(runtime, self.patience)
        elif runtime.flavour == "asyncio":
            self._wire = LoopWire(self.patience)
        else:
            raise Unsupported("postgresql: there is no simulated connection")
        self._first: Link | None = None  # opened, and not yet given to a session
        self._session: Session | None = None
        self.mutex = AdvisoryLocks(self)

    async def open(self) -> None:
        try:
            self._first = await self._main()
        except BaseException:
            await self._wire.close()
            raise

    async def close(self) -> None:
        self._forget("closed")
        await self._wire.close()

    def abandon(self) -> None:
        self._wire.abandon()
        if self._session is not None:
            self._session.ended = "the process was forked"

    async def start(self, owner: str, lost: Lost) -> str:
        self._forget("a new session was started")
        link, self._first = self._first, None
        if link is None or link.reason is not None:
            link = await self._main()
        await self._prepare(link, owner)
        session = Session(self, self.runtime.unique(), owner, link, lost)
        self._session = session
        if link.reason is not None:
            session.lose(link.reason)
            raise SessionLost(f"postgresql: {link.reason}")
        return session.id

    async def renew(self, session: str) -> None:
        current = self.current(session)
        try:
            for link in (current.main, *tuple(current.holding)):
                # A connection that was given back meanwhile may be waiting for a lock by now.
                if not link.asking:
                    await link.call(b"ping")
        except TenureError as error:
            current.check(error)
            raise

    async def end(self, session: str) -> None:
        if self._session is not None and self._session.id == session:
            self._forget("the session was ended")

    def current(self, session: str) -> Session:
        """The session, if it is the one that lives; `SessionLost` if not."""
        current = self._session
        if current is None or current.id != session:
            raise SessionLost("postgresql: the session is over")
        if current.ended is not None:
            raise SessionLost(f"postgresql: {current.ended}")
        return current

    @property
    def main(self) -> Link:
        """A connection for questions that belong to no session."""
        link = self._first if self._session is None else self._session.main
        if link is None:
            raise Unavailable("postgresql: not connected")
        return link

    def _forget(self, reason: str) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.finish(reason)

    # -- connections -----------------------------------------------------------

    async def another(self, session: Session) -> Link:
        """One more connection for the session, on which to wait."""
        link = await self._connect()
        try:
            await self._prepare(link, session.owner)
        except BaseException:
            link.end("it could not be set up")
            raise
        return link

    async def _main(self) -> Link:
        link = await self._connect()
        try:
            await self._check_tokens(link)
            await self._prepare(link, "")
        except BaseException:
            link.end("it could not be set up")
            raise
        return link

    async def _connect(self) -> Link:
        """Connect to the first host that will do, and see that it is a server of its own."""
        share = self._connect_seconds / len(self._attempts)
        failure: BackendError | InvalidURL | None = None
        for parameters in self._attempts:
            try:
                link = await self._wire.connect(parameters, share, self._ended)
                break
            except (BackendError, InvalidURL) as error:
                failure = error
        else:
            assert failure is not None
            raise failure
        try:
            (pid, standby) = await link.script("SELECT pg_backend_pid(), pg_is_in_recovery()")
            if pid != str(link.backend_pid).encode():
                raise Unsupported(_POOLED)
            if standby == b"t":
                raise Unavailable("postgresql: this server is a standby; name the primary too")
        except BaseException:
            link.end("it will not do")
            raise
        return link

    async def _prepare(self, link: Link, owner: str) -> None:
        """Name the connection, guard it against time limits, and prepare the statements."""
        quiet = math.ceil(self.ttl)
        settings = {
            "application_name": f"tenure:{owner}".encode()[:63].decode(errors="ignore"),
            "statement_timeout": "0",
            "lock_timeout": "0",
            # A client that was cut off: not before it has counted its own time out.
            "tcp_keepalives_idle": str(quiet),
            "tcp_keepalives_interval": "1",
            "tcp_keepalives_count": "2",
            "tcp_user_timeout": str(quiet * 1000 + 2000),
        }
        if link.server_version >= 140000:
            # A client that was paused; it counted from before the server does.
            settings["idle_session_timeout"] = str(quiet * 1000 if owner else 0)
        chosen = ", ".join(
            f"set_config('{name}', {link.literal(value)}, false)"
            for name, value in settings.items()
        )
        script = ["DEALLOCATE ALL", f"SELECT {chosen}"]
        if link.server_version >= 140000:
            script.append(_CHECK_WAITERS)
        script += [
            f"PREPARE {name} AS {sql.format(token=self._token(link))}"
            for name, sql in _STATEMENTS.items()
        ]
        await link.script("; ".join(script))

    def _token(self, link: Link) -> str:
        return f"nextval({link.literal(self._sequence)}::regclass)"

    async def _check_tokens(self, link: Link) -> None:
        """See that the sequence is there, may be used, and never counts backwards."""
        name = self._sequence
        question = _SEQUENCE.format(name=link.literal(name))
        found = await link.script(question)
        if not found:
            await self._create(link)
            found = await link.script(question)
        allowed, rising = (*found, None, None)[:2]
        if allowed != b"t":
            raise AuthenticationFailed(
                f"postgresql: no permission for the sequence {name}; "
                f"its owner runs: GRANT USAGE ON SEQUENCE {name} TO this user"
            )
        if rising != b"t":
            raise BackendError(
                f"postgresql: the sequence {name} could hand out a lower token after a higher "
                f"one; run: ALTER SEQUENCE {name} INCREMENT 1 CACHE 1 NO CYCLE"
            )

    async def _create(self, link: Link) -> None:
        name = self._sequence
        try:
            await link.script(f"CREATE SEQUENCE IF NOT EXISTS {name}")
        except Refused as error:
            # Two clients that create it at once: one may fail on the catalogue's own index.
            if error.state not in {"23505", "42P07"}:
                raise
        except AuthenticationFailed as error:
            raise AuthenticationFailed(
                f"postgresql: the tokens come from a sequence that this user may not create; "
                f"run once: CREATE SEQUENCE {name}; GRANT USAGE ON SEQUENCE {name} TO this user"
            ) from error

    def _ended(self, link: Link, reason: str) -> None:
        session = self._session
        if session is not None:
            session.link_ended(link, reason)


class Hold(NamedTuple):
    """Where a lock lives: the handle of a grant."""

    session: Session
    link: Link
    key: bytes
    shared: bool


class Session:
    """The connections that live and die together, and what is held on them."""

    def __init__(
        self, driver: PostgresqlDriver, id: str, owner: str, main: Link, lost: Lost
    ) -> None:
        self.id = id
        self.owner = owner
        self.main = main
        self.ended: str | None = None
        self.holding: set[Link] = set()  # beside the main one
        self.grants: dict[str, Hold] = {}
        self._driver = driver
        self._lost = lost
        self._lock = driver.runtime.lock()
        self._waiting: set[Link] = set()
        self._idle: list[Link] = []
        self._keys: dict[bytes, int] = {}  # on the main connection: -1 exclusive, else how many

    def check(self, cause: TenureError | None = None) -> None:
        if self.ended is not None:
            raise SessionLost(f"postgresql: {self.ended}") from cause

    def enter(self, key: bytes, shared: bool) -> bytes:
        """The statement with which to try the key on the main connection.

        Empty if it must not be tried there: to the server the whole connection is one
        holder, which it grants any lock that it already has.
        """
        with self._lock:
            held = self._keys.get(key, 0)
            if held == 0:
                self._keys[key] = 1 if shared else -1
                return b"share" if shared else b"seize"
            if shared and held > 0:
                self._keys[key] = held + 1
                return b"share_again"
            return b""

    def leave(self, key: bytes) -> None:
        """Forget one holder or attempt on the main connection."""
        with self._lock:
            held = self._keys[key]
            if held > 1:
                self._keys[key] = held - 1
            else:
                del self._keys[key]

    def alone(self, key: bytes) -> bool:
        return self._keys.get(key) in {1, -1}

    async def borrow(self) -> Link:
        """A connection to wait on."""
        link: Link | None = None
        with self._lock:
            while self._idle and (link is None or link.reason is not None):
                link = self._idle.pop()
        if link is None or link.reason is not None:
            link = await self._driver.another(self)
        with self._lock:
            if self.ended is None:
                self._waiting.add(link)
        if self.ended is not None:
            link.end(self.ended)
            self.check()
        return link

    def granted(self, link: Link) -> None:
        """The lock that was waited for is held: from now on the session depends on it."""
        with self._lock:
            self._waiting.discard(link)
            if self.ended is None:
                self.holding.add(link)
        if link.reason is not None:
            self.link_ended(link, link.reason)
        self.check()

    def give_back(self, link: Link) -> None:
        """The connection holds nothing any more."""
        with self._lock:
            self._waiting.discard(link)
            self.holding.discard(link)
            keep = self.ended is None and link.reason is None and len(self._idle) < _SPARE
            if keep:
                self._idle.append(link)
        if not keep:
            link.end("it is not needed any more")

    def link_ended(self, link: Link, reason: str) -> None:
        if link is self.main or link in self.holding:
            self.lose(reason)

    def lose(self, reason: str) -> None:
        """The session is lost. Its holders are told first, then all locks are freed."""
        with self._lock:
            if self.ended is not None:
                return
            self.ended = reason
        self._lost(f"postgresql: {reason}")
        self._end_links(reason)

    def finish(self, reason: str) -> None:
        """The session is over because its owner says so."""
        with self._lock:
            if self.ended is None:
                self.ended = reason
        self._end_links(reason)

    def _end_links(self, reason: str) -> None:
        with self._lock:
            links = [self.main, *self.holding, *self._waiting, *self._idle]
            self.grants.clear()
            self.holding.clear()
            self._waiting.clear()
            self._idle.clear()
        for link in links:
            link.end(reason)


class AdvisoryLocks(Mutex):
    """The native mutex: `pg_advisory_lock` on 64 bits of a hash of the name."""

    def __init__(self, driver: PostgresqlDriver) -> None:
        self._driver = driver
        self._runtime = driver.runtime
        # The namespace's length keeps ("a", "b/c") and ("a/b", "c") apart.
        namespace = driver.namespace.encode()
        self._hash = blake2b(b"%d:%b" % (len(namespace), namespace), digest_size=8)

    def _key(self, name: str) -> bytes:
        hash = self._hash.copy()
        hash.update(name.encode())
        return b"%d" % int.from_bytes(hash.digest(), "big", signed=True)

    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        current = self._driver.current(session)
        key = self._key(name)
        statement = current.enter(key, shared)
        if statement:
            token = await self._try(current, statement, key, shared)
            if token is not None:
                return self._grant(current, current.main, name, id, key, shared, token)
        if until is None:
            return None
        return await self._wait(current, name, id, key, shared, until)

    async def _try(
        self, session: Session, statement: bytes, key: bytes, shared: bool
    ) -> bytes | None:
        token = None
        try:
            token = await session.main.call(statement, key, undo=_free(shared))
        except TenureError as error:
            await self._runtime.finish(self._clear(session, key, shared))
            session.check(error)
            raise
        finally:
            if token is None:
                session.leave(key)
        return token

    async def _clear(self, session: Session, key: bytes, shared: bool) -> None:
        """A try failed halfway: the server keeps the lock although it had no token to give."""
        main = session.main
        if main.reason is not None:
            return
        if not session.alone(key):
            main.end("a shared lock failed halfway")
            return
        try:
            await main.call(_free(shared), key)
        except TenureError as error:
            main.end(f"a lock that failed halfway could not be freed ({error})")

    async def _wait(
        self, session: Session, name: str, id: str, key: bytes, shared: bool, until: float
    ) -> Grant | None:
        link = await session.borrow()
        try:
            await link.ask(b"queue_shared" if shared else b"queue", key)
            while not await link.ready(self._slice(until)):
                session.check()
                if self._runtime.now() >= until:
                    token = await self._runtime.finish(link.withdraw())
                    break
            else:
                token = await link.take()
            session.check()
            if token is not None:
                session.granted(link)
                return self._grant(session, link, name, id, key, shared, token)
        except BaseException as error:
            await self._runtime.finish(self._forsake(session, link, key, shared))
            if isinstance(error, TenureError):
                session.check(error)
            raise
        session.give_back(link)
        return None

    def _slice(self, until: float) -> float:
        return max(0.0, min(_SLICE, until - self._runtime.now()))

    async def _forsake(self, session: Session, link: Link, key: bytes, shared: bool) -> None:
        """Leave neither a lock nor a place in the queue."""
        if not link.asking:
            link.end("what it holds is not known")
        elif await link.withdraw() is not None:
            try:
                await link.call(_free(shared), key)
            except TenureError as error:
                link.end(f"a lock could not be freed ({error})")
        session.give_back(link)

    def _grant(
        self,
        session: Session,
        link: Link,
        name: str,
        id: str,
        key: bytes,
        shared: bool,
        token: bytes,
    ) -> Grant:
        hold = session.grants[id] = Hold(session, link, key, shared)
        return Grant(name, id, int(token), hold)

    async def unseize(self, grant: Grant) -> None:
        session, link, key, shared = grant.handle
        if session.grants.pop(grant.id, None) is None:
            return
        try:
            freed = await link.call(_free(shared), key)
        except TenureError as error:
            link.end(f"a lock could not be freed ({error})")
            session.check(error)
            raise
        finally:
            if link is session.main:
                session.leave(key)
        if freed != b"t":
            link.end("the server did not hold a lock any more that it had granted")
            session.check()
        if link is not session.main:
            session.give_back(link)

    async def holder(self, name: str) -> Holder | None:
        application = await self._driver.main.call(b"holder", self._key(name))
        if application is None:
            return None
        return Holder(application.decode(errors="replace").removeprefix("tenure:"))


def _free(shared: bool) -> bytes:
    return b"free_shared" if shared else b"free"


def _attempts(url: Url) -> list[dict[str, str]]:
    """What to connect with, host by host, in libpq's own words."""
    common = {key: value for key, value in url.options.items() if key in _PASSED_ON}
    common["client_encoding"] = "UTF8"
    common.setdefault("target_session_attrs", "read-write")
    if url.username is not None:
        common["user"] = url.username
    if url.password is not None:
        common["password"] = url.password
    if url.path.strip("/"):
        common["dbname"] = url.path.removeprefix("/")
    if url.hosts:
        if "host" in url.options or "port" in url.options:
            raise InvalidURL(
                f"{url.scheme}: the hosts stand before the path or after '?', not both"
            )
        return [
            {**common, "host": host.name, **({"port": str(host.port)} if host.port else {})}
            for host in url.hosts
        ]
    named: dict[str, str] = {
        key: url.options[key] for key in ("host", "port") if key in url.options
    }
    if any("," in value for value in named.values()):
        raise InvalidURL(f"{url.scheme}: several hosts stand before the path: host:port,host:port")
    return [{**common, **named}]


def _sequence(schema: str) -> str:
    if not schema or "\0" in schema or len(schema.encode()) > 63:
        raise InvalidURL("postgresql: option 'schema' must be the name of a schema")
    quoted = schema.replace('"', '""')
    return f'"{quoted}".tenure_token'


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
    "holder(bigint)": """
        SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (l.classid::bigint << 32 | l.objid::bigint) = $1
        ORDER BY a.backend_start LIMIT 1""",
}

# Notices within a second that a waiting client is gone; a server on Windows cannot.
_CHECK_WAITERS = """
    SELECT set_config('client_connection_check_interval', '1000', false)
    WHERE version() !~* 'mingw|visual|cygwin'"""

_SEQUENCE = """
    SELECT has_sequence_privilege(seqrelid, 'USAGE'),
           seqincrement > 0 AND seqcache = 1 AND NOT seqcycle
    FROM pg_sequence WHERE seqrelid = to_regclass({name})"""

_POOLED = (
    "postgresql: there is a pooler between this client and the server; an advisory lock belongs "
    "to a server connection, which a pooler hands to another client. Connect to the server itself"
)
