"""Rosters and records of the PostgreSQL driver, in three tables; see `_postgresql_sql`."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from .._model import Claim, Interest, Record, Roll
from ..errors import (
    AuthenticationFailed,
    BackendError,
    InvalidArgument,
    ProtocolError,
    SessionLost,
    TenureError,
)
from ..wires.libpq import Refused
from ..wires.links import Row
from ..wires.postgresql import Link
from . import _postgresql_sql as sql
from ._advisory import escaped, halves, key, plain
from ._postgresql_ear import Ear
from ._serverlocks import Session
from ._serversessions import SessionDriver
from .base import Wake

logger = logging.getLogger("tenure")

OWN = object()
"""Stands for the session that lives on the connection, whichever that will be."""

_UNDEFINED_TABLE = "42P01"


class TableRosters(SessionDriver[Session[Link], Link]):
    """The roster verbs, on whatever connections the driver has."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ear = Ear(self, self.runtime)
        self._ready: Link | None = None  # where the statements are prepared
        self._settling = self.runtime.mutex()

    @abstractmethod
    async def ear_link(self) -> Link:
        """A connection of its own, on which to listen."""

    @property
    @abstractmethod
    def schema(self) -> str:
        """The schema of sequence and tables, quoted."""

    @abstractmethod
    def next_token(self, link: Link) -> str:
        """The SQL that draws a token."""

    # -- the roster ------------------------------------------------------------

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        current = self.current(session)
        place = self._place(roster)
        columns = (self.namespace, roster, session, current.alive, current.owner, body)
        posted = bool(body) and width is None
        if posted:
            (row,) = await self._of_session(
                current, "tn_post", place, id, shared, *columns, queue=place
            )
            entry = row
        else:
            (row,) = await self._of_session(
                current, "tn_claim", place, current.alive, id, width, shared, *columns, queue=place
            )
            await self._bury(place, row[0])
            entry = row[3:7]
        mine: Claim | None = None
        if entry[3] is not None:
            mine = Claim(roster, id, session, _number(entry[3]), current.owner, body, shared)
        elif entry[0] is not None:
            known, was_shared, was_body = _number(entry[0]), entry[1] == b"t", _text(entry[2])
            mine = Claim(roster, id, session, known, current.owner, was_body, was_shared)
        if posted:
            return Roll((), mine)
        return _roll(roster, mine, row[1], row[2], row[7:])

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        place = self._place(roster)
        (row,) = await self._of_anybody(session, "tn_read", place, OWN, id)
        await self._bury(place, row[0])
        mine = None if row[3] is None else _claim(roster, row[3:9])
        return _roll(roster, mine, row[1], row[2], row[9:])

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        place = self._place(roster)
        await self._of_anybody(session, "tn_withdraw", place, OWN, id, max(1, width), queue=place)

    async def amend(self, claim: Claim, body: str) -> Claim:
        known = (self._place(claim.roster), OWN, claim.id)
        if not await self._of_anybody(claim.session, "tn_amend", *known, claim.body, body):
            raise SessionLost("postgresql: the claim is gone, or was changed by someone else")
        return claim._replace(body=body)

    async def census(self, roster: str) -> tuple[Claim, ...]:
        place = self._place(roster)
        rows = await self._of_nobody("tn_census", place, OWN)
        living = [row for row in rows if row[6] == b"t"]
        if len(living) < len(rows):
            await self._bury(place, b"f")
        return tuple([_claim(roster, row[:6]) for row in living])

    async def _bury(self, place: int, all_live: bytes | None) -> None:
        """Remove the dead claims, if some were seen; what was read left them out already."""
        if all_live == b"f":
            try:
                await self._of_nobody("tn_bury", place, OWN)
            except BackendError as error:
                logger.debug("tenure: dead claims could not be removed: %s", error)

    async def rosters(self, prefix: str) -> Sequence[str]:
        rows = await self._of_nobody("tn_rosters", self.namespace, prefix)
        return sorted(_text(row[0]) for row in rows)

    async def last_seen(self, session: str) -> float | None:
        link = await self.questions()
        question = f"SELECT WHERE {key('session', session)} IN ({sql.BEATING})"
        return 0.0 if await link.rows(question) else None

    # -- records ---------------------------------------------------------------

    async def recall(self, name: str) -> Record | None:
        rows = await self._of_nobody("tn_recall", self._place(name), self.namespace, name)
        return Record(_text(rows[0][0]), _number(rows[0][1])) if rows else None

    async def record(self, name: str, text: str | None, version: Any) -> Any:
        known = (self._place(name), self.namespace, name)
        if version is None:
            if text is None:
                raise InvalidArgument("a record can be deleted only by who names its version")
            rows = await self._of_nobody("tn_begin", *known, text)
        elif text is None:
            rows = await self._of_nobody("tn_delete", *known, version)
        else:
            rows = await self._of_nobody("tn_write", *known, text, version)
        return _number(rows[0][0]) if rows else None

    async def recorded(self, prefix: str) -> Sequence[str]:
        rows = await self._of_nobody("tn_recorded", self.namespace, prefix)
        return sorted(_text(row[0]) for row in rows)

    # -- wake-ups --------------------------------------------------------------

    async def listen(self, interest: Interest, wake: Wake) -> None:
        await self.ear.listen(interest, wake)

    def unlisten(self, interest: Interest) -> None:
        self.ear.unlisten(interest)

    # -- asking ----------------------------------------------------------------

    async def _of_session(
        self, session: Session[Link], statement: str, *values: Any, queue: int | None = None
    ) -> list[Row]:
        """Run a statement on the session's own connection, so that none outlives the session."""
        try:
            await self.set_up(session.main)
            filled = [session.alive if value is OWN else value for value in values]
            return await _execute(session.main, statement, filled, queue)
        except TenureError as error:
            session.check(error)
            raise

    async def _of_anybody(
        self, session: str, statement: str, *values: Any, queue: int | None = None
    ) -> list[Row]:
        """The same; the claim may be of another client's session, too."""
        if self.session is not None and self.session.id == session:
            return await self._of_session(self.current(session), statement, *values, queue=queue)
        return await self._of_nobody(statement, *values, queue=queue)

    async def _of_nobody(self, statement: str, *values: Any, queue: int | None = None) -> list[Row]:
        link = await self.questions()
        await self.set_up(link)
        session = self.session
        own = session.alive if session is not None and session.main is link else 0
        filled = [own if value is OWN else value for value in values]
        return await _execute(link, statement, filled, queue)

    def _place(self, roster: str) -> int:
        return key("roster", self.namespace, roster)

    # -- the tables --------------------------------------------------------------

    def is_set_up(self, link: Link) -> bool:
        """Whether the statements on the tables are prepared on the connection."""
        return link is self._ready

    async def set_up(self, link: Link) -> None:
        """Prepare the connection for rosters; make the tables if there are none."""
        if link is self._ready:
            return
        async with self._settling:
            if link is not self._ready:
                # Halfway prepared, it could not be prepared again.
                await self.runtime.finish(self._install(link))

    async def _install(self, link: Link) -> None:
        names = {"token": self.next_token(link), **self.tables}
        first = sql.filled({"check": sql.CHECK, "sweep": sql.SWEEP}, names)
        statements = sql.filled(sql.STATEMENTS, names)
        script = [
            *(f"SET SESSION {name} = {value}" for name, value in sql.SETTINGS.items()),
            *first.values(),
            *(f"PREPARE {name} AS {text}" for name, text in statements.items()),
        ]
        for last_try in (False, True):
            try:
                await link.rows("; ".join(script))
                self._ready = link
                return
            except Refused as error:
                if last_try or error.state != _UNDEFINED_TABLE:
                    raise
            except AuthenticationFailed as error:
                raise AuthenticationFailed(
                    f"postgresql: no permission for the tables of rosters and records ({error}); "
                    f"their owner runs: {self._grant}"
                ) from error
            await self._create_tables(link)

    @property
    def tables(self) -> dict[str, str]:
        """What the tables are called, by the letters that stand for them."""
        return {each.removeprefix("tenure_")[0]: f"{self.schema}.{each}" for each in sql.TABLES}

    @property
    def _grant(self) -> str:
        return f"{sql.GRANT.format(**self.tables)} this user"

    async def _create_tables(self, link: Link) -> None:
        definitions = sql.DEFINITIONS.format(**self.tables)
        high, low = halves(key("tables", self.schema))
        try:
            # One at a time, since `IF NOT EXISTS` looks before it creates.
            await link.rows(f"SELECT pg_advisory_xact_lock({high}, {low}); {definitions}")
        except AuthenticationFailed as error:
            raise AuthenticationFailed(
                "postgresql: rosters and records are kept in tables that this user may not create; "
                f"run once: {' '.join(definitions.split())}; {self._grant}"
            ) from error


async def _execute(
    link: Link, statement: str, values: Sequence[Any], queue: int | None = None
) -> list[Row]:
    """Run a prepared statement; with a `queue`, after waiting for that roster's lock."""
    # In the simple protocol: only there do two statements make one transaction, and one
    # round trip, and has each of them a snapshot of its own.
    text = f"EXECUTE {statement}({', '.join([literal(link, value) for value in values])})"
    if queue is not None:
        text = "SELECT pg_advisory_xact_lock({}, {}); {}".format(*halves(queue), text)
    return await link.rows(text)


def literal(link: Link, value: Any) -> str:
    """The value as an SQL constant."""
    if isinstance(value, str):
        try:
            return link.literal(escaped(value))
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                f"postgresql: text with a character that UTF-8 cannot encode: {error.reason}"
            ) from None
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value))


def _text(value: bytes | None) -> str:
    if value is None:
        raise ProtocolError("postgresql: a column is null that cannot be")
    return plain(value.decode())


def _number(value: bytes | None) -> int:
    if value is None:
        raise ProtocolError("postgresql: a column is null that cannot be")
    return int(value)


def _claim(roster: str, row: Row) -> Claim:
    id, session, token, owner, body, shared = row
    return Claim(
        roster, _text(id), _text(session), _number(token), _text(owner), _text(body), shared == b"t"
    )


def _roll(
    roster: str, mine: Claim | None, ahead: bytes | None, before: bytes | None, head: Row
) -> Roll:
    first = mine if head[0] is None else _claim(roster, head)
    return Roll(
        () if first is None else (first,),
        mine,
        _number(ahead),
        None if before is None else _text(before),
    )
