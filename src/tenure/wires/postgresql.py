"""Connections to PostgreSQL: the libpq calls behind the driver, blocking and asyncio.

Both flavours work on `psycopg.pq`, the thin binding of libpq: half of what a cursor
costs goes into converting values that are not needed here. A `Link` is one connection;
it carries one statement at a time, and a statement that was sent is never given up
halfway: either its reply is read, or the connection ends.

- `ThreadLink.call` blocks inside libpq, which knows no time limit. A background job
  (`hangup.Hangup`) shuts the socket down under a call that takes too long.
- `LoopLink` keeps a reader on the loop for as long as the connection lives, so that
  the end of an idle connection is seen at once there too.

`ask`, `ready` and `take` are the same round trip in three steps, for a statement that
may wait for hours; `withdraw` calls it off.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from psycopg import pq

from ..errors import OutcomeUnknown, TenureError, Unavailable
from .libpq import Heard, Row, Withdrawn

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

Ended = Callable[["Link", str], None]

_TUPLES_OK = pq.ExecStatus.TUPLES_OK
_COMMAND_OK = pq.ExecStatus.COMMAND_OK


# -- one connection -----------------------------------------------------------


class Link(ABC):
    """One connection. `reason` says why it ended, and is None while it lives."""

    def __init__(self, pgconn: PGconn, patience: float, ended: Ended) -> None:
        self.reason: str | None = None
        self.asking = False
        self.parked = False  # with a ping that has not been answered yet
        self._pgconn = pgconn
        self._patience = patience
        self._ended = ended
        self._socket = pgconn.socket

    @property
    def server_version(self) -> int:
        return self._pgconn.server_version

    @property
    def backend_pid(self) -> int:
        """The server process, as the greeting named it."""
        return self._pgconn.backend_pid

    def literal(self, text: str) -> str:
        """The text as an SQL string constant."""
        return bytes(pq.Escaping(self._pgconn).escape_literal(text.encode())).decode()

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a statement is under way, behind which the next one would queue up."""

    @abstractmethod
    async def call(self, statement: bytes, values: tuple[bytes, ...], undo: bytes) -> bytes | None:
        """Run a prepared statement; return its only value.

        A cancelled call still reads its reply, and then runs `undo` with the same
        values if there is something to undo.
        """

    async def script(self, sql: str) -> Row:
        """Run SQL text in one round trip; return the first row of its last statement."""
        found = await self.rows(sql)
        return found[0] if found else ()

    @abstractmethod
    async def rows(self, sql: str) -> list[Row]:
        """Run SQL text in one round trip and one transaction; return the last one's rows."""

    @abstractmethod
    async def hear(self, seconds: float) -> list[Heard]:
        """Wait at most so long for notifications; return those that came.

        For one caller at a time, who may be waiting while others run statements.
        """

    @abstractmethod
    async def ask(self, statement: bytes, values: tuple[bytes, ...]) -> None:
        """Send a prepared statement whose reply may take long."""

    @abstractmethod
    async def ready(self, seconds: float) -> bool:
        """Wait at most so long for the reply; say whether it is there."""

    @abstractmethod
    async def take(self) -> bytes | None:
        """The value of the reply that is there."""

    @abstractmethod
    async def cancel(self) -> None:
        """Ask the server to give the running statement up."""

    @abstractmethod
    def end(self, reason: str) -> None:
        """End the connection, whatever is under way on it. Idempotent."""

    async def ping(self, statement: bytes = b"ping", values: tuple[bytes, ...] = ()) -> None:
        """See that the server answers, with a statement that may be carried out or not.

        A ping has no outcome that could be unknown, so one that is not answered in time
        does not end the connection: it stays under way, and the next one waits for it.
        """
        until = monotonic() + self._patience
        while True:
            late = self._unpark()
            if not late:
                await self.ask(statement, values)
            answered = False
            try:
                answered = await self.ready(max(0.0, until - monotonic()))
            finally:
                if not answered:
                    self._park()
            if not answered:
                raise OutcomeUnknown("postgresql: the server has not answered a ping yet")
            await self.take()
            if not late:
                return

    @abstractmethod
    def _park(self) -> None:
        """Leave the ping under way, unless the connection has ended."""

    @abstractmethod
    def _unpark(self) -> bool:
        """Go on with the ping that was left under way, if there is one."""

    async def withdraw(self) -> bytes | None:
        """Call off what was asked; return the value if the reply was faster.

        Afterwards the connection is idle, or it has ended.
        """
        try:
            if self.reason is None:
                await self.cancel()
            if await self.ready(self._patience):
                return await self.take()
            self._give_up("the server does not answer a cancel request")
        except Withdrawn:
            return None
        except TenureError as error:
            self._give_up(f"a statement could not be called off ({error})")
        return None

    def _give_up(self, reason: str) -> None:
        """End the connection, of which this caller holds the gate if it still asks."""
        self.end(reason)
        if self.asking:
            self._leave()

    @abstractmethod
    def _leave(self) -> None:
        """Let the next statement in, or close the connection if it has ended."""

    def abandon(self) -> None:
        """In a forked child: let go of the connection without a word to the server."""
        # libpq says farewell on the descriptor when it frees the connection, so that
        # leads to nowhere first. The parent's own descriptor is another one.
        if self.reason is None:
            self.reason = "the process was forked"
            nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nowhere, self._socket, inheritable=False)
            os.close(nowhere)

    def _gone(self) -> Unavailable:
        return Unavailable(f"postgresql: the connection has ended: {self.reason}")

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(f"postgresql: no reply, the connection has ended: {self.reason}")
