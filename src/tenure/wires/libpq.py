"""Connecting, cancelling and reading errors: what both flavours of PostgreSQL links share.

libpq connects and cancels in small steps and says after each which way to wait on which
socket; a `Wait` does that waiting, blocking or on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from ..errors import (
    AuthenticationFailed,
    BackendError,
    InvalidURL,
    ProtocolError,
    StorageError,
    TenureError,
    Unavailable,
)
from .links import Row, Withdrawn

if TYPE_CHECKING:
    from psycopg.pq.abc import PGcancelConn, PGconn, PGresult

Wait = Callable[[int, bool, float], Awaitable[None]]
"""Wait for a descriptor to be readable or (True) writable, so many seconds at most."""

Heard = tuple[bytes, bytes]
"""A notification: its channel and its payload."""


class Refused(BackendError):
    """The server refused a statement; `state` is its SQLSTATE."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


# -- step by step -------------------------------------------------------------


async def connect(parameters: Mapping[str, str], seconds: float, wait: Wait) -> PGconn:
    """Open one connection within the time given."""
    try:
        conninfo = make_conninfo("", **parameters)
    except psycopg.Error as error:
        raise InvalidURL(f"postgresql: {_one_line(str(error))}") from error
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    try:
        await _settle(pgconn.connect_poll, pgconn, seconds, wait)
        if pgconn.status != pq.ConnStatus.OK:
            raise _no_connection(pgconn.get_error_message())
    except BaseException:
        pgconn.finish()
        raise
    return pgconn


async def cancel(pgconn: PGconn, seconds: float, wait: Wait) -> None:
    """Ask the server, on a connection of its own, to give the running statement up."""
    if not psycopg.capabilities.has_cancel_safe():
        # Older than libpq 17, which can do it only by blocking without a limit.
        raise Unavailable("postgresql: this libpq cannot cancel a statement within a time limit")
    try:
        request = pgconn.cancel_conn()
        request.start()
        try:
            await _settle(request.poll, request, seconds, wait)
            if request.status != pq.ConnStatus.OK:
                raise Unavailable(f"postgresql: {_one_line(request.get_error_message())}")
        finally:
            request.finish()
    except psycopg.Error as error:
        raise Unavailable(f"postgresql: {_one_line(str(error))}") from error


async def _settle(
    step: Callable[[], int], at: PGconn | PGcancelConn, seconds: float, wait: Wait
) -> None:
    until = time.monotonic() + seconds
    while True:
        state = step()
        if state == pq.PollingStatus.READING or state == pq.PollingStatus.WRITING:
            left = until - time.monotonic()
            if left <= 0:
                raise Unavailable(f"postgresql: no connection after {seconds:g} seconds")
            await wait(at.socket, state == pq.PollingStatus.WRITING, left)
        else:
            return


async def wait_thread(descriptor: int, writing: bool, seconds: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT if writing else select.POLLIN)
    poll.poll(seconds * 1000)


async def wait_loop(descriptor: int, writing: bool, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    if writing:
        loop.add_writer(descriptor, resolve, ready)
    else:
        loop.add_reader(descriptor, resolve, ready)
    timer = loop.call_later(seconds, resolve, ready)
    try:
        await ready
    finally:
        timer.cancel()
        if writing:
            loop.remove_writer(descriptor)
        else:
            loop.remove_reader(descriptor)


def resolve(waiter: asyncio.Future[None]) -> None:
    """Wake the waiter, unless something else has done so already."""
    if not waiter.done():
        waiter.set_result(None)


async def resolved(parameters: Mapping[str, str], seconds: float) -> Mapping[str, str]:
    """The same parameters with the host's addresses, since libpq would block on the resolver."""
    host = parameters.get("host", "")
    if not host or host.startswith(("/", "@")) or "hostaddr" in parameters or _is_address(host):
        return parameters
    try:
        async with asyncio.timeout(seconds):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, None, proto=socket.IPPROTO_TCP, type=socket.SOCK_STREAM
            )
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"postgresql: the host name {host!r} cannot be resolved") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    times = len(addresses)
    more = {"host": ",".join([host] * times), "hostaddr": ",".join(addresses)}
    return {**parameters, **more}


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ip_address(host)
        return True
    return False


# -- results and errors -------------------------------------------------------


def rows(result: PGresult) -> list[Row]:
    """Every row of a result."""
    value, columns = result.get_value, range(result.nfields)
    return [tuple([value(row, column) for column in columns]) for row in range(result.ntuples)]


def notified(pgconn: PGconn) -> list[Heard]:
    """The notifications that have come in and that nobody has taken yet."""
    found: list[Heard] = []
    while (notification := pgconn.notifies()) is not None:
        found.append((notification.relname, notification.extra))
    return found


def message(result: PGresult | None) -> str:
    """What an error result says, on one line."""
    text = "" if result is None else result.get_error_message()
    return _one_line(text) or "the server closed the connection"


_REFUSED = (
    # Found in what libpq says when it cannot connect: it does not tell the SQLSTATE. A
    # server that speaks another language ends up as `Unavailable`, which is retried.
    ("password authentication failed", AuthenticationFailed),
    ("authentication failed", AuthenticationFailed),
    ("no password supplied", AuthenticationFailed),
    ("no pg_hba.conf entry", AuthenticationFailed),
    ("is not permitted to log in", AuthenticationFailed),
    ("permission denied for database", AuthenticationFailed),
    ("certificate", AuthenticationFailed),
    ("invalid sslmode", InvalidURL),
    ("invalid port", InvalidURL),
    ("invalid integer value", InvalidURL),
    ("invalid connection option", InvalidURL),
    ("invalid target_session_attrs", InvalidURL),
)


def _no_connection(text: str) -> TenureError:
    said = _one_line(text)
    for phrase, kind in _REFUSED:
        if phrase in said:
            return kind(f"postgresql: {said}")
    if 'role "' in said and "does not exist" in said:
        return AuthenticationFailed(f"postgresql: {said}")
    if 'database "' in said and "does not exist" in said:
        return Refused(f"postgresql: {said}; the URL's path names the database", "3D000")
    if "session is read-only" in said or "server is in hot standby mode" in said:
        return Unavailable(f"postgresql: this server cannot be written to: {said}")
    return Unavailable(f"postgresql: {said}")


def refusal(result: PGresult) -> TenureError:
    """The error that a statement ended with, on a connection that goes on."""
    field = result.error_field(pq.DiagnosticField.SQLSTATE)
    state = field.decode() if field else ""
    said = f"postgresql: {message(result)}"
    if state == "57014":
        return Withdrawn(said)
    if state == "53200":
        return StorageError(f"{said}; raise the server's max_locks_per_transaction")
    if state.startswith("53") or state in {"57P03", "25006"}:
        return Unavailable(said)
    if state.startswith("28") or state == "42501":
        return AuthenticationFailed(said)
    if not state:
        return ProtocolError(f"{said} (in reply to a statement)")
    return Refused(said, state)


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
