"""Connecting to MySQL and MariaDB with PyMySQL, within a time limit; it blocks."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pymysql
from pymysql.constants import CLIENT
from pymysql.err import Error, OperationalError

from ..errors import AuthenticationFailed, InvalidURL, ProtocolError, TenureError, Unavailable
from ._mysql_errors import refusal

_UNKNOWN_WAYS = {2059, 2061}  # what PyMySQL says of a way to log in that it does not know
_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))


class Tls(NamedTuple):
    """How to speak TLS: files of certificates, and whether the server's is checked."""

    ca: str | None
    cert: str | None
    key: str | None
    verify: bool


class Target(NamedTuple):
    """A server, and who one is there. A path is that of a socket file."""

    host: str
    port: int
    path: str
    user: str
    password: str | None
    database: str
    tls: Tls | None

    def __repr__(self) -> str:
        return f"<Target {self.user}@{self.path or f'{self.host}:{self.port}'}>"


class Greeted(NamedTuple):
    """A connection on which the server has let us in."""

    socket: socket.socket
    version: str
    number: int


if TYPE_CHECKING:
    _Base = pymysql.connections.Connection[Any]
else:
    _Base = pymysql.connections.Connection


class _Connection(_Base):
    """PyMySQL's connection, which gives no password away to who should not see it."""

    encrypted = True

    def _request_authentication(self) -> None:
        greeting: Any = self
        if self.encrypted and not greeting.server_capabilities & CLIENT.SSL:
            raise Unavailable("mysql: the URL asks for TLS, which the server cannot speak")
        super()._request_authentication()  # type: ignore[misc]

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Left to who sets up the rest, in one round trip."""


class _NeverInTheClear:
    """Stands for the plugins that send the password as it is."""

    def __init__(self, connection: Any) -> None:
        """What PyMySQL calls it with is not needed."""

    def authenticate(self, packet: Any) -> Any:
        raise AuthenticationFailed(
            "mysql: the server asks for the password in the clear; connect with tls=true"
        )


_NO_CLEAR_TEXT: Any = {b"mysql_clear_password": _NeverInTheClear}


def greet(target: Target, seconds: float) -> Greeted:
    """Connect and log in, in that time."""
    until = time.monotonic() + seconds
    context = None if target.tls is None else _context(target.tls)
    dialled = _dial(target, seconds)
    # Each read has a limit, but all of them together need one, too.
    guard = _Guard(dialled, max(0.0, until - time.monotonic()))
    try:
        return _log_in(target, dialled, context, max(0.1, until - time.monotonic()))
    except BaseException:
        dialled.close()
        raise
    finally:
        guard.close()


class _Guard:
    """Cuts a connection when its time is over: each read has a limit, but many make no end."""

    def __init__(self, dialled: socket.socket, seconds: float) -> None:
        self._view = dialled.dup()  # TLS takes the socket itself over
        self._lock = threading.Lock()
        self._open = True
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def _cut(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._open:
                self._view.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Not needed any more."""
        self._timer.cancel()
        with self._lock:
            self._open = False
            self._view.close()


def _dial(target: Target, seconds: float) -> socket.socket:
    dialled: socket.socket | None = None
    try:
        if target.path:
            dialled = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            dialled.settimeout(seconds)
            dialled.connect(target.path)
            return dialled
        dialled = socket.create_connection((target.host, target.port), seconds)
        dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        dialled.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                dialled.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return dialled
    except (OSError, UnicodeError) as error:
        if dialled is not None:
            dialled.close()
        where = target.path or f"{target.host}:{target.port}"
        raise Unavailable(f"mysql: cannot connect to {where}: {error}") from error


def _log_in(
    target: Target, dialled: socket.socket, context: ssl.SSLContext | None, seconds: float
) -> Greeted:
    safe = context is not None or bool(target.path)
    connection = _Connection(
        host=target.host or "localhost",
        user=target.user,
        password=(target.password or "").encode(),  # text would become Latin-1
        database=target.database or None,
        charset="utf8mb4",
        autocommit=True,
        ssl=context,
        ssl_disabled=context is None,
        program_name="tenure",
        read_timeout=seconds,
        write_timeout=seconds,
        auth_plugin_map=None if safe else _NO_CLEAR_TEXT,
        defer_connect=True,
    )
    connection.encrypted = context is not None
    if target.path:
        connection._secure = True  # type: ignore[attr-defined]
    try:
        connection.connect(dialled)
    except Error as error:
        raise _failure(error, target) from error
    except RuntimeError as error:
        # PyMySQL says so when it lacks the package that encrypts the password.
        raise AuthenticationFailed(
            f"mysql: the server wants the password encrypted ({error}): connect with tls=true, or "
            "install what does it with: pip install 'PyMySQL[rsa]'"
        ) from error
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise ProtocolError(f"mysql: the greeting cannot be understood: {error!r}") from error
    return _taken_over(connection)


def _taken_over(connection: Any) -> Greeted:
    """The socket, which PyMySQL forgets."""
    taken, file = connection._sock, connection._rfile
    connection._sock = connection._rfile = None
    file.close()
    number = int(connection.server_thread_id[0])
    return Greeted(taken, str(connection.server_version), number)


def _failure(error: Error, target: Target) -> TenureError:
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    cause = getattr(error, "original_exception", None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return AuthenticationFailed(f"mysql: the server's certificate was refused: {cause}")
    here = not code or (code >= 2000 and code not in _UNKNOWN_WAYS)
    if isinstance(error, OperationalError) and here:
        where = target.path or f"{target.host}:{target.port}"
        return Unavailable(f"mysql: cannot connect to {where}: {text}")
    return refusal(code, text)


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        # The certificates that servers make for themselves lack what Python 3.13 asks for.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ValueError) as error:
        raise InvalidURL(f"mysql: a file of TLS cannot be used: {error}") from error
    return context
