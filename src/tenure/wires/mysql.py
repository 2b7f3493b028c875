"""Connections to MySQL and MariaDB, blocking and asyncio.

PyMySQL connects and proves who one is, with all the ways that servers have of asking for
that; from then on the socket is our own. A statement and its reply in the text protocol
are a few packets, and this way both flavours send the same bytes, a reply that is late
can never be taken for another's, and the end of an idle connection is seen at once.
What a `Link` keeps to is in `wires.links`.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Awaitable, Callable

import pymysql

from .._model import Server
from ..errors import (
    InvalidArgument,
    StorageError,
    TenureError,
    Unavailable,
)
from . import links
from ._mysql_connect import Greeted
from ._mysql_packets import QUIT, Reply
from .links import Ended, Row, Withdrawn

_ROOM = 1024  # bytes of a packet that are not the statement's values
_CLEAN = b"SELECT RELEASE_ALL_LOCKS()"

Kill = Callable[[int], Awaitable[None]]
"""Call off the statement of the connection of that number."""


class Link(links.Link):
    """One connection to MySQL or MariaDB. In a statement, `?` stands for the value."""

    service = "mysql"
    PING = b"DO 0"

    def __init__(self, greeted: Greeted, patience: float, ended: Ended) -> None:
        super().__init__(patience, ended)
        self.number = greeted.number
        """The connection's number, as the server named it in its greeting."""
        # MariaDB may put a version of MySQL's before its own.
        self.version = greeted.version.removeprefix("5.5.5-")
        self.packet_max = 1 << 20
        """The longest statement that the server takes, in bytes."""
        self.kill: Kill | None = None
        self._socket = greeted.socket
        self._socket_number = self._socket.fileno()

    @property
    def mariadb(self) -> bool:
        """Whether the server is MariaDB."""
        return "mariadb" in self.version.lower()

    def server(self, nodes: int) -> Server:
        """What the server said in its greeting. `nodes`: of its Galera cluster, if it has one."""
        product = "mariadb" if self.mariadb else "mysql"
        topology = f"cluster of {nodes}" if nodes else ""
        return Server(product, self.version, topology, "PyMySQL", pymysql.VERSION_STRING)

    @abstractmethod
    async def run(self, statement: bytes) -> Reply:
        """Run a statement, and read the whole reply even if the caller is cancelled."""

    async def rows(self, statement: bytes) -> list[Row]:
        """Run a statement; return its rows."""
        return (await self.run(statement)).rows

    async def cancel(self) -> None:
        if self.kill is None:
            raise Unavailable("mysql: there is no other connection to cancel a statement with")
        await self.kill(self.number)

    async def withdraw(self) -> bytes | None:
        value = await super().withdraw()
        if value is None and self.reason is None:
            # What was called off may have taken one lock of two; and the request to call it
            # off may yet hit the statement after it, which then shall be this one.
            for last_try in (False, True):
                try:
                    await self.call(_CLEAN, (b"",), b"")
                    break
                except Withdrawn:
                    if last_try:
                        self.end("a statement could not be called off")
                except TenureError as error:
                    self.end(f"a statement could not be called off ({error})")
                    break
        return value

    def abandon(self) -> None:
        if self.reason is None:
            self.reason = "the process was forked"
        # The descriptor alone: the other process goes on talking on the connection.
        with contextlib.suppress(OSError):
            self._socket.close()

    def _check_size(self, size: int) -> None:
        if size + _ROOM > self.packet_max:
            raise StorageError(
                f"mysql: {size} bytes are more than the server takes at once; raise its "
                f"max_allowed_packet, which is {self.packet_max}"
            )

    def _hang_up(self, idle: bool) -> None:
        """Close the socket; of an idle connection, take leave first, or the server logs it."""
        if idle:
            # Under a statement, such a word would keep the server from seeing the end.
            with contextlib.suppress(OSError, ValueError):
                self._socket.setblocking(False)
                self._socket.send(QUIT)
        with contextlib.suppress(OSError):
            self._socket.close()


def literal(text: str) -> bytes:
    """The text as an SQL string."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"mysql: text with a character that UTF-8 cannot encode: {error.reason}"
        ) from None
    return b"'%b'" % data.replace(b"\\", b"\\\\").replace(b"'", b"\\'").replace(b"\0", b"\\0")
