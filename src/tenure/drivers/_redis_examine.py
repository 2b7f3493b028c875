"""What in the configuration of a Redis server would break coordination."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from .._model import Finding
from ..errors import BackendError, Unavailable

Ask = Callable[..., Awaitable[Any]]
"""Carries out one command, given as words."""

_SETTINGS = (b"appendfsync", b"min-replicas-to-write", b"min-replicas-max-lag", b"timeout")
_FULL = 0.9
_CLOCK_SECONDS_MAX = 2.0


async def examine(
    ask: Ask, wall: Callable[[], float], ttl: float, *, replaces: bool = True
) -> list[Finding]:
    """The findings about one server. What may not be read is a note; `Unavailable` if it is gone.

    replaces: whether a replica may take this server's place, so that what it lacks is lost.
    """
    found: list[Finding] = []
    facts = await _facts(ask, found)
    settings = await _settings(ask, found)
    found += _memory(facts)
    found += _persistence(facts, settings)
    found += _replication(facts, settings, replaces)
    found += _connections(facts, settings, ttl)
    found += await _clock(ask, wall)
    return found


async def _facts(ask: Ask, found: list[Finding]) -> dict[str, str]:
    """What INFO says."""
    try:
        told = (await ask(b"INFO")).decode(errors="replace")
    except Unavailable:
        raise
    except BackendError:
        text = (
            "The user may not read it, so memory, persistence and replication were not looked at."
        )
        found.append(Finding("note", "INFO", text, "Run this as a user with the right to INFO."))
        return {}
    lines = (line.partition(":") for line in told.splitlines() if not line.startswith("#"))
    return {name: value for name, _, value in lines}


async def _settings(ask: Ask, found: list[Finding]) -> dict[str, str]:
    """What CONFIG says of the settings that matter; what the server does not have is left out."""
    settings: dict[str, str] = {}
    try:
        for name in _SETTINGS:
            for key, value in _pairs(await ask(b"CONFIG", b"GET", name)):
                settings[key.decode(errors="replace")] = value.decode(errors="replace")
    except Unavailable:
        raise
    except BackendError:
        text = (
            "It may not be read (its command is renamed, or the user has no right to it), so "
            f"{', '.join(name.decode() for name in _SETTINGS)} were not looked at."
        )
        advice = "Run this as a user with the right to CONFIG GET, or look at the file redis.conf."
        found.append(Finding("note", "CONFIG GET", text, advice))
    return settings


def _pairs(reply: Any) -> Iterator[tuple[bytes, bytes]]:
    return zip(reply[::2], reply[1::2], strict=False)


def _number(facts: Mapping[str, str], name: str) -> int:
    text = facts.get(name, "")
    return int(text) if text.isdigit() else 0


def _memory(facts: Mapping[str, str]) -> Iterator[Finding]:
    policy, most = facts.get("maxmemory_policy", "noeviction"), _number(facts, "maxmemory")
    if policy != "noeviction":
        subject, advice = f"maxmemory-policy {policy}", "Set maxmemory-policy noeviction."
        if most:
            text = (
                "When its memory is full, the server throws out keys, and with them claims that "
                "are held: two clients then hold one lock."
            )
            yield Finding("error", subject, text, advice)
        else:
            text = (
                "There is no maxmemory, so nothing is thrown out now. Once there is one, claims "
                "that are held are thrown out, and two clients hold one lock."
            )
            yield Finding("warning", subject, text, advice)
    used = _number(facts, "used_memory")
    if most and used > _FULL * most:
        text = "When it is full, claims are refused (StorageError), or keys are thrown out."
        subject = f"used_memory {used / most:.0%} of maxmemory"
        yield Finding("warning", subject, text, "Raise maxmemory, or make room.")


def _persistence(facts: Mapping[str, str], settings: Mapping[str, str]) -> Iterator[Finding]:
    if facts.get("aof_enabled") == "0":
        text = (
            "A server that restarts has forgotten who holds what: others are granted at once, "
            "and the old holders learn of it at their next renewal, up to a third of the TTL later."
        )
        advice = (
            "Set appendonly yes and appendfsync always; or have whatever the locks protect check "
            "tokens."
        )
        yield Finding("warning", "appendonly no", text, advice)
    elif settings.get("appendfsync", "always") != "always":
        text = (
            "A crash of its machine loses the last second or more: what was claimed then is free."
        )
        subject = f"appendfsync {settings['appendfsync']}"
        yield Finding("warning", subject, text, "Set appendfsync always.")
    advice = "See the server's log, and make room on its disk."
    if facts.get("aof_last_write_status", "ok") != "ok":
        text = "The server could not write to its disk, and refuses claims until it can."
        yield Finding("error", "aof_last_write_status err", text, advice)
    if facts.get("rdb_last_bgsave_status", "ok") != "ok":
        text = "The server could not save its data. If it saves by itself, it refuses claims."
        yield Finding("warning", "rdb_last_bgsave_status err", text, advice)


def _replication(
    facts: Mapping[str, str], settings: Mapping[str, str], replaces: bool
) -> Iterator[Finding]:
    if facts.get("role") == "slave":
        text = "It is a replica: nothing can be claimed here."
        advice = "Connect to the master, or by way of the sentinels with redis+sentinel://."
        yield Finding("error", "role slave", text, advice)
        return
    replicas = _number(facts, "connected_slaves")
    wanted = _number(settings, "min-replicas-to-write")
    if wanted and _number(settings, "min-replicas-max-lag"):
        good = _number(facts, "min_slaves_good_slaves")
        if good < wanted:
            subject = f"min-replicas-to-write {wanted}, {good} in touch"
            text = "The server refuses every claim until enough replicas are in touch."
            yield Finding("error", subject, text, "See to the replicas.")
    elif replicas and replaces and settings:
        text = (
            "A master that is cut off from its replicas goes on granting. When a replica takes its "
            "place, both grant, and what had not reached the replica is lost."
        )
        advice = (
            "Set min-replicas-to-write 1 and min-replicas-max-lag to a few seconds, and connect "
            "with ?wait_replicas=1."
        )
        yield Finding("warning", "min-replicas-to-write 0", text, advice)


def _connections(
    facts: Mapping[str, str], settings: Mapping[str, str], ttl: float
) -> Iterator[Finding]:
    idle = _number(settings, "timeout")
    if idle and idle <= ttl / 3:
        text = (
            f"The server closes idle connections before the next renewal, which comes every "
            f"{ttl / 3:.3g} s: each one makes a new connection."
        )
        advice = f"Set timeout 0, or to more than {ttl / 3:.3g} seconds."
        yield Finding("note", f"timeout {idle}", text, advice)
    most, now = _number(facts, "maxclients"), _number(facts, "connected_clients")
    if most and now > _FULL * most:
        text = "When no more can connect, clients cannot renew, and lose what they hold."
        yield Finding("warning", f"{now} of {most} clients", text, "Raise maxclients.")


async def _clock(ask: Ask, wall: Callable[[], float]) -> list[Finding]:
    before = wall()
    try:
        seconds, micros = await ask(b"TIME")
    except Unavailable:
        raise
    except BackendError:
        text = "The user may not read it; the driver's own scripts need that right, too."
        return [Finding("error", "TIME", text, "Give the user the right to TIME.")]
    after, theirs = wall(), int(seconds) + int(micros) / 1e6
    off = max(before - theirs, theirs - after)
    if off <= _CLOCK_SECONDS_MAX:
        return []
    side = "behind" if theirs < before else "ahead of"
    text = (
        "One of the two clocks is wrong. Sessions expire by the server's: if it is set forward "
        "while they live, they end early, and two clients may hold one lock. Tokens begin with it."
    )
    advice = "Keep both clocks with NTP; let it slew them, and not step."
    return [Finding("warning", f"clock {off:.1f} s {side} ours", text, advice)]
