"""A private PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlencode

from ._base import Server
from ._tools import ServerFailed, ServerMissing, find_program, run_tool, write_private

_PACKAGE = "postgresql"
_template_lock = threading.Lock()


class PostgresServer(Server):
    """PostgreSQL with room for hundreds of clients; without fsync, since only tests use it.

    The clients' user is no superuser but owns the database `postgres`. Without a password
    everybody on loopback is let in; with one, it is asked for by SCRAM. `options` stand in
    the URL, behind the question mark.
    """

    kind: ClassVar[str] = "postgresql"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": does not wait for clients

    def __init__(
        self,
        *,
        user: str = "tenure",
        password: str | None = None,
        tls: bool = False,
        mutual_tls: bool = False,
        settings: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            user=user, password=password, tls=tls, mutual_tls=mutual_tls, settings=settings
        )
        self.options = dict(options or {})

    def url_at(self, port: int) -> str:
        """The backend URL with another port: that of a proxy, for instance."""
        options = dict(self.options)
        if self.tls:
            options |= {"sslmode": "verify-full", "sslrootcert": str(self.ca)}
        if self.mutual_tls:
            options |= {"sslcert": str(self.cert), "sslkey": str(self.key)}
        query = urlencode(options)
        return f"postgresql://{self._authority(port)}/postgres{'?' if query else ''}{query}"

    def psql(self, sql: str) -> str:
        """Carry out SQL as the superuser, over the socket file; columns are joined by '|'."""
        # Read from standard input, so that no password shows up among the processes.
        command = [program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        command += ["-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "postgres"]
        return run_tool(command, home=self.folder, account=self._account(), text=sql).strip()

    def _account(self) -> str | None:
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):  # PostgreSQL refuses to run as root
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name).pw_name
        raise ServerMissing(f"no user to run PostgreSQL as: apt-get install {_PACKAGE}")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _prepare(self) -> None:
        account = self._account()
        if not self._data.exists():
            if account is not None:
                shutil.chown(self.folder, account)
            template = _template(self.folder.parent, account)
            copy = ["cp", "-a", str(template), str(self._data)]
            run_tool(copy, home=self.folder, account=account)
        # The socket file lies in a folder that nobody else can enter.
        method = "trust" if self.password is None else "scram-sha-256"
        host = f"{'hostssl' if self.tls else 'host'} all all {self.host}/32 {method}"
        if self.mutual_tls:
            host += " clientcert=verify-ca"
        rules = f"local all all trust\n{host}\n"
        write_private(self._data / "pg_hba.conf", rules, account)

    def _command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "max_connections": "600",
            "shared_buffers": "32MB",
            "password_encryption": "scram-sha-256",
        }
        if self.tls:
            certificates = self.certificates
            settings |= {
                "ssl": "on",
                "ssl_ca_file": str(certificates.ca),
                "ssl_cert_file": str(certificates.server_cert),
                "ssl_key_file": str(certificates.server_key),
            }
        # Left behind by a kill. Every process of that server is certainly gone, but its id
        # may belong to another of the same user by now, and PostgreSQL would give up.
        for leftover in (self._data / "postmaster.pid", self.folder / f".s.PGSQL.{self.port}.lock"):
            leftover.unlink(missing_ok=True)
        command = [program("postgres"), "-D", str(self._data)]
        for name, value in (settings | self.settings).items():
            command += ["-c", f"{name}={value}"]
        return command

    def _ready(self) -> bool:
        command = [program("pg_isready"), "-q", "-t", "1", "-h", self.host, "-p", str(self.port)]
        try:
            run_tool(command, home=self.folder)
        except ServerFailed:  # still starting or recovering
            return False
        return True

    def _finish(self) -> None:
        secret = "" if self.password is None else f" PASSWORD {_literal(self.password)}"
        name = '"' + str(self.user).replace('"', '""') + '"'
        role = f"CREATE ROLE {name} LOGIN{secret};" if self.user != "postgres" else ""
        if self.user == "postgres" and secret:
            role = f"ALTER ROLE postgres{secret};"
        self.psql(f"{role}\nALTER DATABASE postgres OWNER TO {name};\n")


def _template(run: Path, account: str | None) -> Path:
    """A fresh data folder, made once per run: a copy takes a tenth of what initdb does."""
    folder = run / "postgresql-template"
    with _template_lock:
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            if account is not None:
                shutil.chown(folder, account)
            options = ["-U", "postgres", "-A", "trust", "-N", "--encoding=UTF8", "--locale=C"]
            command = [program("initdb"), "-D", str(folder / "data"), *options]
            run_tool(command, home=folder, account=account)
            (folder / "ready").touch()
    return folder / "data"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def program(name: str) -> str:
    """A program of the newest PostgreSQL installed, or of the one in PATH."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda path: float(path.parent.name) if path.parent.name.isdigit() else 0.0,
        reverse=True,
    )
    for folder in versions:
        if (folder / "postgres").exists() and (folder / name).exists():
            return str(folder / name)
    return find_program(name, _PACKAGE)
