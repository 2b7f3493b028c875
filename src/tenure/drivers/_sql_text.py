"""The SQL of the drivers over tables, in each dialect; and the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

SCHEMA_VERSION = 1
"""Which version of the tables this code reads and writes."""


class Dialect(NamedTuple):
    """What the databases call by different names."""

    name: str
    now: str
    """Microseconds on the database's own clock, at the moment the statement asks."""
    key: str
    text: str
    table: str = ""
    """What follows the columns of a table."""
    clock: str = "''"
    """What names the clock that an expiry was counted on."""
    dual: str = ""
    conflict: str = ""
    """What makes an insertion do nothing if the key is there already; else it is an error."""


SQLITE = Dialect(
    name="sqlite",
    now="tenure_now()",
    key="TEXT",
    text="TEXT",
    table=" WITHOUT ROWID",
    clock="tenure_boot()",
    conflict=" ON CONFLICT DO NOTHING",
)

POSTGRESQL = Dialect(
    name="postgresql",
    # Not now(), which stands still in a transaction, nor statement_timestamp().
    now="(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    key='TEXT COLLATE "C"',
    text="TEXT",
    conflict=" ON CONFLICT DO NOTHING",
)

MARIADB = Dialect(
    name="mariadb",
    # Of no time zone, so that no hour comes twice. It is the statement's beginning, and
    # every transaction is one statement.
    now="TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    key="VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin",
    text="LONGTEXT CHARACTER SET ascii COLLATE ascii_bin",
    table=" ENGINE=InnoDB",
    dual=" FROM DUAL",
)

_INSERT = "INSERT INTO tenure_document (id, namespace, kind, name, version, body)"

_STATEMENTS = {
    "load": "SELECT body, version FROM tenure_document WHERE id = ?",
    "insert": "{insert} VALUES (?, ?, ?, ?, ?, ?){conflict}",
    "insert_for": """{insert} SELECT ?, ?, ?, ?, ?, ?{dual}
        WHERE EXISTS (SELECT 1 FROM tenure_session s WHERE s.id = ? AND {alive}){conflict}""",
    "update": "UPDATE tenure_document SET version = ?, body = ? WHERE id = ? AND version = ?",
    "update_for": """
        UPDATE tenure_document SET version = ?, body = ? WHERE id = ? AND version = ?
        AND EXISTS (SELECT 1 FROM tenure_session s WHERE s.id = ? AND {alive})""",
    "delete": "DELETE FROM tenure_document WHERE id = ? AND version = ?",
    "unchanged": """
        SELECT 1 FROM tenure_document WHERE id = ? AND version = ?
        AND EXISTS (SELECT 1 FROM tenure_session s WHERE s.id = ? AND {alive})""",
    "names": "SELECT name FROM tenure_document WHERE id > ? AND id < ?",
    "start": """
        INSERT INTO tenure_session (id, namespace, owner, ttl, clock, expires)
        VALUES (?, ?, ?, ?, {clock}, {now} + ?)""",
    "renew": "UPDATE tenure_session SET expires = {now} + ? WHERE id = ? AND {alive}",
    "end": "DELETE FROM tenure_session WHERE id = ?",
    "session": """
        SELECT owner, ttl - (expires - {now}) FROM tenure_session WHERE id = ? AND {alive}""",
    "alive": "SELECT id FROM tenure_session WHERE namespace = ? AND {alive}",
    "present": "SELECT id FROM tenure_session WHERE id = ?",
    "expired": "SELECT id FROM tenure_session WHERE NOT ({alive}) LIMIT 100",
    "bury": "DELETE FROM tenure_session WHERE id = ? AND NOT ({alive})",
    "now": "SELECT {now}",
    "schema": "SELECT version FROM tenure_schema WHERE id = 1",
    "first": "INSERT INTO tenure_schema (id, version) VALUES (1, ?){conflict}",
    "migrated": "UPDATE tenure_schema SET version = ? WHERE id = 1 AND version = ?",
}


class Statements:
    """Every statement in one dialect, ready to be sent."""

    def __init__(self, dialect: Dialect, placeholder: str) -> None:
        self._placeholder = placeholder
        self._alive = f"expires > {dialect.now} AND clock = {dialect.clock}"
        made = {name: self._filled(text, dialect) for name, text in _STATEMENTS.items()}
        self._made = made
        self.load = made["load"]
        self.update = made["update"]
        self.update_for = made["update_for"]
        self._living: dict[int, str] = {}

    def _filled(self, text: str, dialect: Dialect) -> str:
        text = text.format(insert=_INSERT, alive=self._alive, **dialect._asdict())
        return " ".join(text.split()).replace("?", self._placeholder)

    def __getitem__(self, name: str) -> str:
        return self._made[name]

    def living(self, count: int) -> str:
        """Which of so many sessions live."""
        found = self._living.get(count)
        if found is None:
            marks = ", ".join([self._placeholder] * count)
            # Nothing but placeholders, and what is written above.
            found = f"SELECT id FROM tenure_session WHERE id IN ({marks}) AND {self._alive}"  # noqa: S608
            self._living[count] = found
        return found


def _first_version(dialect: Dialect) -> tuple[str, ...]:
    _, _, key, text, end, *_ = dialect
    start = f"id {key} PRIMARY KEY, namespace {text} NOT NULL"
    document = f"kind {key} NOT NULL, name {text} NOT NULL, version {key} NOT NULL"
    document += f", body {text} NOT NULL"
    session = f"owner {text} NOT NULL, ttl BIGINT NOT NULL, clock {key} NOT NULL"
    session += ", expires BIGINT NOT NULL"
    return (
        f"CREATE TABLE IF NOT EXISTS tenure_document ({start}, {document}){end}",
        f"CREATE TABLE IF NOT EXISTS tenure_session ({start}, {session}){end}",
    )


MIGRATIONS: tuple[Callable[[Dialect], tuple[str, ...]], ...] = (_first_version,)
"""What leads from each version to the next. Every statement may be carried out twice."""


def version_table(dialect: Dialect) -> str:
    """The table that says which version the tables have."""
    return (
        "CREATE TABLE IF NOT EXISTS tenure_schema "
        f"(id INTEGER PRIMARY KEY, version INTEGER NOT NULL){dialect.table}"
    )


def script(dialect: Dialect) -> str:
    """The whole schema as SQL, for somebody else to run in an empty database."""
    statements = [version_table(dialect)]
    for step in MIGRATIONS:
        statements += step(dialect)
    first = "INSERT INTO tenure_schema (id, version) VALUES "
    statements.append(f"{first}(1, {SCHEMA_VERSION}){dialect.conflict}")
    return "".join(f"{statement};\n" for statement in statements)
