"""Where a slot of a Redis Cluster is: the map that the nodes give, and their redirections."""

from __future__ import annotations

import binascii
from typing import NamedTuple

from .._url import Host
from ._redis import Reply

_SLOTS = 16384

MAP = (b"CLUSTER", b"SLOTS")
"""The command that asks for the map; Redis 6 has no other."""


def slot_of(tag: bytes) -> int:
    """The slot of every key that has this text between braces."""
    return binascii.crc_hqx(tag, 0) % _SLOTS


class Redirection(NamedTuple):
    """Where to ask instead: for good, or this once while the slot is being moved."""

    host: Host
    moved: bool


def redirection(text: str, asked: Host) -> Redirection | None:
    """What an error reply says of where to ask; None if it says nothing of that."""
    kind, _, rest = text.partition(" ")
    if kind not in ("MOVED", "ASK"):
        return None
    name, _, port = rest.partition(" ")[2].rpartition(":")
    if not port.isdigit():
        return None
    return Redirection(Host(name or asked.name, int(port)), kind == "MOVED")


def read_map(reply: Reply, slot: int, asked: Host) -> tuple[Host | None, list[Host]]:
    """The master that has the slot, if any has, and all nodes that the map names."""
    owner: Host | None = None
    known: list[Host] = []
    for entry in reply if isinstance(reply, list) else ():
        first, last, *nodes = entry
        hosts = [_host(node, asked) for node in nodes]
        known += [host for host in hosts if host not in known]
        if first <= slot <= last and hosts:
            owner = hosts[0]
    return owner, known


def _host(node: Reply, asked: Host) -> Host:
    # A node that does not know its own name means the one by which it was asked.
    assert isinstance(node, list)
    name, port = node[:2]
    assert isinstance(port, int)
    return Host(name.decode() if isinstance(name, bytes) and name else asked.name, port)
