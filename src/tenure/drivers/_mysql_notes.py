"""What is written down about a server's locks, in two tables that no lock depends on.

- `tenure_connection`: whose each connection is; and in one row how far tokens had come, so that
  a server whose tokens would fall is found out;
- `tenure_name`: what the locks are called that were held for long, since the server has keys alone.

Without a database, or the right to write there, all of that is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import BackendError, InvalidURL, ProtocolError, Unavailable
from ..wires._mysql_packets import Reply
from ..wires.links import Row
from ..wires.mysql import Link, literal

if TYPE_CHECKING:
    from ._mysql_locks import UserSession

logger = logging.getLogger("tenure")

Ask = Callable[[bytes, Link | None], Awaitable[Reply]]
_MARK = 0  # the row of `tenure_connection` that tells how far tokens had come
_START_BITS = 24  # the part of a token that counts within one run of the server


class Notes:
    """The notes of one driver. `ask` runs a statement on the tables, on some connection."""

    def __init__(self, ask: Ask, writes: bool) -> None:
        self._ask = ask
        self._writes = writes
        self._sweeps = [_FORGET_NAMES, _FORGET_CONNECTIONS]  # yet to be carried out, once

    async def register(self, link: Link, alive: str, owner: str, only_if: bytes = b"1") -> bool:
        """Write down whose connection it is, if that may be done; say whether it was."""
        if not self._writes:
            return False
        # The condition takes the session's lock, in the same round trip.
        condition = only_if.replace(b"%b", alive.encode())
        row = b"%d, UUID_SHORT(), %b, %b" % (link.number, literal(alive), literal(owner))
        statement = b"REPLACE INTO tenure_connection SELECT %b FROM DUAL WHERE %b"
        try:
            return (await self._ask(statement % (row, condition), link)).changed > 0
        except Unavailable:
            raise
        except BackendError as error:
            self._give_up(error)
            return False

    async def forget(self, link: Link) -> None:
        """The connection is about to end."""
        if self._writes:
            await link.run(b"DELETE FROM tenure_connection WHERE number = %d" % link.number)

    async def check_tokens(self, link: Link) -> None:
        """See that no token is lower than those of earlier runs of the server, if that is known."""
        if not self._writes:
            return
        question = b"SELECT token, UUID_SHORT() FROM tenure_connection WHERE number = %d" % _MARK
        try:
            rows = (await self._ask(question, link)).rows
            before, now = (int(each or 0) for each in rows[0]) if rows else (0, 1 << _START_BITS)
            if now >> _START_BITS > before >> _START_BITS:
                await self._ask(_SET_MARK, link)
        except Unavailable:
            raise
        except BackendError as error:
            self._give_up(error)
            return
        if before > now:
            raise BackendError(_FELL.format(now=now, before=before))

    async def name_locks(self, session: UserSession) -> None:
        """Write down what has been held for long, or sweep up; to be called at each renewal."""
        if not self._writes:
            return
        names = session.long_held()
        if not names:
            if self._sweeps:
                # One at a time: a renewal must not take long.
                await self._ask(self._sweeps.pop(), session.main)
            return
        rows = b", ".join(
            b"('%b', %b, CURRENT_TIMESTAMP)" % (key, literal(name)) for key, name in names.items()
        )
        try:
            await self._ask(b"REPLACE INTO tenure_name VALUES " + rows, session.main)
            session.noted(names.values())
        except Unavailable:
            raise
        except BackendError as error:
            self._give_up(error)

    # -- what only an operator needs -----------------------------------------------

    async def owners(self, numbers: Sequence[int]) -> dict[int, str]:
        """Who the connections of these numbers belong to, as far as is written down."""
        owners = {number: f"connection {number}" for number in numbers}
        if numbers:
            listed = b",".join(b"%d" % each for each in numbers)
            question = b"SELECT number, owner FROM tenure_connection WHERE number IN (%b)" % listed
            for number, owner in await self._for_people(question):
                owners[int(number or 0)] = text_of(owner)
        return owners

    async def names(self, prefix: str) -> dict[str, str]:
        """The names of locks that were held for long, by what the server calls them."""
        like = literal(prefix + "%")
        question = b"SELECT place, name FROM tenure_name WHERE place LIKE "
        rows = await self._for_people(question + like)
        return {text_of(place): text_of(name) for place, name in rows}

    async def locks(self, link: Link, prefix: str, own: bytes) -> list[Row]:
        """The keys of the locks that begin so, with the connections that have them.

        `own` is the key of a lock that is held for certain, if there is one.
        """
        like = prefix.encode() + b"%"
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
        keys = list(await self.names(prefix))
        if not keys:
            return []
        asked = ",".join(f"IS_USED_LOCK('{key}')" for key in keys)
        (held,) = await link.rows(f"SELECT {asked}".encode())
        return [
            (key.encode(), number)
            for key, number in zip(keys, held, strict=True)
            if number is not None
        ]

    async def _for_people(self, question: bytes) -> list[Row]:
        try:
            return (await self._ask(question, None)).rows
        except Unavailable:
            raise
        except (BackendError, InvalidURL):
            return []  # without the rights, locks have holders without names

    def _give_up(self, error: BackendError) -> None:
        self._writes = False
        logger.info("tenure: an operator will not see the names and owners of locks: %s", error)


def text_of(value: bytes | None) -> str:
    """A column as text; `ProtocolError` if it is null."""
    if value is None:
        raise ProtocolError("mysql: a column is null that cannot be")
    return value.decode()


_OF_PLUGIN = b"""
    SELECT TABLE_SCHEMA, THREAD_ID FROM information_schema.METADATA_LOCK_INFO
    WHERE LOCK_TYPE = 'User lock' AND (TABLE_SCHEMA LIKE '?' OR TABLE_SCHEMA = '!')"""
_OF_SCHEMA = b"""
    SELECT OBJECT_NAME, PROCESSLIST_ID FROM performance_schema.metadata_locks
    JOIN performance_schema.threads ON THREAD_ID = OWNER_THREAD_ID
    WHERE OBJECT_TYPE = 'USER LEVEL LOCK' AND LOCK_STATUS = 'GRANTED'
    AND (OBJECT_NAME LIKE '?' OR OBJECT_NAME = '!')"""

_SET_MARK = (
    b"INSERT INTO tenure_connection VALUES (%d, UUID_SHORT(), '', '') "
    b"ON DUPLICATE KEY UPDATE token = GREATEST(token, VALUES(token))" % _MARK
)
_FORGET_NAMES = (
    b"DELETE FROM tenure_name WHERE seen < CURRENT_TIMESTAMP - INTERVAL 1 DAY "
    b"AND IS_USED_LOCK(place) IS NULL"
)
_FORGET_CONNECTIONS = (
    b"DELETE FROM tenure_connection WHERE alive <> '' AND IS_USED_LOCK(alive) IS NULL"
)

_FELL = (
    "mysql: tokens would fall: UUID_SHORT() gives {now}, after {before}. The server's clock was "
    "set back, it was started twice within a second, or it took the place of one with a higher "
    "server_id. Correct that and restart it; or, if nothing relies on older tokens, empty the "
    "table tenure_connection"
)
