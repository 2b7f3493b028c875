"""Connections to PostgreSQL: the libpq calls behind the driver, blocking and asyncio.

Both flavours work on `psycopg.pq`, the thin binding of libpq: half of what a cursor
costs goes into converting values that are not needed here. What a `Link` keeps to is in
`wires.links`.

- `ThreadLink.call` blocks inside libpq, which knows no time limit. A background job
  (`hangup.Hangup`) shuts the socket down under a call that takes too long.
- `LoopLink` keeps a reader on the loop for as long as the connection lives, so that
  the end of an idle connection is seen at once there too.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from .._model import Server
from . import links
from .libpq import Heard
from .links import Ended, Row

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn


class Link(links.Link):
    """One connection to PostgreSQL."""

    service = "postgresql"
    PING = b"ping"

    def __init__(self, pgconn: PGconn, patience: float, ended: Ended) -> None:
        super().__init__(patience, ended)
        self._pgconn = pgconn
        self._socket = pgconn.socket
        # Read now: later, another thread may be at work on the connection.
        told = pgconn.parameter_status(b"server_version") or b""
        self._version = told.decode(errors="replace")
        self.pooled = False
        """Whether there is a pooler between this client and the server."""

    def server(self) -> Server:
        """What the server, or the pooler in its name, said in its greeting."""
        topology = "behind a pooler" if self.pooled else ""
        return Server("postgresql", self._version, topology, "psycopg", psycopg.__version__)

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

    def abandon(self) -> None:
        # libpq says farewell on the descriptor when it frees the connection, so that
        # leads to nowhere first. The parent's own descriptor is another one.
        if self.reason is None:
            self.reason = "the process was forked"
            nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nowhere, self._socket, inheritable=False)
            os.close(nowhere)
