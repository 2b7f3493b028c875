"""Where the ZooKeeper driver keeps what: the paths of nodes, and what is in their names.

A claim's node says in its name all that is in a claim but its body, so that one reading of
a roster's names is a census of claims that have none. ZooKeeper numbers the nodes created in
a folder, from 0; the folder's own birth is a transaction of the ensemble, and every node in
it is created by another, later one. So birth + 1 + number is a token: it rises with the
numbers, is at most the transaction that created the claim, and hence is below that of any
later folder of the same name (docs/decisions/0060).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

from .._model import Claim, Roll
from ..wires._zookeeper_api import Stat

_EXCLUSIVE, _SHARED = "x", "s"
_PUBLIC = "p"


class Paths:
    """The paths in one namespace."""

    def __init__(self, chroot: str, namespace: str) -> None:
        base = f"{chroot.rstrip('/')}/tenure"
        self.root = f"{base}/{_quoted(namespace)}"
        self.rosters = f"{self.root}/rosters"
        self.sessions = f"{self.root}/sessions"
        self.records = f"{self.root}/records"
        self.above = [base[:at] for at in range(1, len(base)) if base[at] == "/"] + [base]
        """What stays for ever: the folders above the namespace's own."""

    def of_session(self, session: str) -> str:
        return f"{self.sessions}/{_quoted(session)}"

    def of_roster(self, roster: str) -> str:
        return f"{self.rosters}/{_quoted(roster)}"

    def of_record(self, name: str) -> str:
        return f"{self.records}/{_quoted(name)}"


class Entry(NamedTuple):
    """A claim's node: its number in the folder, and its name."""

    number: int
    node: str

    @property
    def shared(self) -> bool:
        return self.node.startswith(_SHARED)

    @property
    def public(self) -> bool:
        return self.node[1:2] == _PUBLIC

    @property
    def id(self) -> str:
        return id_of(self.node)


def node_of(session: str, id: str, owner: str, *, public: bool, shared: bool) -> str:
    """The name of a claim's node, without the number that ZooKeeper puts behind it."""
    kind = (_SHARED if shared else _EXCLUSIVE) + (_PUBLIC if public else "-")
    return f"{kind}:{_short(session, id)}:{quote(owner, safe='')}:"


def _short(session: str, id: str) -> str:
    """A claim's session and id; the core's ids begin with the session."""
    rest = id.removeprefix(session + ".")
    return f"{session}:{'' if rest != id else '='}{quote(rest, safe='')}"


def id_of(node: str) -> str:
    """The id of the claim that has a node of that name."""
    _, session, rest, _, _ = node.split(":")
    return unquote(rest[1:]) if rest.startswith("=") else f"{session}.{unquote(rest)}"


def entry_of(node: str) -> Entry | None:
    """A claim's node; None for what is none."""
    parts = node.split(":")
    if len(parts) != 5:
        return None
    try:
        # Beyond 2**31 ZooKeeper counts on from the least negative number.
        return Entry(int(parts[4]) & 0xFFFFFFFF, node)
    except ValueError:
        return None


def claim_of(roster: str, entry: Entry, stat: Stat, body: str = "") -> Claim:
    """The claim that a node stands for."""
    _, session, _, owner, _ = entry.node.split(":")
    token = stat.born + 1 + entry.number
    return Claim(roster, entry.id, session, token, unquote(owner), body, entry.shared)


def entries_of(names: Iterable[str]) -> list[Entry]:
    """The claims' nodes among the names in a folder, first come first."""
    return sorted(entry for name in names if (entry := entry_of(name)))


def roll_of(
    roster: str, names: Sequence[str], stat: Stat, mine: str, bodies: dict[str, str]
) -> Roll:
    """The roll as seen from the node `mine`. `bodies` are those that are known, by node."""
    entries = entries_of(names)
    if not entries:
        return Roll()
    head = claim_of(roster, entries[0], stat, bodies.get(entries[0].node, ""))
    entry = next((each for each in entries if each.node == mine), None)
    if entry is None:
        return Roll((head,), None, len(entries))
    ahead = [each for each in entries if each.number < entry.number]
    if entry.shared:
        ahead = [each for each in ahead if not each.shared]
    own = claim_of(roster, entry, stat, bodies.get(mine, ""))
    return Roll((head,), own, len(ahead), ahead[-1].id if ahead else None)


def find(names: Iterable[str], id: str) -> str:
    """The node of the claim of an id; empty if there is none."""
    return next((name for name in names if entry_of(name) and id_of(name) == id), "")


def _quoted(name: str) -> str:
    """A name as that of a node; `.` and `..` may be none."""
    quoted = quote(name, safe="@,=+ ")
    return quoted.replace(".", "%2E") if not quoted.strip(".") else quoted


def name_of(node: str) -> str:
    """The name that was quoted."""
    return unquote(node)
