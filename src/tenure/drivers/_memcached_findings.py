"""What in a memcached's configuration would break coordination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._model import Finding, Server
from ..errors import BackendError, Unavailable
from ..wires.memcached import Wire, statistics
from ._memcached_index import LOSSES, UPTIME_AT_START_SECONDS, number

FULL = 0.8
"""The part of the memory from which on it counts as nearly full."""
SMALL_BYTES = 16 << 20
ITEM_BYTES = 1 << 20
_EVERYWHERE = ("NULL", "0.0.0.0", "::")  # noqa: S104  # what is warned of


async def server(wire: Wire[Any]) -> Server:
    """What the server says of itself. It knows of no other, nor of a proxy before it."""
    _, replies = await wire.ask(b"stats\r\n")
    return Server("memcached", statistics(replies[0]).get("version", ""))


async def findings(wire: Wire[Any], most: float) -> Sequence[Finding]:
    """Read the statistics and the settings, and judge them."""
    try:
        _, replies = await wire.ask(b"stats\r\nstats settings\r\n", 2)
    except Unavailable:
        raise
    except BackendError as error:
        return [
            Finding("note", "stats", f"cannot be read: {error}", "connect to the server itself")
        ]
    stats, configured = map(statistics, replies)
    return [*_losses(stats), *_memory(stats, configured), *_reach(stats, configured, most)]


def _losses(stats: Mapping[str, str]) -> list[Finding]:
    found = []
    evicted = number(stats, "evictions") + number(stats, "slab_reassign_evictions_nomem")
    if evicted:
        found.append(
            Finding(
                "warning",
                f"evictions = {evicted}",
                "the server drops items to make room, and what is dropped may be a lease: its "
                "holder then loses all it has, and the lock is not granted for a TTL",
                "give coordination a memcached of its own, or this one more memory (-m)",
            )
        )
    flushed = number(stats, "cmd_flush")
    if flushed:
        found.append(
            Finding(
                "warning",
                f"cmd_flush = {flushed}",
                "somebody flushed the server; every flush ends all leases",
                "start it with -F, which disables flush_all",
            )
        )
    refused = sum(number(stats, each) for each in LOSSES[-2:])
    if refused:
        found.append(
            Finding(
                "warning",
                f"store_too_large + store_no_memory = {refused}",
                "items were refused, and memcached drops what was stored under the same key before",
                "give it a greater -I for large items, and more memory (-m)",
            )
        )
    return found


def _memory(stats: Mapping[str, str], configured: Mapping[str, str]) -> list[Finding]:
    found = []
    used, limit = number(stats, "bytes"), number(stats, "limit_maxbytes")
    if limit and (used > FULL * limit or limit < SMALL_BYTES):
        found.append(
            Finding(
                "warning",
                f"limit_maxbytes = {limit}, bytes = {used}",
                "the memory is small, or nearly full: soon items will be dropped",
                "give it more (-m); a lock takes about 300 bytes, and keeps them",
            )
        )
    if configured.get("evictions") == "off":
        found.append(
            Finding(
                "note",
                "evictions = off",
                "a full server refuses what is new and drops nothing else: the right choice",
                "watch its memory; what is refused is a StorageError",
            )
        )
    size = number(configured, "item_size_max")
    if size < ITEM_BYTES:
        found.append(
            Finding(
                "warning",
                f"item_size_max = {size}",
                "a roster is one item, so this bounds the members of a group and the waiters for "
                "a lock",
                "use the default of 1m, or more (-I)",
            )
        )
    return found


def _reach(stats: Mapping[str, str], configured: Mapping[str, str], most: float) -> list[Finding]:
    found = []
    up = number(stats, "uptime") - UPTIME_AT_START_SECONDS
    if up <= most + 1:
        found.append(
            Finding(
                "note",
                f"uptime = {number(stats, 'uptime')}",
                f"the server was started less than {most:g} s ago (ttl_max): what leases there "
                "were before may still be believed in, so nothing is granted yet",
                "wait",
            )
        )
    # Not set, it listens on every address.
    if configured.get("inter", "NULL") in _EVERYWHERE and (
        configured.get("auth_enabled_ascii") != "yes"
    ):
        found.append(
            Finding(
                "note",
                f"inter = {configured.get('inter', 'NULL')}, auth_enabled_ascii = no",
                "whoever reaches the port can read, change and flush everything",
                "bind it to an inner address (-l), or ask for a password (-Y file)",
            )
        )
    if configured.get("shutdown_command") == "yes":
        found.append(
            Finding(
                "note",
                "shutdown_command = yes",
                "any client may stop the server",
                "start it without -A",
            )
        )
    return found
