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

import math

from .._model import Traits
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
from ..wires.postgresql import Link, ThreadWire
from ..wires.postgresql_loop import LoopWire
from ._advisory import SLICE, AdvisoryLocks, Session
from .base import Driver, Lost

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
        poll=SLICE,
        min_ttl=1.0,
    )

    mutex: AdvisoryLocks

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
        self.session: Session | None = None  # the one that was started last
        self.mutex = AdvisoryLocks(self, runtime, namespace)

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
        if self.session is not None:
            self.session.ended = "the process was forked"

    async def start(self, owner: str, lost: Lost) -> str:
        self._forget("a new session was started")
        link, self._first = self._first, None
        if link is None or link.reason is not None:
            link = await self._main()
        try:
            await self._prepare(link, owner)
        except BaseException:
            link.end("it could not be set up")
            raise
        session = Session(self, self.runtime, owner, link, lost)
        self.session = session
        if link.reason is not None:
            session.lose(link.reason)
            raise SessionLost(f"postgresql: {link.reason}")
        return session.id

    async def renew(self, session: str) -> None:
        current = self.current(session)
        try:
            for link in (current.main, *tuple(current.holding)):
                # A connection that was given back meanwhile may be waiting for a lock by now.
                if link.parked or not link.asking:
                    await link.ping()
        except TenureError as error:
            current.check(error)
            raise

    async def end(self, session: str) -> None:
        if self.session is not None and self.session.id == session:
            self._forget("the session was ended")

    def current(self, session: str) -> Session:
        """The session, if it is the one that lives; `SessionLost` if not."""
        current = self.session
        if current is None or current.id != session:
            raise SessionLost("postgresql: the session is over")
        if current.ended is not None:
            raise SessionLost(f"postgresql: {current.ended}")
        return current

    @property
    def main(self) -> Link:
        """A connection for questions that belong to no session."""
        link = self._first if self.session is None else self.session.main
        if link is None:
            raise Unavailable("postgresql: not connected")
        return link

    def _forget(self, reason: str) -> None:
        session, self.session = self.session, None
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
            # A holder that was paused keeps its lock, so that nobody is let in beside it.
            settings["idle_session_timeout"] = "0"
        chosen = ", ".join(
            f"set_config('{name}', {link.literal(value)}, false)"
            for name, value in settings.items()
        )
        script = ["DEALLOCATE ALL", f"SELECT {chosen}", _FLUSH_TOKENS]
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
        session = self.session
        if session is not None:
            session.link_ended(link, reason)


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

# Else a crash of the server could take back tokens that it has handed out.
_FLUSH_TOKENS = """
    SELECT set_config('synchronous_commit', 'local', false)
    WHERE current_setting('synchronous_commit') = 'off'"""

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
