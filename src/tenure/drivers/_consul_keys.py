"""Where the consul driver keeps what: names of keys, and the values in them.

All keys of a namespace begin with `tenure/<namespace>/`. A claim has a key of its own, named
after its id, under the roster's: in `p/` if it was entered with a body, since watchers hear of
those, else in `q/`. Consul's creation index of the key is the claim's token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from .._model import Claim, Roll
from ..wires.consul import Entry, decoded

_KNOWN_ROSTERS = 1024
SHARED = 1
"""The flag of a shared claim's key."""


class Session:
    """An own session: its owner, and when its key was last written; 0 if it never was."""

    __slots__ = ("epoch", "owner")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.epoch = 0


class Place:
    """What the driver knows of a claim of its own.

    `sure`: every request about it was answered, so that none can be on its way still. `alone`:
    it was the only one of its roster when it was entered. `index` is Consul's at the last look,
    `before` the entry that stood directly before it then, and `ahead` the keys of all that
    stood in its way.
    """

    __slots__ = (
        *("ahead", "alone", "before", "index", "key", "roster", "session", "shared", "sure"),
        "token",
    )

    def __init__(self, session: str, roster: str, key: str, shared: bool) -> None:
        self.session = session
        self.roster = roster
        self.key = key
        self.shared = shared
        self.sure = True
        self.token = 0
        self.alone = False
        self.index = 0
        self.before: Entry | None = None
        self.ahead: frozenset[str] = frozenset()


class Stand(NamedTuple):
    """A claim in a roster as it was read."""

    entry: Entry | None
    ahead: Sequence[Entry]


class Keys:
    """The names of keys in one namespace. They need no escape in a URL."""

    def __init__(self, namespace: str) -> None:
        self.root = f"tenure/{escaped(namespace)}/"
        self._rosters: dict[str, str] = {}

    def of_roster(self, roster: str) -> str:
        """What the keys of a roster's claims begin with."""
        found = self._rosters.get(roster)
        if found is None:
            if len(self._rosters) >= _KNOWN_ROSTERS:
                self._rosters.clear()
            found = self._rosters[roster] = f"{self.root}claim/{escaped(roster)}/"
        return found

    def of_claim(self, roster: str, id: str, public: bool) -> str:
        """The key of a claim."""
        return f"{self.of_roster(roster)}{'p' if public else 'q'}/{escaped(id)}"

    def of_gate(self, roster: str) -> str:
        """The key that is written whenever a claim is entered; no other begins with it."""
        return f"{self.root}gate/{escaped(roster)}/"

    def of_session(self, session: str) -> str:
        """The key that is written when a session withdraws a claim that may yet arrive."""
        return f"{self.root}session/{escaped(session)}"

    def of_record(self, name: str) -> str:
        """The key of a record."""
        return f"{self.root}record/{escaped(name)}"

    def rosters(self, prefix: str) -> str:
        """What the keys of the rosters begin with whose names begin so."""
        return f"{self.root}claim/{escaped(prefix)}"

    def name(self, key: str) -> str:
        """The name in the key of a record, or in what the keys of a roster begin with."""
        return unescaped(key[len(self.root) :].split("/")[1])


def escaped(name: str) -> str:
    """A name as a part of a key: no slash, nothing that a URL would escape, and no `..`."""
    text = quote(name, safe="").replace("%", "=")
    return f"=2E{text[1:]}" if text.startswith(".") else text


def unescaped(text: str) -> str:
    """The name that was escaped."""
    return unquote(text.replace("=", "%"))


def value(owner: str, body: str, since: float) -> bytes:
    """What a claim's key holds; `since` is for people to read."""
    record = {"owner": owner, "body": body, "since": since}
    return json.dumps(record, separators=(",", ":")).encode()


def record(entry: Entry) -> dict[str, Any]:
    """What a claim's key holds; nothing, if somebody else wrote it."""
    try:
        found = json.loads(decoded(entry))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def claim_id(entry: Entry) -> str:
    """The id of the claim that a key belongs to."""
    return unescaped(entry.key.rpartition("/")[2])


def is_shared(entry: Entry) -> bool:
    """Whether it is the key of a shared claim."""
    return bool(entry.flags & SHARED)


def claim(roster: str, entry: Entry) -> Claim:
    """A claim as it is stored."""
    found = record(entry)
    id = claim_id(entry)
    owner, body = str(found.get("owner", "")), str(found.get("body", ""))
    # The dead have no session any more; who they were is in the id.
    session = entry.session or id.rpartition(".")[0]
    return Claim(roster, id, session, entry.created, owner, body, is_shared(entry))


def find(entries: Sequence[Entry], key: str) -> Stand:
    """A claim among those of its roster, in order, and those that stand in its way."""
    for at, entry in enumerate(entries):
        if entry.key == key:
            return Stand(entry, ahead(entries[:at], is_shared(entry)))
    return Stand(None, ())


def ahead(entries: Sequence[Entry], shared: bool) -> Sequence[Entry]:
    """Those that stand in the way of one behind them."""
    return [each for each in entries if not is_shared(each)] if shared else entries


def roll(roster: str, entries: Sequence[Entry], stand: Stand, shared: bool = False) -> Roll:
    """The roll from all entries of a roster; of one without a claim, as one behind all sees it."""
    head = (claim(roster, entries[0]),) if entries else ()
    if stand.entry is None:
        others = ahead(entries, shared)
        return Roll(head, None, len(others), claim_id(others[-1]) if others else None)
    before = claim_id(stand.ahead[-1]) if stand.ahead else None
    return Roll(head, claim(roster, stand.entry), len(stand.ahead), before)
