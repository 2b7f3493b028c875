"""What in the configuration of a MySQL or MariaDB server would break coordination."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .._model import Finding
from ..errors import AuthenticationFailed, BackendError, Unavailable
from ..wires.links import Row
from ..wires.mysql import Link, literal

_FULL = 0.8
_PACKET_MIN = 1 << 20
_OLDEST = {True: (10, 5), False: (5, 7)}

_SETTINGS = (
    *("read_only", "max_connections", "max_allowed_packet", "innodb_flush_log_at_trx_commit"),
    *("server_id", "version_comment", "log_bin", "performance_schema"),
)
_STATUS = ("Threads_connected", "wsrep_cluster_size", "wsrep_cluster_status")

Facts = Mapping[str, str]


async def examine(link: Link, ttl: float, database: str) -> list[Finding]:
    """The findings about one server; `Unavailable` if it is gone."""
    found: list[Finding] = []
    asked = b",".join(literal(name) for name in _SETTINGS)
    question = b"SHOW GLOBAL VARIABLES WHERE Variable_name IN (%b)" % asked
    settings = _facts(await _rows(link, question, "SHOW GLOBAL VARIABLES", found))
    asked = b",".join(literal(name) for name in _STATUS)
    question = b"SHOW GLOBAL STATUS WHERE Variable_name IN (%b)" % asked
    status = _facts(await _rows(link, question, "SHOW GLOBAL STATUS", found))
    session = await _rows(link, b"SELECT @@SESSION.wait_timeout", "wait_timeout", found)
    found += _version(link)
    found += _between(settings)
    found += _several(settings, status)
    found += _limits(settings, status)
    found += _silence(session, ttl)
    found += _tokens(settings)
    found += await _replica(link)
    found += await _tables(link, database, found)
    found += await _listed(link)
    return found


async def _rows(link: Link, question: bytes, subject: str, found: list[Finding]) -> list[Row]:
    """The rows; none, and a note, if they may not be read."""
    try:
        return await link.rows(question)
    except Unavailable:
        raise
    except BackendError as error:
        text = f"It may not be read, so it was not looked at ({error})."
        found.append(Finding("note", subject, text, "Run this as a user who may read it."))
        return []


def _facts(rows: list[Row]) -> dict[str, str]:
    return {
        (row[0] or b"").decode(errors="replace"): (row[1] or b"").decode(errors="replace")
        for row in rows
    }


def _number(facts: Facts, name: str) -> int:
    text = facts.get(name, "")
    return int(text) if text.isdigit() else 0


def _version(link: Link) -> Iterator[Finding]:
    told = re.search(r"(\d+)\.(\d+)\.\d+", link.version)
    if told is not None and (int(told[1]), int(told[2])) < _OLDEST[link.mariadb]:
        text = "It is older than what this driver was made for: it may lack locks that add up."
        advice = "Use MariaDB 10.5 or MySQL 5.7, or a later one."
        yield Finding("error", f"version {link.version}", text, advice)


def _between(settings: Facts) -> Iterator[Finding]:
    comment = settings.get("version_comment", "")
    if "proxysql" in comment.lower():
        text = "A proxy answers in the server's place, and may share its connections among clients."
        yield Finding("error", f"version_comment {comment}", text, "Connect to the server itself.")


def _several(settings: Facts, status: Facts) -> Iterator[Finding]:
    size = _number(status, "wsrep_cluster_size")
    if size > 1:
        text = (
            "This is a node of a Galera cluster. Locks are the node's own: a client of another "
            "node is granted the same lock at the same time."
        )
        advice = "Have all clients use one node, or another backend for locks."
        yield Finding("error", f"wsrep_cluster_size {size}", text, advice)
    if settings.get("read_only", "OFF") not in ("OFF", "0"):
        text = "It is a replica, most likely: a lock here excludes nobody at the primary."
        subject = f"read_only {settings['read_only']}"
        yield Finding("error", subject, text, "Connect to the primary.")


def _limits(settings: Facts, status: Facts) -> Iterator[Finding]:
    used, most = _number(status, "Threads_connected"), _number(settings, "max_connections")
    if most and used >= _FULL * most:
        text = (
            "When there are no more, an acquire waits and tries again. A coordinator needs one, "
            "and one more for each name that it waits for."
        )
        subject = f"max_connections {most}, of which {used} are in use"
        yield Finding("warning", subject, text, "Raise max_connections.")
    packet = _number(settings, "max_allowed_packet")
    if packet and packet < _PACKET_MIN:
        text = "A roster or a record that is longer is refused with StorageError."
        advice = "Raise it to 16M."
        yield Finding("warning", f"max_allowed_packet {packet}", text, advice)
    flush = settings.get("innodb_flush_log_at_trx_commit", "1")
    if flush != "1":
        text = (
            "A crash of the machine loses the last second of what was written: records, and with "
            "rosters the tokens of semaphores and elections, which may be given out once more."
        )
        subject = f"innodb_flush_log_at_trx_commit {flush}"
        yield Finding("note", subject, text, "Set it to 1 if records and tokens must outlive that.")


def _silence(session: list[Row], ttl: float) -> Iterator[Finding]:
    seconds = int((session[0][0] if session else None) or 0)
    if session and seconds < ttl:
        text = "The server ends a connection, and frees its locks, sooner than a lease ends."
        subject = f"wait_timeout {seconds}"
        yield Finding("error", subject, text, "See what changes it after a client has set it.")


def _tokens(settings: Facts) -> Iterator[Finding]:
    number = _number(settings, "server_id")
    if number & 0xFF >= 0x80:
        text = "Tokens begin with it, and are greater than a signed 64-bit number can be."
        advice = "Keep them as BIGINT UNSIGNED, or set a server_id below 128."
        yield Finding("note", f"server_id {number}", text, advice)
    if settings.get("log_bin", "OFF") == "ON":
        text = (
            "If it has replicas, one that takes its place knows none of its locks, and tokens "
            "rise only if the replica's server_id is greater (of 256, the rest counts)."
        )
        yield Finding("note", f"log_bin ON, server_id {number}", text, _FAIL_OVER)


async def _replica(link: Link) -> list[Finding]:
    refusal: BackendError | None = None
    for question in (b"SHOW REPLICA STATUS", b"SHOW SLAVE STATUS"):
        try:
            rows = await link.rows(question)
        except Unavailable:
            raise
        except BackendError as error:
            if refusal is None or isinstance(error, AuthenticationFailed):
                refusal = error  # and not that it knows only one of the two names
            continue
        if not rows:
            return []
        text = "It follows another server: a lock here excludes nobody there."
        return [Finding("warning", "SHOW REPLICA STATUS", text, "Connect to the primary.")]
    text = f"It may not be read, so whether this is a replica was not looked at ({refusal})."
    advice = "Run this as a user with the right to SLAVE MONITOR or REPLICATION CLIENT."
    return [Finding("note", "SHOW REPLICA STATUS", text, advice)]


async def _tables(link: Link, database: str, found: list[Finding]) -> list[Finding]:
    if not database:
        text = "There are locks, and nothing else: rosters and records are kept in tables."
        return [Finding("warning", "no database", text, "Name one in the URL: mysql://host/name.")]
    question = (
        b"SELECT TABLE_NAME, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() "
        b"AND TABLE_NAME LIKE 'tenure\\_%' AND ENGINE <> 'InnoDB'"
    )
    text = (
        "It is not transactional: a crash may leave it damaged, or with half of a change, and "
        "what was claimed is unsure."
    )
    rows = await _rows(link, question, "information_schema.TABLES", found)
    return [
        Finding("error", f"{name} ENGINE={engine}", text, f"ALTER TABLE {name} ENGINE=InnoDB.")
        for name, engine in _facts(rows).items()
    ]


async def _listed(link: Link) -> list[Finding]:
    for question in (
        b"SELECT 1 FROM information_schema.METADATA_LOCK_INFO LIMIT 1",
        b"SELECT 1 FROM performance_schema.metadata_locks LIMIT 1",
    ):
        try:
            await link.rows(question)
        except Unavailable:
            raise
        except BackendError:
            continue
        if b"performance" not in question or not link.mariadb:
            return []
    text = (
        "The server does not list its locks to this user. `tenure status` shows a lock once it "
        "was held for two thirds of a TTL, and of readers only one."
    )
    advice = (
        "On MariaDB, INSTALL SONAME 'metadata_lock_info'; on MySQL, let the user read "
        "performance_schema.metadata_locks and performance_schema.threads."
    )
    return [Finding("note", "locks are not listed", text, advice)]


_FAIL_OVER = (
    "Treat a fail-over as a restart: leases are lost. Give later primaries a higher server_id."
)
