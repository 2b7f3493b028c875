"""What in the configuration of a PostgreSQL server would break coordination."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from .._model import Finding
from ..errors import BackendError, Unavailable
from ..wires.postgresql import Link
from ._postgresql_server import is_pooled

_NEARLY_FULL = 0.8
_LOCKS_WANTED = 10_000
"""Locks held at once that a team may come to, at one session each."""

_SETTINGS = (
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "superuser_reserved_connections",
    "statement_timeout",
    "lock_timeout",
    "idle_session_timeout",
    "idle_in_transaction_session_timeout",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_keepalives_count",
    "synchronous_commit",
    "fsync",
    "full_page_writes",
)

# What the role or the database sets by itself, whatever this connection has chosen since.
_READ = """
    SELECT name, coalesce(reset_val, setting), unit FROM pg_settings
    WHERE name = ANY ('{{{names}}}')"""

_FACTS = """
    SELECT pg_backend_pid(), pg_is_in_recovery(),
        (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL),
        (SELECT count(*) FROM pg_locks WHERE NOT fastpath),
        inet_client_addr() IS NOT NULL,
        (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
        (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user)"""


async def examine(link: Link, ttl: float, *, rows: bool) -> list[Finding]:
    """The findings about one server. What may not be read is a note; `Unavailable` if it is gone.

    rows: whether locks are rows, which need no session of the server's.
    """
    try:
        read = await link.rows(_READ.format(names=",".join(_SETTINGS)))
        settings = {_text(name): (_text(value), _text(unit)) for name, value, unit in read}
        facts = [_text(value) for value in await link.script(_FACTS)]
    except Unavailable:
        raise
    except BackendError as error:
        text = f"They may not be read, so nothing was looked at: {error}"
        advice = "Run this as a user who may read pg_settings, pg_locks and pg_stat_activity."
        return [Finding("note", "pg_settings", text, advice)]
    pid, standby, clients, locks, remote, limit, own = facts
    found: list[Finding] = []
    if standby == "t":
        text = "It takes no writes, so nothing can be locked, and its locks are not the primary's."
        found.append(Finding("error", "pg_is_in_recovery()", text, "Name the primary in the URL."))
    if is_pooled(link, pid.encode()):
        found.append(_pooler(rows))
    found += _durability(settings)
    found += _room(settings, int(clients), int(limit), int(own))
    if not rows:
        found += _lock_table(settings, int(locks))
        found += _limits(settings)
    if remote == "t":
        found += _keepalives(settings, ttl, rows)
    return found


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode(errors="replace")


Settings = Mapping[str, tuple[str, str]]
"""The value of each setting, and its unit."""

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0}


def _number(settings: Settings, name: str) -> int:
    text = settings.get(name, ("0", ""))[0]
    return int(text) if text.lstrip("-").isdigit() else 0


def _seconds(settings: Settings, name: str) -> float:
    return _number(settings, name) * _UNITS.get(settings.get(name, ("", ""))[1], 1.0)


def _pooler(rows: bool) -> Finding:
    if rows:
        text = "Locks as rows work through it in every mode; each call takes a little longer."
        return Finding("note", "a pooler", text, "Nothing need be done.")
    text = (
        "It is in session mode, in which locks work. If it is set to transaction mode later, "
        "clients are refused when they connect, but those that are connected lose their locks "
        "unnoticed. When a client's network dies, its locks are free once the pooler notices."
    )
    advice = (
        "Keep the pool in session mode, with server_reset_query = DISCARD ALL and TCP keepalives "
        "in the pooler, or connect to the server itself, or choose ?lock=row."
    )
    return Finding("warning", "a pooler", text, advice)


def _durability(settings: Settings) -> Iterator[Finding]:
    if settings.get("fsync", ("on", ""))[0] == "off":
        text = (
            "A crash of the machine can corrupt the database, or take back tokens that were "
            "handed out: an older token would pass for a newer one."
        )
        yield Finding("error", "fsync off", text, "Set fsync = on.")
    if settings.get("full_page_writes", ("on", ""))[0] == "off":
        text = "A crash in the middle of a write can leave the tables of rosters unreadable."
        yield Finding("warning", "full_page_writes off", text, "Set full_page_writes = on.")
    if settings.get("synchronous_commit", ("on", ""))[0] == "off":
        text = (
            "A crash of the server takes back what it confirmed in the last moments. Tenure "
            "has its own statements flushed in spite of it; your own writes are not."
        )
        advice = "Set synchronous_commit = on for the data that the locks protect."
        yield Finding("warning", "synchronous_commit off", text, advice)


def _room(settings: Settings, clients: int, limit: int, own: int) -> Iterator[Finding]:
    most = _number(settings, "max_connections")
    most -= _number(settings, "superuser_reserved_connections")
    advice = "Raise it, or let fewer clients connect at a time, or put a pooler in between."
    if most and clients >= most * _NEARLY_FULL:
        text = f"{clients} of {most} connections are in use; who finds none can lock nothing."
        yield Finding("warning", f"max_connections {most}", text, advice)
    if limit >= 0 and own >= limit * _NEARLY_FULL:
        text = f"The role has {own} connections of {limit} that it may have."
        yield Finding("warning", f"CONNECTION LIMIT {limit}", text, advice)


def _lock_table(settings: Settings, used: int) -> Iterator[Finding]:
    each = _number(settings, "max_locks_per_transaction")
    sessions = _number(settings, "max_connections")
    sessions += _number(settings, "max_prepared_transactions")
    room = each * sessions
    subject = f"max_locks_per_transaction {each}"
    advice = "Raise max_locks_per_transaction, and restart the server."
    if used >= room * _NEARLY_FULL:
        text = (
            f"The table of locks has room for about {room}, and {used} are in it. When it is "
            "full, every statement of every client that needs a lock fails."
        )
        yield Finding("error", subject, text, advice)
    elif room < _LOCKS_WANTED:
        text = (
            f"The table of locks has room for about {room} ({each} for each of {sessions} "
            "sessions), shared with everything else that runs there. Each lock held is one."
        )
        yield Finding("note", subject, text, f"{advice} Only if you hold as many at a time.")


def _limits(settings: Settings) -> Iterator[Finding]:
    """Time limits of the role. Tenure switches them off for its own connections."""
    meanings = {
        "statement_timeout": "ends a wait for a lock",
        "lock_timeout": "ends a wait for a lock",
        "idle_session_timeout": "ends the connection that holds a lock",
    }
    for name, meaning in meanings.items():
        seconds = _seconds(settings, name)
        if seconds > 0:
            text = (
                f"It {meaning} after {seconds:g} s. Tenure switches it off for its own "
                "connections, which a rule or an extension of the server's may undo."
            )
            advice = f"ALTER ROLE … SET {name} = 0 for the role that Tenure connects as."
            yield Finding("note", f"{name} {seconds:g} s", text, advice)
    seconds = _seconds(settings, "idle_in_transaction_session_timeout")
    if 0 < seconds < 1:
        text = "Tenure leaves no transaction open, but a pause between two packets may look so."
        advice = "Set it to a second or more."
        name = "idle_in_transaction_session_timeout"
        yield Finding("warning", f"{name} {seconds:g} s", text, advice)


def _keepalives(settings: Settings, ttl: float, rows: bool) -> Iterator[Finding]:
    if rows:
        return
    idle = _seconds(settings, "tcp_keepalives_idle")
    interval = _seconds(settings, "tcp_keepalives_interval")
    count = _number(settings, "tcp_keepalives_count")
    after = math.inf if not idle else idle + interval * count
    own = math.ceil(ttl) + 2
    if after > max(25.0, own):
        shown = "two hours or so" if math.isinf(after) else f"{after:g} s"
        text = (
            f"By these settings the server notices after {shown} that a client's network has "
            f"died. Tenure asks for {own} s on its own connections; a server behind a proxy or "
            "on Windows may not heed that, and locks then stay taken for so long."
        )
        advice = "Set tcp_keepalives_idle = 10, tcp_keepalives_interval and _count = 3."
        yield Finding("note", f"tcp_keepalives_idle {idle:g} s", text, advice)
