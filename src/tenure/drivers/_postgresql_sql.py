"""The tables and statements of the PostgreSQL driver's rosters and records.

`{c}`, `{r}` and `{n}` stand for the tables of claims, records and names, `{token}` for the
next number of the sequence; `filled` puts them in. Each verb is one statement. Those that
depend on the order of the claims follow, in the same round trip and transaction, one that
waits for the roster's advisory lock, and so see all that was done under it before.

A session holds an advisory lock on its main connection from before its first claim until
that connection ends, so a claim whose `alive` is not among the locks is dead: the locks are
read after the claims.
"""

from __future__ import annotations

TABLES = ("tenure_claim", "tenure_record", "tenure_name")

# Nothing in the table of claims outlives the connections, so it needs no write-ahead log.
DEFINITIONS = """
    CREATE UNLOGGED TABLE IF NOT EXISTS {c} (
        place bigint NOT NULL, id text COLLATE "C" NOT NULL, token bigint NOT NULL,
        namespace text COLLATE "C" NOT NULL, roster text COLLATE "C" NOT NULL,
        session text COLLATE "C" NOT NULL, alive bigint NOT NULL, owner text NOT NULL,
        shared boolean NOT NULL, body text COLLATE "C" NOT NULL,
        PRIMARY KEY (place, id), UNIQUE (place, token));
    CREATE TABLE IF NOT EXISTS {r} (
        place bigint PRIMARY KEY, namespace text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL, version bigint NOT NULL, text text NOT NULL);
    CREATE TABLE IF NOT EXISTS {n} (
        key bigint PRIMARY KEY, namespace text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL, seen timestamptz NOT NULL)"""

GRANT = "GRANT SELECT, INSERT, UPDATE, DELETE ON {c}, {r}, {n} TO"

# Cached plans of these statements are good whatever the values are.
SETTINGS = {
    "default_transaction_isolation": "'read committed'",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}

# Fails before anything was prepared if a table is missing.
CHECK = "SELECT FROM {c}, {r}, {n} LIMIT 0"

BEATING = """
    SELECT l.classid::bigint << 32 | l.objid::bigint FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

_HERE = "place = $1 AND namespace = $2 AND roster = $3"

# Two who bury at once must not wait for each other, or they could wait in a circle.
_BURIED = """
    DELETE FROM {c} WHERE (place, id) IN (
        SELECT place, id FROM {c} WHERE place = $1 AND id IN (SELECT id FROM dead)
        FOR UPDATE SKIP LOCKED)
    RETURNING body <> '' AS public"""

# On the first use of a connection: claims in rosters that nobody else looks at any more.
SWEEP = """
    WITH dead AS MATERIALIZED (
        SELECT place, id FROM {c} WHERE alive NOT IN ({beating})),
    buried AS (
        DELETE FROM {c} WHERE (place, id) IN (
            SELECT c.place, c.id FROM {c} c JOIN dead USING (place, id)
            FOR UPDATE OF c SKIP LOCKED)
        RETURNING place, body <> '' AS public)
    SELECT pg_notify('tenure_r' || place, '') FROM buried WHERE public GROUP BY place"""

STATEMENTS = {
    # $4 id, $5 session, $6 alive, $7 owner, $8 body, $9 width or null, $10 shared
    "tn_claim(bigint, text, text, text, text, bigint, text, text, bigint, boolean)": """
        WITH here AS MATERIALIZED (
            SELECT id, session, token, owner, body, shared, alive IN ({beating}) AS lives
            FROM {c} WHERE {here}),
        dead AS MATERIALIZED (SELECT id FROM here WHERE NOT lives),
        buried AS ({buried}),
        mine AS MATERIALIZED (SELECT * FROM here WHERE id = $4 AND lives),
        ahead AS MATERIALIZED (
            SELECT id, token FROM here WHERE lives AND NOT ($10 AND shared)
            AND token < coalesce((SELECT token FROM mine), 9223372036854775807)),
        entered AS (
            INSERT INTO {c}
                (place, namespace, roster, id, session, alive, owner, body, shared, token)
            SELECT $1, $2, $3, $4, $5, $6, $7, $8, $10, {token}
            WHERE NOT EXISTS (SELECT FROM mine)
            AND ($9 IS NULL OR (SELECT count(*) FROM ahead) < $9)
            RETURNING id, session, token, owner, body, shared),
        standing AS (
            SELECT id, session, token, owner, body, shared FROM mine
            UNION ALL SELECT * FROM entered),
        head AS (
            SELECT * FROM (
                SELECT id, session, token, owner, body, shared FROM here WHERE lives
                UNION ALL SELECT * FROM entered) every ORDER BY token LIMIT 1)
        SELECT h.id, h.session, h.token, h.owner, h.body, h.shared,
            m.id, m.session, m.token, m.owner, m.body, m.shared,
            (SELECT count(*) FROM ahead), (SELECT id FROM ahead ORDER BY token DESC LIMIT 1),
            CASE WHEN EXISTS (SELECT FROM buried WHERE public)
                OR ($8 <> '' AND EXISTS (SELECT FROM entered))
            THEN pg_notify('tenure_r' || $1, '') END
        FROM (VALUES (1)) one LEFT JOIN standing m ON true LEFT JOIN head h ON true""",
    # $4 id
    "tn_read(bigint, text, text, text)": """
        WITH here AS MATERIALIZED (
            SELECT id, session, token, owner, body, shared, alive IN ({beating}) AS lives
            FROM {c} WHERE {here} AND token <= coalesce(
                (SELECT token FROM {c} WHERE {here} AND id = $4), 9223372036854775807)),
        dead AS MATERIALIZED (SELECT id FROM here WHERE NOT lives),
        buried AS ({buried}),
        mine AS MATERIALIZED (SELECT * FROM here WHERE id = $4 AND lives),
        ahead AS MATERIALIZED (
            SELECT id, token FROM here WHERE lives AND id <> $4
            AND NOT (shared AND coalesce((SELECT shared FROM mine), false))),
        head AS (SELECT * FROM here WHERE lives ORDER BY token LIMIT 1)
        SELECT h.id, h.session, h.token, h.owner, h.body, h.shared,
            m.id, m.session, m.token, m.owner, m.body, m.shared,
            (SELECT count(*) FROM ahead), (SELECT id FROM ahead ORDER BY token DESC LIMIT 1),
            CASE WHEN EXISTS (SELECT FROM buried WHERE public)
            THEN pg_notify('tenure_r' || $1, '') END
        FROM (VALUES (1)) one LEFT JOIN mine m ON true LEFT JOIN head h ON true""",
    # $4 id, $5 width. Woken is who comes under the width, and when a writer goes, all the
    # readers that only it kept out.
    "tn_withdraw(bigint, text, text, text, bigint)": """
        WITH gone AS (
            DELETE FROM {c} WHERE {here} AND id = $4
            RETURNING token, shared, body <> '' AS public),
        rest AS NOT MATERIALIZED (
            SELECT id, alive, token, shared FROM {c}
            WHERE {here} AND id <> $4 AND alive IN ({beating})),
        next AS (SELECT * FROM rest ORDER BY token LIMIT 1 OFFSET $5 - 1),
        woken AS (
            SELECT next.id, next.alive FROM next, gone
            WHERE next.token > gone.token AND NOT (next.shared AND gone.shared)
            UNION
            SELECT rest.id, rest.alive FROM rest, gone
            WHERE rest.shared AND NOT gone.shared AND rest.token > gone.token
            AND rest.token < coalesce(
                (SELECT token FROM rest WHERE NOT shared ORDER BY token LIMIT 1),
                9223372036854775807))
        SELECT (SELECT count(pg_notify('tenure_s' || alive, id)) FROM woken),
            (SELECT count(pg_notify('tenure_r' || $1, '')) FROM gone WHERE public)""",
    # $4 id, $5 the body that was, $6 the body that shall be
    "tn_amend(bigint, text, text, text, text, text)": """
        WITH amended AS (
            UPDATE {c} SET body = $6 WHERE {here} AND id = $4 AND body IN ($5, $6)
            AND alive IN ({beating})
            RETURNING id)
        SELECT id, pg_notify('tenure_r' || $1, '') FROM amended""",
    "tn_census(bigint, text, text)": """
        WITH here AS MATERIALIZED (
            SELECT id, session, token, owner, body, shared, alive IN ({beating}) AS lives
            FROM {c} WHERE {here}),
        dead AS MATERIALIZED (SELECT id FROM here WHERE NOT lives),
        buried AS ({buried}),
        told AS (SELECT pg_notify('tenure_r' || $1, '') FROM buried WHERE public LIMIT 1)
        SELECT id, session, token, owner, body, shared FROM here WHERE lives
        AND (SELECT count(*) FROM told) >= 0 ORDER BY token""",
    "tn_rosters(text, text)": """
        SELECT DISTINCT roster FROM {c}
        WHERE namespace = $1 AND starts_with(roster, $2) AND alive IN ({beating})""",
    # $1 session's lock, as two integers and as one
    "tn_leave(integer, integer, bigint)": """
        WITH gone AS (DELETE FROM {c} WHERE alive = $3 RETURNING place, body <> '' AS public)
        SELECT pg_advisory_unlock($1, $2), (SELECT count(pg_notify('tenure_r' || place, ''))
            FROM (SELECT DISTINCT place FROM gone WHERE public) places)""",
    "tn_recall(bigint, text, text)": """
        SELECT text, version FROM {r} WHERE place = $1 AND namespace = $2 AND name = $3""",
    "tn_begin(bigint, text, text, text)": """
        WITH written AS (
            INSERT INTO {r} (place, namespace, name, text, version)
            VALUES ($1, $2, $3, $4, {token})
            ON CONFLICT DO NOTHING RETURNING version)
        SELECT version, pg_notify('tenure_r' || $1, '') FROM written""",
    "tn_write(bigint, text, text, text, bigint)": """
        WITH written AS (
            UPDATE {r} SET text = $4, version = {token}
            WHERE place = $1 AND namespace = $2 AND name = $3 AND version = $5
            RETURNING version)
        SELECT version, pg_notify('tenure_r' || $1, '') FROM written""",
    "tn_delete(bigint, text, text, bigint)": """
        WITH deleted AS (
            DELETE FROM {r} WHERE place = $1 AND namespace = $2 AND name = $3 AND version = $4
            RETURNING {token} AS version)
        SELECT version, pg_notify('tenure_r' || $1, '') FROM deleted""",
    "tn_recorded(text, text)": """
        SELECT name FROM {r} WHERE namespace = $1 AND starts_with(name, $2)""",
    # The names of locks, of which the server knows only the keys. A name that nobody has
    # held for a day is forgotten.
    "tn_note(text, bigint[], text[])": """
        WITH old AS (
            DELETE FROM {n} WHERE key IN (
                SELECT key FROM {n} WHERE seen < now() - interval '1 day'
                AND key <> ALL ($2) AND key NOT IN ({locked})
                FOR UPDATE SKIP LOCKED))
        INSERT INTO {n} (key, namespace, name, seen)
        SELECT key, $1, name, now() FROM unnest($2, $3) noted (key, name) ORDER BY key
        ON CONFLICT (key) DO UPDATE SET seen = excluded.seen RETURNING 1""",
}

# $1 of `badge` is what every connection of a namespace carries.
TAKEN = """
    SELECT l.classid::bigint << 32 | l.objid::bigint AS key, l.granted,
        l.mode = 'ShareLock', a.application_name, {name}
    FROM pg_locks l JOIN pg_stat_activity a USING (pid) {names}
    WHERE l.locktype = 'advisory' AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.pid IN (
        SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted
        AND database = l.database AND (classid::bigint << 32 | objid::bigint) = {badge})
    ORDER BY key, a.backend_start, l.pid"""
NAMES = "LEFT JOIN {n} n ON n.key = (l.classid::bigint << 32 | l.objid::bigint)"


def filled(texts: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    """The statements, with the names of the tables and what they have in common put in."""
    common = {
        "beating": BEATING,
        "locked": BEATING.replace("objsubid = 2", "objsubid = 1"),
        "here": _HERE,
        "buried": _BURIED.format(**names),
    }
    return {name: text.format(**names, **common) for name, text in texts.items()}
