"""A private MariaDB, which speaks MySQL's protocol."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlencode

from ._base import PROBE_LIMIT, Server
from ._tools import ServerMissing, find_program, run_tool

_PACKAGE = "mariadb-server"
_LOG_SIZE = "--innodb-log-file-size=8M"
_template_lock = threading.Lock()


class MysqlServer(Server):
    """MariaDB with room for hundreds of clients; its commits reach the kernel, not the disk.

    The clients' user may do anything in the database `tenure`, and nothing elsewhere. The
    plugin that lists metadata locks is loaded.
    """

    kind: ClassVar[str] = "mysql"

    def __init__(
        self,
        *,
        user: str = "tenure",
        password: str | None = None,
        tls: bool = False,
        mutual_tls: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            user=user, password=password, tls=tls, mutual_tls=mutual_tls, settings=settings
        )
        self._started = 0

    def url_at(self, port: int) -> str:
        """The backend URL with another port: that of a proxy, for instance."""
        options = {"tls": "true"} | self._tls_options() if self.tls else {}
        query = urlencode(options)
        return f"mysql://{self._authority(port)}/tenure{'?' if query else ''}{query}"

    def sql(self, text: str) -> str:
        """Carry out SQL as root, over the socket file; columns are parted by tabs."""
        # Read from standard input, so that no password shows up among the processes.
        command = [_program("mariadb"), "--no-defaults", "-N", "-B", "-u", "root"]
        command += ["-S", str(self.socket_file)]
        return run_tool(command, home=self.folder, account=self._account(), text=text).strip()

    @property
    def socket_file(self) -> Path:
        """The server's socket file."""
        return self.folder / "socket"

    def _account(self) -> str | None:
        if os.geteuid() != 0:
            return None
        for name in ("mysql", "nobody"):  # it refuses to run as root
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name).pw_name
        raise ServerMissing(f"no user to run MariaDB as: apt-get install {_PACKAGE}")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _prepare(self) -> None:
        if self._data.exists():
            return
        account = self._account()
        if account is not None:
            shutil.chown(self.folder, account)
        template = _template(self.folder.parent, account)
        copy = ["cp", "-a", str(template), str(self._data)]
        run_tool(copy, home=self.folder, account=account)

    def _command(self) -> Sequence[str]:
        settings = {
            "datadir": str(self._data),
            "bind-address": self.host,
            "port": str(self.port),
            "socket": str(self.socket_file),
            "pid-file": str(self.folder / "pid"),
            "tmpdir": str(self.folder),
            "innodb-buffer-pool-size": "32M",
            "innodb-flush-log-at-trx-commit": "2",
            "max-connections": "600",
            "plugin-load-add": "metadata_lock_info",
        }
        if self.tls:
            certificates = self.certificates
            settings |= {
                "ssl-ca": str(certificates.ca),
                "ssl-cert": str(certificates.server_cert),
                "ssl-key": str(certificates.server_key),
            }
        while int(time.time()) == self._started:
            time.sleep(0.02)  # of two starts in one second, both would give the same UUID_SHORT
        command = [_program("mariadbd"), "--no-defaults", "--skip-name-resolve", "--skip-log-bin"]
        command.append(_LOG_SIZE)
        return command + [f"--{name}={value}" for name, value in (settings | self.settings).items()]

    def _ready(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), PROBE_LIMIT) as probe:
                probe.settimeout(PROBE_LIMIT)
                greeted = probe.recv(5)[4:] == b"\x0a"
        except OSError:
            return False
        self._started = int(time.time())  # or before
        return greeted

    def _finish(self) -> None:
        user, rule = _literal(str(self.user)), ""
        if self.tls:
            rule = " REQUIRE X509" if self.mutual_tls else " REQUIRE SSL"
        secret = "" if self.password is None else f" IDENTIFIED BY {_literal(self.password)}"
        self.sql(
            f"CREATE DATABASE tenure; CREATE USER {user}@'%'{secret}{rule};"
            f"GRANT ALL ON tenure.* TO {user}@'%';"
        )


def _template(run: Path, account: str | None) -> Path:
    """A fresh data folder, made once per run: a copy takes a tenth of what making it does."""
    folder = run / "mysql-template"
    with _template_lock:
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            if account is not None:
                shutil.chown(folder, account)
            command = [_program("mariadb-install-db"), "--no-defaults", "--skip-test-db", _LOG_SIZE]
            command += [f"--datadir={folder / 'data'}", "--auth-root-authentication-method=normal"]
            # A server that starts removes what others have put into a folder that they share.
            command.append(f"--tmpdir={folder}")
            run_tool(command, home=folder, account=account)
            (folder / "ready").touch()
    return folder / "data"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _program(name: str) -> str:
    return find_program(name, _PACKAGE)
