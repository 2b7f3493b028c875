"""The tables and statements of the PostgreSQL driver's rosters and records.

`{c}`, `{r}` and `{n}` stand for the tables of claims, records and names, `{token}` for the
next number of the sequence; `filled` puts them in. Each verb is one statement. Those that
depend on the order of the claims follow, in the same round trip and transaction, one that
waits for the roster's advisory lock, and so see all that was done under it before.

A session holds an advisory lock on its main connection from before its first claim until
that connection ends, so a claim whose `alive` is not locked is dead: the locks are looked at
after the claims.
"""

from __future__ import annotations

TABLES = ("tenure_claim", "tenure_record", "tenure_name")

# Claims and the names of held locks do not outlive the connections: no write-ahead log.
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
    CREATE UNLOGGED TABLE IF NOT EXISTS {n} (
        key bigint PRIMARY KEY, namespace text COLLATE "C" NOT NULL,
        name text COLLATE "C" NOT NULL, seen timestamptz NOT NULL)"""

GRANT = "GRANT SELECT, INSERT, UPDATE, DELETE ON {c}, {r}, {n} TO"

# One cached plan is good for each of these statements, whatever the values are, and however
# few claims there were when it was made.
SETTINGS = {
    "default_transaction_isolation": "'read committed'",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
}

# Fails before anything was prepared if a table is missing.
CHECK = "SELECT FROM {c}, {r}, {n} LIMIT 0"

BEATING = """
    SELECT l.classid::bigint << 32 | l.objid::bigint FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.mode = 'ExclusiveLock'
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

# Reading all of the server's locks takes as long as all the rest of a verb, so where a few
# sessions are in question, their locks are tried: who gets one knows that nobody holds it. A
# connection gets its own, too, so `own` must be told apart: the session that lives on it.
_DEAD = "pg_try_advisory_xact_lock_shared((alive >> 32)::integer, (alive << 32 >> 32)::integer)"
_LIVING = """
    SELECT alive FROM (SELECT DISTINCT alive FROM {c} WHERE place = $1) sessions
    WHERE alive = $2 OR NOT {dead}"""

# On the first use of a connection: claims in rosters that nobody else looks at any more.
# Two who bury at once must not wait for each other, or they could wait in a circle.
SWEEP = """
    WITH buried AS (
        DELETE FROM {c} WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {c} WHERE alive NOT IN ({beating}) FOR UPDATE SKIP LOCKED))
        RETURNING place, body <> '' AS public)
    SELECT pg_notify('tenure_r' || place, '') FROM buried WHERE public GROUP BY place"""

STATEMENTS = {
    # $1 place, $2 own, $3 id, $4 width or null, $5 shared, and the rest of the claim's columns
    "tn_claim(bigint, bigint, text, bigint, boolean, text, text, text, bigint, text, text)": """
        WITH mine AS MATERIALIZED (
            SELECT token, shared, body FROM {c} WHERE place = $1 AND id = $3),
        sessions AS MATERIALIZED (
            SELECT alive = $2 OR NOT {dead} AS lives, ahead, before, head
            FROM (SELECT alive, min(token) AS head, count(*) FILTER (WHERE NOT ($5 AND shared)) AS
                    ahead, max(token) FILTER (WHERE NOT ($5 AND shared)) AS before
                FROM {c} WHERE place = $1
                AND token < coalesce((SELECT token FROM mine), {endless}) GROUP BY alive) each),
        seen AS MATERIALIZED (
            SELECT coalesce(sum(ahead) FILTER (WHERE lives), 0)::bigint AS ahead,
                max(before) FILTER (WHERE lives) AS before,
                min(head) FILTER (WHERE lives) AS head, bool_and(lives) AS all_live
            FROM sessions),
        entered AS (
            INSERT INTO {c}
                (place, id, shared, namespace, roster, session, alive, owner, body, token)
            SELECT $1, $3, $5, $6, $7, $8, $9, $10, $11, {token} FROM seen
            WHERE ($4 IS NULL OR ahead < $4) AND NOT EXISTS (SELECT FROM mine)
            RETURNING token, CASE WHEN body <> '' THEN pg_notify('tenure_r' || $1, '') END)
        SELECT seen.all_live, seen.ahead, (SELECT id FROM {c} WHERE place = $1 AND token = before),
            mine.token, mine.shared, mine.body, entered.token,
            h.id, h.session, h.token, h.owner, h.body, h.shared
        FROM seen LEFT JOIN mine ON true LEFT JOIN entered ON true
        LEFT JOIN {c} h ON h.place = $1 AND h.token = head""",
    # $1 place, $2 id, $3 shared, and the rest of the claim's columns: looks at no other claim.
    "tn_post(bigint, text, boolean, text, text, text, bigint, text, text)": """
        WITH mine AS MATERIALIZED (
            SELECT token, shared, body FROM {c} WHERE place = $1 AND id = $2),
        entered AS (
            INSERT INTO {c}
                (place, id, shared, namespace, roster, session, alive, owner, body, token)
            SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, {token}
            WHERE NOT EXISTS (SELECT FROM mine)
            RETURNING token, pg_notify('tenure_r' || $1, ''))
        SELECT mine.token, mine.shared, mine.body, entered.token
        FROM (SELECT) one LEFT JOIN mine ON true LEFT JOIN entered ON true""",
    # $1 place, $2 own, $3 id
    "tn_read(bigint, bigint, text)": """
        WITH mine AS MATERIALIZED (
            SELECT * FROM {c} WHERE place = $1 AND id = $3 AND (alive = $2 OR NOT {dead})),
        sessions AS MATERIALIZED (
            SELECT alive = $2 OR NOT {dead} AS lives, ahead, before, head
            FROM (SELECT alive, min(token) AS head,
                    count(*) FILTER (WHERE NOT (shared AND beside)) AS ahead,
                    max(token) FILTER (WHERE NOT (shared AND beside)) AS before
                FROM {c}, (SELECT coalesce(bool_or(shared), false) AS beside FROM mine) mode
                WHERE place = $1
                AND token < coalesce((SELECT token FROM mine), {endless}) GROUP BY alive) each),
        seen AS MATERIALIZED (
            SELECT coalesce(sum(ahead) FILTER (WHERE lives), 0)::bigint AS ahead,
                max(before) FILTER (WHERE lives) AS before,
                min(head) FILTER (WHERE lives) AS head, bool_and(lives) AS all_live
            FROM sessions)
        SELECT seen.all_live, seen.ahead, (SELECT id FROM {c} WHERE place = $1 AND token = before),
            mine.id, mine.session, mine.token, mine.owner, mine.body, mine.shared,
            h.id, h.session, h.token, h.owner, h.body, h.shared
        FROM seen LEFT JOIN mine ON true LEFT JOIN {c} h ON h.place = $1 AND h.token = head""",
    # $1 place, $2 own, $3 id, $4 width. Woken is who comes under the width, and when a writer
    # goes, all the readers that only it kept out.
    "tn_withdraw(bigint, bigint, text, bigint)": """
        WITH gone AS (
            DELETE FROM {c} WHERE place = $1 AND id = $3
            RETURNING token, shared, body <> '' AS public),
        woken AS (
            SELECT next.id, next.alive FROM gone CROSS JOIN LATERAL (
                SELECT id, alive, token, shared FROM {c}
                WHERE place = $1 AND id <> $3 AND (alive = $2 OR NOT {dead})
                ORDER BY token LIMIT 1 OFFSET $4 - 1) next
            WHERE next.token > gone.token AND NOT (next.shared AND gone.shared)
            UNION
            SELECT reader.id, reader.alive FROM gone CROSS JOIN LATERAL (
                SELECT id, alive FROM {c}
                WHERE place = $1 AND shared AND token > gone.token AND token < coalesce(
                    (SELECT token FROM {c} WHERE place = $1 AND id <> $3 AND NOT shared
                    ORDER BY token LIMIT 1), {endless})) reader
            WHERE NOT gone.shared)
        SELECT (SELECT count(pg_notify('tenure_s' || alive, id)) FROM woken),
            (SELECT count(pg_notify('tenure_r' || $1, '')) FROM gone WHERE public)""",
    # $1 place, $2 own
    "tn_bury(bigint, bigint)": """
        WITH buried AS (
            DELETE FROM {c} WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM {c} WHERE place = $1 AND alive NOT IN ({living})
                FOR UPDATE SKIP LOCKED))
            RETURNING body <> '' AS public)
        SELECT pg_notify('tenure_r' || $1, '') FROM buried WHERE public LIMIT 1""",
    # $1 place, $2 own, $3 id, $4 the body that was, $5 the body that shall be
    "tn_amend(bigint, bigint, text, text, text)": """
        WITH amended AS (
            UPDATE {c} SET body = $5 WHERE place = $1 AND id = $3 AND body IN ($4, $5)
            AND (alive = $2 OR NOT {dead})
            RETURNING id)
        SELECT id, pg_notify('tenure_r' || $1, '') FROM amended""",
    # $1 place, $2 own
    "tn_census(bigint, bigint)": """
        SELECT id, session, token, owner, body, shared, alive IN ({living}) FROM {c}
        WHERE place = $1 ORDER BY token""",
    "tn_rosters(text, text)": """
        SELECT DISTINCT roster FROM {c}
        WHERE namespace = $1 AND starts_with(roster, $2) AND alive IN ({beating})""",
    # $1 session's lock
    "tn_leave(bigint)": """
        WITH gone AS (DELETE FROM {c} WHERE alive = $1 RETURNING place, body <> '' AS public)
        SELECT pg_advisory_unlock_all(), (SELECT count(pg_notify('tenure_r' || place, ''))
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
        "locked": BEATING.replace("objsubid = 2", "objsubid = 1").replace(
            "AND l.mode = 'ExclusiveLock'", ""
        ),
        "dead": _DEAD,
        "living": _LIVING.format(dead=_DEAD, **names),
        "endless": "9223372036854775807",
    }
    return {name: text.format(**names, **common) for name, text in texts.items()}
