"""Reaching a PostgreSQL server: its hosts, a pooler in between, and what it must have."""

from __future__ import annotations

from collections.abc import Mapping

from .._runtime.base import Runtime
from .._url import Url
from ..errors import (
    AuthenticationFailed,
    BackendError,
    InvalidURL,
    OutcomeUnknown,
    Unavailable,
    Unsupported,
)
from ..wires.libpq import Refused
from ..wires.links import Ended
from ..wires.postgresql import Link
from ..wires.postgresql_loop import LoopWire
from ..wires.postgresql_thread import ThreadWire
from ._postgresql_url import OPTIONS, attempts, quoted

_POOLER_LOOKS = 3


class Doors:
    """How to get in: the hosts of a URL, and the wire of the runtime's flavour."""

    def __init__(self, url: Url, runtime: Runtime, patience: float, ended: Ended) -> None:
        url.check_options(OPTIONS)
        self._attempts = attempts(url)
        self._seconds = min(patience, url.number("connect_timeout", patience, least=0.1))
        self._ended = ended
        self.schema = quoted(url.options.get("schema", "public"))
        self.sequence = f"{self.schema}.tenure_token"
        self.rows_table = f"{self.schema}.tenure_row"
        self.wire: ThreadWire | LoopWire
        if runtime.flavour == "thread":
            self.wire = ThreadWire(runtime, patience)
        elif runtime.flavour == "asyncio":
            self.wire = LoopWire(patience)
        else:
            raise Unsupported("postgresql: there is no simulated connection")

    async def connect(self, *, own_server: bool) -> Link:
        """Connect to the first host that will do.

        With `own_server`, see that a server connection belongs to this client alone.
        """
        share = self._seconds / len(self._attempts)
        failure: BackendError | InvalidURL | None = None
        for parameters in self._attempts:
            try:
                link = await self.wire.connect(parameters, share, self._ended)
                break
            except (BackendError, InvalidURL) as error:
                failure = error
        else:
            assert failure is not None
            raise failure
        try:
            (pid, standby) = await link.script("SELECT pg_backend_pid(), pg_is_in_recovery()")
            link.pooled = is_pooled(link, pid)
            if own_server and link.pooled:
                await self._check_pooler(link, parameters, pid)
            if standby == b"t":
                raise Unavailable("postgresql: this server is a standby; name the primary too")
        except BaseException:
            link.end("it will not do")
            raise
        return link

    async def _check_pooler(
        self, link: Link, parameters: Mapping[str, str], pid: bytes | None
    ) -> None:
        """See that the pooler leaves the server connection to its client between statements.

        If it does not, then a second client is given the one that the first has just been
        using, or the first another one, whichever way the pooler takes turns.
        """
        question = "SELECT pg_backend_pid()"
        try:
            other = await self.wire.connect(parameters, self._seconds, _unconcerned)
            try:
                for _ in range(_POOLER_LOOKS):
                    (theirs,) = await other.script(question)
                    (ours,) = await link.script(question)
                    if ours != pid or theirs == ours:
                        raise Unsupported(_POOLED)
            finally:
                other.end("the pooler was looked at")
        except OutcomeUnknown as error:
            raise Unavailable(
                "postgresql: there is a pooler between this client and the server, which has no "
                "second connection for it now; advisory locks need several for each client"
            ) from error


def is_pooled(link: Link, pid: bytes | None) -> bool:
    """Whether who answers is not the process that the greeting named."""
    return pid != str(link.backend_pid).encode()


def _unconcerned(_link: Link, _reason: str) -> None:
    """Nothing depends on that connection."""


async def check_tokens(link: Link, name: str) -> None:
    """See that the sequence is there, may be used, and never counts backwards."""
    question = _SEQUENCE.format(name=link.literal(name))
    found = await link.script(question)
    if not found:
        await make(
            link,
            f"CREATE SEQUENCE IF NOT EXISTS {name}",
            f"the tokens come from a sequence that this user may not create; run once: "
            f"CREATE SEQUENCE {name}; GRANT USAGE ON SEQUENCE {name} TO this user",
        )
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


async def make(link: Link, statement: str, forbidden: str) -> None:
    """Create something if it is not there; `forbidden` says what to do without the right."""
    try:
        await link.script(statement)
    except Refused as error:
        # Two clients that create it at once: one may fail on the catalogue's own index, or on the
        # type that a table has for its rows. The latter may also be a type of somebody else's.
        if error.state == "42710":
            await link.script(statement)
        elif error.state not in {"23505", "42P07"}:
            raise
    except AuthenticationFailed as error:
        raise AuthenticationFailed(f"postgresql: {forbidden}") from error


# -- one strategy for all clients of a namespace --------------------------------


async def refuse_advisory(link: Link, namespace: str, badge: int) -> None:
    """`InvalidURL` if somebody uses the namespace with advisory locks now."""
    found = await link.script(_BADGES.format(badge=badge))
    if found != (b"0",):
        raise InvalidURL(_MIXED.format(namespace=namespace, theirs="advisory locks", ours="rows"))


async def refuse_rows(link: Link, namespace: str, table: str) -> None:
    """`InvalidURL` if somebody uses the namespace with locks in rows now."""
    if await link.script(f"SELECT to_regclass({link.literal(table)})") == (None,):
        return
    may_read = f"SELECT has_table_privilege({link.literal(table)}, 'SELECT')"
    if await link.script(may_read) != (b"t",):
        return  # the table of other people, who share nothing with this user
    found = await link.script(_SESSIONS.format(table=table, space=link.literal(namespace)))
    if found != (b"0",):
        raise InvalidURL(_MIXED.format(namespace=namespace, theirs="rows", ours="advisory locks"))


_BADGES = """
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32 | objid::bigint) = {badge}"""

_SESSIONS = """
    SELECT count(*) FROM {table}
    WHERE kind = 'session' AND namespace = {space} AND expires > clock_timestamp()"""

_MIXED = (
    "postgresql: others use the namespace {namespace!r} with {theirs} now, and this URL asks for "
    "{ours}: they would not exclude each other. All clients of a namespace use the same URL: "
    "?lock=row for rows, nothing for advisory locks"
)

_SEQUENCE = """
    SELECT has_sequence_privilege(seqrelid, 'USAGE'),
           seqincrement > 0 AND seqcache = 1 AND NOT seqcycle
    FROM pg_sequence WHERE seqrelid = to_regclass({name})"""

_POOLED = (
    "postgresql: a pooler between this client and the server hands the server connection to "
    "others after each transaction, and with it the locks that belong to it. Choose locks as "
    "rows with ?lock=row, or connect to the server itself or to a pool in session mode"
)
