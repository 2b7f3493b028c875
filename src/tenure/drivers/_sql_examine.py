"""What about a SQLite file, or a server's configuration, would break coordination."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from .._model import Finding, Severity
from ..errors import BackendError
from . import _file_examine as folders

if TYPE_CHECKING:
    from ._sql_documents import SqlDocuments


class Check(NamedTuple):
    """A setting, and the values of it that are worth a finding."""

    question: str
    subject: str
    bad: tuple[str, ...]
    severity: Severity
    text: str
    advice: str


CLOCKS_APART = 1.0
"""Seconds between two clocks that are worth a word."""

_SERVER = "Name a file on a local disk, or a server's URL where hosts must exclude each other."


# -- SQLite ------------------------------------------------------------------------


async def examine_sqlite(driver: SqlDocuments, path: str) -> list[Finding]:
    """The findings about a file that is open; never raises."""
    found = await driver.runtime.blocking(lambda: [*_place(path), *_rights(path)])
    mode = await _asked(driver, found, "PRAGMA journal_mode", "journal_mode")
    if mode is not None and mode != "wal":
        text = (
            "Every acquire and release forces the disk several times, and whoever writes keeps "
            "out who reads. Coordination works, at a fraction of the speed."
        )
        advice = "When the file's other users allow it: PRAGMA journal_mode=WAL, once."
        found.append(Finding("warning", f"journal_mode = {mode}", text, advice))
    return found


def _place(path: str) -> Iterator[Finding]:
    folder = os.path.dirname(os.path.realpath(path))
    kind = None
    try:
        with open(folders.MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            kind = folders.file_system(file.read(), os.path.realpath(path))
    except OSError:
        text = f"What file system it is on cannot be read from {folders.MOUNTS}."
        yield Finding("note", path, text, "See to it that it is on a local disk.")
    if kind in folders.SHARED or (kind or "").startswith("fuse."):
        text = (
            "SQLite's locks are not to be relied on there, and its write-ahead log needs memory "
            "that all its users share: two may hold one lock, and the file may be damaged. "
            "Sessions expire by this machine's clock, which means nothing to another."
        )
        yield Finding("error", f"{path} is on {kind}", text, _SERVER)
    yield from folders.room(folder)


def _rights(path: str) -> Iterator[Finding]:
    try:
        found = os.stat(path)
    except OSError as error:
        text = f"It cannot be looked at: {os.strerror(error.errno or 0)}."
        yield Finding("note", path, text, "")
        return
    for each in (path, os.path.dirname(path) or "."):
        if not os.access(each, os.W_OK):
            text = "It is not writable: no lock can be taken. SQLite also makes files beside it."
            yield Finding("error", each, text, "Give this user the right to write to it.")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o002:
        text = "Everybody can write to it, and so take and free any lock, or damage the file."
        yield Finding("warning", f"{path} has mode {mode:04o}", text, f"chmod o-w {path}")


# -- servers -------------------------------------------------------------------------


async def examine_server(driver: SqlDocuments) -> list[Finding]:
    """The findings about a server's configuration, read off the connection; never raises."""
    found: list[Finding] = []
    checks = POSTGRESQL if driver.dialect.name == "postgresql" else MARIADB
    for check in checks:
        value = await _asked(driver, found, check.question, check.subject)
        if value in check.bad:
            subject = f"{check.subject} = {value}"
            found.append(Finding(check.severity, subject, check.text, check.advice))
    await _clock(driver, found)
    return found


async def _asked(
    driver: SqlDocuments, found: list[Finding], question: str, subject: str
) -> str | None:
    """The answer, in lower case; None if there is none, of which a finding tells."""
    try:
        rows = await driver.rows(question)
    except BackendError as error:
        text = f"It could not be read: {error}"
        found.append(Finding("note", subject, text, "Look at it as a user with more rights."))
        return None
    # Some are absent from some versions, and SHOW puts the name before the value.
    return str(rows[0][-1]).lower() if rows and rows[0][-1] is not None else None


async def _clock(driver: SqlDocuments, found: list[Finding]) -> None:
    before = driver.runtime.wall()
    try:
        theirs = await driver.database_now()
    except BackendError as error:
        text = f"It could not be read: {error}"
        found.append(Finding("note", "the database's clock", text, ""))
        return
    # At best it was read at one of the two moments.
    apart = theirs - min(max(theirs, before), driver.runtime.wall())
    if abs(apart) >= CLOCKS_APART:
        which = "ahead of" if apart > 0 else "behind"
        subject = f"the database's clock is {abs(apart):.1f} s {which} this machine's"
        text = (
            "Sessions expire by the database's clock alone, so this does no harm by itself. A "
            "clock that is set forward ends sessions early."
        )
        found.append(Finding("note", subject, text, "See which of them is wrong, and slew it."))


_READ_ONLY = "Nothing can be written: no lock can be taken, and no session renewed."
_LOST = (
    "A crash of the server may undo the last statements: a lock that was granted is free again "
    "while its holder relies on it, and a token may come twice."
)
_ODD = (
    "Two who save one row at once get an error instead of one that succeeds. They try again, "
    "so contended locks take longer."
)

POSTGRESQL = (
    Check(
        *("SELECT pg_is_in_recovery()", "pg_is_in_recovery()", ("true", "t"), "error"),
        f"This server is a standby. {_READ_ONLY}",
        "Name the primary in the URL.",
    ),
    Check(
        *("SHOW default_transaction_read_only", "default_transaction_read_only", ("on",), "error"),
        _READ_ONLY,
        "Turn it off for this user or database.",
    ),
    Check(
        *("SHOW synchronous_commit", "synchronous_commit", ("off",), "error"),
        _LOST,
        "ALTER ROLE … SET synchronous_commit = on for the user that coordinates.",
    ),
    Check("SHOW fsync", "fsync", ("off",), "warning", _LOST, "Turn it on."),
    Check(
        "SHOW default_transaction_isolation",
        "default_transaction_isolation",
        ("serializable", "repeatable read"),
        "warning",
        _ODD,
        "ALTER ROLE … SET default_transaction_isolation = 'read committed'.",
    ),
    Check(
        "SELECT CASE WHEN current_setting('synchronous_standby_names') = '' AND EXISTS "
        "(SELECT 1 FROM pg_stat_replication) THEN 'none' END",
        "synchronous_standby_names",
        ("none",),
        "warning",
        "There are standbys, and none is waited for: a fail-over forgets the last grants and "
        "tokens, and two may hold one lock until the first one's deadline.",
        "Make one of them synchronous.",
    ),
)

MARIADB = (
    Check(
        *("SELECT @@global.read_only", "read_only", ("1", "on"), "error"),
        f"This server may be a replica. {_READ_ONLY}",
        "Name the primary in the URL.",
    ),
    Check(
        "SELECT @@global.innodb_flush_log_at_trx_commit",
        "innodb_flush_log_at_trx_commit",
        ("0", "2"),
        "warning",
        _LOST,
        "Set it to 1.",
    ),
    Check(
        "SHOW VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')",
        *("transaction_isolation", ("serializable",), "warning"),
        _ODD,
        "Set it to READ-COMMITTED for the user that coordinates.",
    ),
    Check(
        "SHOW VARIABLES LIKE 'wsrep_on'",
        *("wsrep_on", ("on",), "warning"),
        "Each node of a cluster has a clock of its own, and sessions expire by that of the node "
        "that is asked.",
        "Let every client use the same node, and keep the nodes' clocks together.",
    ),
)
