"""Connections to a database server, through SQLAlchemy's dialects and a blocking DBAPI module.

SQLAlchemy knows how a URL becomes the module's arguments, how that module is set to autocommit,
and which of its errors mean that the connection is gone. Statements go to the module itself:
an engine's own layers would cost as much as the statement does.
"""

from __future__ import annotations

import math
from typing import Any

import sqlalchemy
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from .._model import Server
from .._url import Url
from ..errors import (
    AuthenticationFailed,
    BackendError,
    InvalidURL,
    StorageError,
    Unavailable,
    UnknownDriver,
)
from .sql import Duplicate, MissingTable, hurried, told

_INSTALL = {
    "psycopg": "psycopg[binary]",
    "psycopg2": "psycopg2-binary",
    "pymysql": "PyMySQL",
    "mysqldb": "mysqlclient",
}
_REFUSED = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "is not permitted to log in",
    "permission denied for database",
    "certificate",
)
"""In what libpq says when it cannot connect: it does not tell the SQLSTATE."""

# SQLSTATE, or the number that MySQL and MariaDB tell.
_VERSION = {"postgresql": "SHOW server_version"}
_VERSION_ELSE = "SELECT VERSION()"

_MISSING_TABLE = {"42P01", 1146}
_DUPLICATE = {"23505", "42P07", "42710", 1062}
_DENIED = {"42501", 1044, 1045, 1142, 1143, 1227, 1370, 1698}
_FULL = {"53100", "53200", 1021, 1041, 1114}
_NOT_NOW = {
    *("40001", "40P01", "55P03", "57014", "57P03", "25006", "53300", "53400"),
    # Lock waits, deadlocks, too many connections, read-only, over a time limit, interrupted.
    *(1205, 1213, 1040, 1203, 1226, 1290, 1792, 1836, 1969, 3024, 1317, 1020),
}
"""Rolled back, and worth another try."""


class AlchemyMaker:
    """Makes connections to one server."""

    local = False

    def __init__(self, label: str, url: Url, dialect: str, patience: float) -> None:
        self.label = label
        query = dict(url.options)
        host = url.hosts[0] if url.hosts else None
        self._target = URL.create(
            dialect,
            username=url.username,
            password=url.password,
            host=None if host is None else host.name or None,
            port=(host.port or None) if host is not None else None,
            database=url.path.strip("/") or None,
            query=query,
        )
        try:
            kind: Any = self._target.get_dialect()
        except (NoSuchModuleError, ArgumentError) as error:
            raise InvalidURL(f"{label}: SQLAlchemy has no dialect {dialect!r}") from error
        self.name = str(kind.name)
        self.driver = str(kind.driver)
        if kind.is_async:
            raise InvalidURL(
                f"{label}: {self.driver} is for asyncio alone; name a blocking module, such as "
                "psycopg or pymysql, for both APIs: with asyncio it has threads of its own"
            )
        try:
            module: Any = kind.import_dbapi()
        except ImportError as error:
            name = _INSTALL.get(self.driver, self.driver)
            raise UnknownDriver(
                f"{label}: the module of {self.driver} is missing; "
                f"install it with: pip install '{name}'"
            ) from error
        self._dialect = kind(dbapi=module)
        self.errors: tuple[type[BaseException], ...] = (module.Error, module.Warning)
        self.placeholder = {"qmark": "?", "pyformat": "%s", "format": "%s"}.get(
            str(self._dialect.paramstyle), ""
        )
        try:
            arguments, named = self._dialect.create_connect_args(self._target)
        except (SQLAlchemyError, TypeError, ValueError) as error:
            raise InvalidURL(f"{label}: an option of the URL has a wrong value") from error
        # Whoever waits is told in time anyway; this ends what is left behind.
        limit = math.ceil(patience) if self.driver != "psycopg" else max(2, math.ceil(patience))
        self._arguments = arguments
        self._named = {"connect_timeout": limit, **named}
        if self.driver == "pymysql" and not any("ssl" in each for each in named):
            # Else it reads the system's certificates anew for each connection, which takes longer
            # than all the rest, to encrypt if the server happens to, checking nothing.
            self._named["ssl_disabled"] = True

    @property
    def question(self) -> str:
        """The statement that asks for the server's version."""
        return _VERSION.get(self.name, _VERSION_ELSE)

    def server(self, version: str) -> Server:
        """What has answered to the question."""
        product = self.name
        if product != "postgresql":
            # The URL may call either by the other's name.
            product = "mariadb" if "mariadb" in version.lower() else "mysql"
        return Server(product, version, "", "SQLAlchemy", sqlalchemy.__version__)

    def connect(self, seconds: float) -> Any:
        """A connection in autocommit mode, or `Unavailable` when the time is over."""
        late = f"{self.label}: no connection after {seconds:g} seconds"
        return hurried(self._connect, seconds, late)

    def _connect(self) -> Any:
        dialect = self._dialect
        try:
            connection = dialect.connect(*self._arguments, **self._named)
        except self.errors as error:
            raise self._no_connection(error) from error
        except (TypeError, ValueError) as error:
            raise InvalidURL(
                f"{self.label}: an option of the URL is not known to {self.driver}, or wrong"
            ) from error
        except OSError as error:  # the module makes errors of its own of what the network does
            raise InvalidURL(
                f"{self.label}: a file that the URL names cannot be used: {error}"
            ) from error
        try:
            dialect.set_isolation_level(connection, "AUTOCOMMIT")
        except self.errors as error:
            connection.close()
            raise Unavailable(f"{self.label}: {told(error)}") from error
        return connection

    def descriptor(self, connection: Any) -> int | None:
        """The socket's descriptor; None where the module does not tell."""
        for each in (connection, getattr(connection, "_sock", None)):
            fileno = getattr(each, "fileno", None)
            if fileno is not None:
                return int(fileno())
        return None

    def ended(self, error: BaseException, connection: Any) -> bool:
        """Whether the connection is of no use after this error."""
        if _code(error) is None and isinstance(error, self._dialect.dbapi.InterfaceError):
            return True
        return bool(self._dialect.is_disconnect(error, connection, None))

    def translated(self, error: BaseException) -> Exception:
        """What a statement ended with, on a connection that goes on."""
        code = _code(error)
        text = f"{self.label}: {told(error)}"
        if code in _MISSING_TABLE:
            return MissingTable(text)
        if code in _DUPLICATE:
            return Duplicate(text)
        if code in _DENIED or str(code).startswith("28"):
            return AuthenticationFailed(text)
        if code in _FULL:
            return StorageError(text)
        return Unavailable(text) if code in _NOT_NOW else BackendError(text)

    def _no_connection(self, error: BaseException) -> Exception:
        code, said = _code(error), told(error)
        text = f"{self.label}: {said}"
        denied = any(phrase in said for phrase in _REFUSED)
        if denied or code in _DENIED or ('role "' in said and "does not exist" in said):
            return AuthenticationFailed(text)
        if code == 1049 or ('database "' in said and "does not exist" in said):
            return BackendError(f"{text}; the URL's path names the database")
        if "invalid connection option" in said or "invalid sslmode" in said:
            return InvalidURL(text)
        return Unavailable(text)


def _code(error: BaseException) -> str | int | None:
    """The SQLSTATE, or the number, that the server has told."""
    number = error.args[0] if error.args else None
    if isinstance(number, int):
        return number
    for name in ("sqlstate", "pgcode"):
        state = getattr(error, name, None)
        if isinstance(state, str):
            return state
    return None
