"""How a driver goes away: announced, warned of louder, refused unless allowed, and removed.

Release N warns of it, N+1 warns louder, N+2 connects only if it is allowed by name, and N+3
removes it and leaves a tombstone, which names what replaces it. That is never sooner than three
minor releases and nine months after the announcement; `check` finds what was deleted early.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import TenureError
from .manifest import Deprecation, Manifest
from .versions import release

MINORS_MIN = 3
MONTHS_MIN = 9
TOMBSTONES = Path(__file__).with_name("tombstones.toml")


class InvalidTombstones(TenureError):
    """The list of removed drivers has an entry that lacks something."""


class Phase(IntEnum):
    """How far a driver is on its way out."""

    NONE = 0
    """It is deprecated only from a later release on."""
    ANNOUNCED = 1
    """It is warned of, once per process."""
    LOUD = 2
    """It is warned of at every connect, and its page carries a banner."""
    REFUSED = 3
    """It is connected only if it is allowed by name."""
    DUE = 4
    """The same; and it may be removed now."""


def phase(deprecation: Deprecation, version: str, today: date) -> Phase:
    """How far the driver is in a release; one whose version nobody knows is at the beginning."""
    passed = minors(deprecation.since, version) if release(version) else 0
    if passed < 0:
        return Phase.NONE
    if passed >= MINORS_MIN and today >= due(deprecation.since_date):
        return Phase.DUE
    return Phase(min(passed + 1, Phase.REFUSED))


def minors(since: str, version: str) -> int:
    """How many minor releases lie between two versions, at least.

    How many there were before a major one, nobody can tell by the numbers: it counts as one.
    """
    (a, b), (c, d) = _series(since), _series(version)
    return d - b if a == c else c - a + d if c > a else -1


def due(since: date) -> date:
    """The first day on which what was deprecated that day may be removed."""
    return later(since, MONTHS_MIN)


def later(day: date, months: int) -> date:
    """The day so many months later; the first of the next, where that month has no such day."""
    whole = day.year * 12 + day.month - 1 + months
    first, after = (date(each // 12, each % 12 + 1, 1) for each in (whole, whole + 1))
    return min(first + timedelta(days=day.day - 1), after)


def _series(version: str) -> tuple[int, int]:
    major, minor = (*release(version), 0, 0)[:2]
    return major, minor


def told(driver: str, deprecation: Deprecation) -> str:
    """What a message says of it."""
    return (
        f"{driver}: this driver is deprecated since {deprecation.since} and will be removed in "
        f"{deprecation.remove_in}: {deprecation.reason}; use {deprecation.replacement}, as "
        f"{deprecation.migration} tells"
    )


def banner(driver: str, deprecation: Deprecation | None, version: str, today: date) -> str:
    """The block that stands above the page of a driver from the second release on, or nothing."""
    if deprecation is None or phase(deprecation, version, today) < Phase.LOUD:
        return ""
    now = phase(deprecation, version, today)
    allowed = f' `connect` refuses it without `allow="{driver}"`.' if now >= Phase.REFUSED else ""
    return (
        f"> **Deprecated since {deprecation.since}, to be removed in {deprecation.remove_in}:** "
        f"{deprecation.reason}.{allowed} Use {deprecation.replacement}: see "
        f"{deprecation.migration}.\n"
    )


def of(block: Mapping[str, str]) -> Deprecation:
    """A deprecation as the index has it."""
    return Deprecation(**{**block, "since_date": date.fromisoformat(block["since_date"])})  # type: ignore[arg-type]


def version_of(scheme: str, outside: bool) -> str:
    """The version of the distribution that a driver is in; empty if nobody knows."""
    if not outside:
        return str(sys.modules["tenure"].__version__)
    from importlib.metadata import entry_points

    for point in entry_points(group="tenure.drivers", name=scheme):
        if point.dist is not None:
            return point.dist.version
    return ""


# -- what was removed ---------------------------------------------------------------------------


class Tombstone(NamedTuple):
    """What is left of a driver: what it was, when it went, and what replaces it."""

    scheme: str
    since: str
    since_date: date
    removed_in: str
    removed_on: date
    reason: str
    replacement: str
    migration: str


def tombstones(path: Path = TOMBSTONES) -> list[Tombstone]:
    """The drivers that were removed; `InvalidTombstones` names an entry that is not whole."""
    found = tomllib.loads(path.read_text(encoding="utf-8")).get("tombstones", [])
    stones = []
    for number, each in enumerate(found, 1):
        for field in Tombstone._fields:
            wanted = date if field in ("since_date", "removed_on") else str
            if type(each.get(field)) is not wanted:
                raise InvalidTombstones(
                    f"{path}: tombstone {number}: {field!r} is {each.get(field)!r}, and it must "
                    f"be {'a date' if wanted is date else 'text'}"
                )
        try:
            stones.append(Tombstone(**each))
        except TypeError:
            extra = ", ".join(sorted(set(each) - set(Tombstone._fields)))
            raise InvalidTombstones(
                f"{path}: tombstone {number}: there is no key {extra}"
            ) from None
    return stones


def buried(scheme: str) -> str | None:
    """What to say of the driver of a scheme that was removed; None if there never was one."""
    try:
        stones = tombstones(TOMBSTONES)
    except OSError:
        return None  # in an archive, say: the scheme is unknown all the same
    for stone in stones:
        if stone.scheme == scheme:
            return (
                f"the driver for {scheme!r} was removed in {stone.removed_in}: {stone.reason}; "
                f"use {stone.replacement}, as {stone.migration} tells"
            )
    return None


# -- what CI compares -----------------------------------------------------------------------------


class Released(NamedTuple):
    """The state of the last release: the drivers that users have, and what they were told.

    deprecations: for a scheme, since which version and day it is deprecated.
    """

    version: str
    entry_points: Mapping[str, str]
    deprecations: Mapping[str, tuple[str, date]]
    tombstones: frozenset[str]


def state(version: str, entry_points: Mapping[str, str], manifests: Iterable[Manifest]) -> str:
    """The text in which a release records what it has, to be compared with the next."""
    recorded = {
        "version": version,
        "entry_points": dict(entry_points),
        "deprecations": {
            scheme: [each.deprecation.since, each.deprecation.since_date.isoformat()]
            for each in manifests
            if each.deprecation is not None
            for scheme in each.schemes
        },
        "tombstones": sorted(stone.scheme for stone in tombstones(TOMBSTONES)),
    }
    return json.dumps(recorded, indent=1, sort_keys=True) + "\n"


def released(path: Path) -> Released:
    """What the last release has recorded."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    deprecations = {
        scheme: (since, date.fromisoformat(day))
        for scheme, (since, day) in found["deprecations"].items()
    }
    return Released(
        found["version"], found["entry_points"], deprecations, frozenset(found["tombstones"])
    )


def check(
    before: Released,
    schemes: Iterable[str],
    manifests: Iterable[Manifest],
    stones: Sequence[Tombstone],
    version: str,
    today: date,
) -> list[str]:
    """What is wrong with the state of the tree, seen from the last release; empty if nothing.

    `schemes` are the entry points of today, and `version` is that of the next release.
    """
    present, buried = set(schemes), {stone.scheme: stone for stone in stones}
    wrong = [f"{scheme}: its tombstone is gone" for scheme in before.tombstones - buried.keys()]
    wrong += [f"{scheme}: it has a tombstone and lives" for scheme in present & buried.keys()]
    for scheme in before.entry_points.keys() - present:
        reason = _early(before.deprecations.get(scheme), buried.get(scheme), version, today)
        if reason:
            wrong.append(f"{scheme}: it was deleted, and {reason}")
    for manifest in manifests:
        if manifest.deprecation is not None:
            wrong += [f"{manifest.driver}: {text}" for text in _promise(manifest, before, today)]
    return sorted(wrong)


def _early(
    announced: tuple[str, date] | None, stone: Tombstone | None, version: str, today: date
) -> str:
    """Why an entry point may not be gone yet; empty if it may."""
    if announced is None:
        return "no release has called it deprecated"
    since, day = announced
    if minors(since, version) < MINORS_MIN:
        return f"it is deprecated since {since}, which is not {MINORS_MIN} minor releases ago"
    if today < due(day):
        return f"it is deprecated since {day}, which is not {MONTHS_MIN} months ago"
    if stone is None:
        return "it has no tombstone"
    if (stone.since, stone.since_date) != announced:
        return f"its tombstone says that it is deprecated since {stone.since}, not since {since}"
    return ""


def _promise(manifest: Manifest, before: Released, today: date) -> list[str]:
    """What a deprecation may not say."""
    block = manifest.deprecation
    assert block is not None
    wrong = []
    if minors(block.since, block.remove_in) < MINORS_MIN:
        wrong.append(
            f"remove_in {block.remove_in} is less than {MINORS_MIN} minor releases after "
            f"{block.since}"
        )
    if block.since_date > today:
        wrong.append(f"since_date {block.since_date} is yet to come")
    for scheme in manifest.schemes:
        announced = before.deprecations.get(scheme)
        if announced is None:
            if minors(before.version, block.since) <= 0 and release(before.version):
                wrong.append(
                    f"since {block.since} is not after {before.version}, which was released and "
                    "did not call it deprecated"
                )
                break
        elif (block.since, block.since_date) != announced:
            wrong.append(f"it has been deprecated since {announced[0]}, {announced[1]}")
            break
    return wrong
