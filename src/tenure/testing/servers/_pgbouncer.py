"""A private pgbouncer in front of a private PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from ._base import Server
from ._postgres import PostgresServer, program
from ._tools import ServerFailed, find_program, run_tool, write_private

_PACKAGE = "pgbouncer"

Mode = Literal["session", "transaction", "statement"]


class PgBouncer(Server):
    """pgbouncer in one mode; every client reaches the server as the server's own user.

    The URL has the options of the server's. The server is started and stopped by itself.
    """

    kind: ClassVar[str] = "pgbouncer"

    def __init__(
        self,
        behind: PostgresServer,
        *,
        mode: Mode = "transaction",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(user=behind.user, password=behind.password, settings=settings)
        self.behind = behind
        self.mode = mode

    def url_at(self, port: int) -> str:
        """The backend URL with another port: that of a proxy, for instance."""
        return self.behind.url_at(port)

    def _account(self) -> str | None:
        return self.behind._account()  # it refuses to run as root, too

    def _prepare(self) -> None:
        account = self._account()
        if account is not None:
            shutil.chown(self.folder, account)
        login = f"user={self.user}"
        if self.password is not None:
            login += f" password={self.password}"
        settings = {
            "listen_addr": self.host,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": self.mode,
            "max_client_conn": "300",
            "default_pool_size": "50",
            "logfile": "",
            "pidfile": "",
        } | self.settings
        lines = [
            "[databases]",
            f"* = host={self.behind.host} port={self.behind.port} dbname=postgres {login}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        write_private(self.folder / "pgbouncer.ini", "\n".join(lines) + "\n", account)

    def _command(self) -> Sequence[str]:
        return [find_program("pgbouncer", _PACKAGE), str(self.folder / "pgbouncer.ini")]

    def _ready(self) -> bool:
        command = [program("pg_isready"), "-q", "-t", "1", "-h", self.host, "-p", str(self.port)]
        try:
            run_tool(command, home=self.folder)
        except ServerFailed:
            return False
        return True
