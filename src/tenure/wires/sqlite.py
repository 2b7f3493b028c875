"""Connections to a SQLite file, through the standard library.

The clock by which sessions expire is the machine's own monotonic one, which all its processes
share: SQLite's `julianday('now')` would be the wall clock of whoever asks.

No connection may be open in a fork. SQLite keeps what it has locked in the process's
memory; a child inherits that, but not the locks. So every connection is closed just before,
and opened again by the parent when it needs it.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from .._model import Server
from ..errors import BackendError, StorageError, Unavailable
from .sql import MissingTable, told

BOOT_ID = "/proc/sys/kernel/random/boot_id"
FORK_SECONDS = 2.0
"""How long a fork waits for a statement that is under way on another thread."""

PAUSE_SECONDS = 0.0005
PAUSE_SECONDS_MAX = 0.005
"""How long to keep away from a file that another process is writing to: from, and up to."""

_STORAGE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_AUTH,
}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT}


def _boot() -> str:
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()[:36]
    except OSError:
        return ""


BOOT = _boot()
"""What names this run of the machine; empty where nothing does."""


class Busy(sqlite3.OperationalError):
    """SQLite was not even asked."""

    sqlite_errorcode = sqlite3.SQLITE_BUSY


class Connection:
    """One connection, which is closed over a fork. It is its own cursor."""

    def __init__(
        self, make: Callable[[], sqlite3.Connection], turn: threading.Lock, patience: float
    ) -> None:
        self._make = make
        self._turn = turn
        self._patience = patience
        self._guard = threading.Lock()
        self._inner: sqlite3.Connection | None = None
        self._cursor: sqlite3.Cursor | None = None
        self._over = False
        self.rowcount = -1
        self._found: list[Any] = []
        _open.add(self)

    def cursor(self) -> Connection:
        """The connection itself."""
        return self

    def execute(self, statement: str, values: Sequence[Any]) -> None:
        """Carry a statement out, and keep what it has found."""
        with self._guard:
            until = time.monotonic() + self._patience
            # Whoever of this process wants the file, too, queues up, and need not sleep.
            if not self._turn.acquire(timeout=self._patience):
                raise Busy("the file is in use by other threads for too long")
            try:
                self._carry_out(statement, values, until)
            finally:
                self._turn.release()

    def _carry_out(self, statement: str, values: Sequence[Any], until: float) -> None:
        pause = PAUSE_SECONDS
        while True:
            try:
                cursor = self._cursor
                if cursor is None:
                    if self._over:
                        raise sqlite3.ProgrammingError("the connection is closed")
                    self._inner = self._make()
                    cursor = self._cursor = self._inner.cursor()
                cursor.execute(statement, values)
                # Fetched at once: a statement that is not finished keeps a lock.
                self._found = cursor.fetchall()
                self.rowcount = cursor.rowcount
                return
            except sqlite3.OperationalError as error:
                # SQLite would sleep for up to 100 ms, and whoever comes late sleeps the shortest.
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise
            time.sleep(pause * (0.5 + random.random()))
            pause = min(pause * 1.5, PAUSE_SECONDS_MAX)

    def fetchall(self) -> list[Any]:
        """What the last statement has found."""
        found, self._found = self._found, []
        return found

    def close(self) -> None:
        """Close it for good."""
        with self._guard:
            self._over = True
            self._close()

    def _close(self) -> None:
        inner, self._inner, self._cursor = self._inner, None, None
        if inner is not None:
            with contextlib.suppress(sqlite3.Error):
                inner.close()

    def before_fork(self) -> bool:
        """Close it, and keep everybody away; say whether that was possible in time."""
        if not self._guard.acquire(timeout=FORK_SECONDS):
            return False
        self._close()
        return True

    def after_fork(self) -> None:
        """Let others in again."""
        self._guard.release()


_open: weakref.WeakSet[Connection] = weakref.WeakSet()
_kept: list[Connection] = []
_turns: dict[str, threading.Lock] = {}
"""By the file: whose turn it is among the connections of this process."""


def _before_fork() -> None:
    _kept.extend(each for each in list(_open) if each.before_fork())


def _after_fork() -> None:
    while _kept:
        _kept.pop().after_fork()


def _after_fork_in_child() -> None:
    # A thread that the fork left behind may have its turn for ever.
    _turns.clear()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )


class SqliteMaker:
    """Makes connections to one file."""

    errors: tuple[type[BaseException], ...] = (sqlite3.Error,)
    local = True

    def __init__(self, label: str, path: str, now: Callable[[], float]) -> None:
        self.label = label
        self._path = path
        self._now = now

    def connect(self, seconds: float) -> Connection:
        """A connection that waits for other processes for half of the time given."""

        def make() -> sqlite3.Connection:
            # Each statement is a transaction by itself. Any thread may use it, one at a time.
            inner = sqlite3.connect(
                self._path, timeout=0, isolation_level=None, check_same_thread=False
            )
            try:
                inner.create_function("tenure_now", 0, self._microseconds)
                inner.create_function("tenure_boot", 0, lambda: BOOT)
                ((mode,),) = inner.execute("PRAGMA journal_mode").fetchall()
                # With a write-ahead log, a crash of the machine may undo the last
                # statements, but never damages the file; see `drivers.sqlite`.
                inner.execute(f"PRAGMA synchronous={'NORMAL' if mode == 'wal' else 'FULL'}")
            except BaseException:
                inner.close()
                raise
            return inner

        turn = _turns.setdefault(os.path.realpath(self._path), threading.Lock())
        try:
            return Connection(make, turn, seconds / 2)
        except sqlite3.Error as error:
            raise self.translated(error) from error

    def _microseconds(self) -> int:
        return int(self._now() * 1e6)

    def server(self, topology: str) -> Server:
        """The library, which is a part of this process."""
        return Server("sqlite", sqlite3.sqlite_version, topology)

    def descriptor(self, connection: Any) -> int | None:
        """None: it is a file."""
        return None

    def ended(self, error: BaseException, connection: Any) -> bool:
        """Never: a file always answers."""
        return False

    def translated(self, error: BaseException) -> Exception:
        """`Unavailable` if another process has kept the file locked for too long."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_ERROR and "no such table" in str(error):
            return MissingTable(str(error))
        text = f"{self.label}: {told(error)}"
        if code in _BUSY:
            return Unavailable(text)  # rolled back: certainly not carried out
        return StorageError(text) if code in _STORAGE else BackendError(text)
