"""Manifests: what a driver says of itself, in TOML beside its module.

The manifest of `tenure.drivers.redis` is `redis.toml` in the same folder; its evidence lies in
the folder `evidence` there. A driver of another distribution has both in its own package. What
a manifest may say is listed here and nowhere else; `InvalidManifest` names file and line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from ._tables import InvalidManifest as InvalidManifest
from ._tables import Source, Table
from .characteristics import Characteristic
from .profiles import PROFILES
from .versions import SERIES_MAX, Support, support

DEFAULT = "default"
PREVIEW = "preview"
"""What a waiver names that lets a strategy beside the default be a preview."""
NEVER_WAIVED = frozenset(("E1", "E2", "P4"))
"""What is the evidence itself: that it works, on a backend that came up, as it claims."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)


class Supports(NamedTuple):
    """One line of `supports`: what the driver is meant to run on, each as `name specifier`.

    series: how many numbers of the backend's version make a series, within which evidence about
        one version holds for all; None for two, as in 7.2.
    """

    os: Support
    python: Support
    backend: Support
    client: Support | None
    series: int | None = None


class Withdrawn(NamedTuple):
    """A claim that was made, and that an experiment has refuted."""

    characteristic: Characteristic
    on: date
    reason: str


class Strategy(NamedTuple):
    """One way to do things on the backend; `default` is what a URL without options gets.

    when: the options of a URL that choose it; `*` stands for any value.
    provision: the recipes that bring up a backend, `module:Class` of a `Backend`.
    claims: the characteristics that it claims.
    withdrawn: those that it has claimed once.
    unsupported: the profiles that it lacks, and why.
    recovery_seconds: how long after a fault it may take to work again.
    """

    name: str
    summary: str
    when: Mapping[str, str]
    provision: tuple[str, ...]
    profiles: tuple[str, ...]
    claims: frozenset[Characteristic]
    withdrawn: tuple[Withdrawn, ...]
    unsupported: Mapping[str, str]
    supports: tuple[Supports, ...]
    recovery_seconds: float

    @property
    def is_default(self) -> bool:
        """Whether it is the one that a plain URL gets."""
        return self.name == DEFAULT


class Ci(NamedTuple):
    """The job that runs the driver's suite. If it votes, nothing is merged while it fails."""

    job: str
    votes: bool


class Waiver(NamedTuple):
    """A requirement that is let go for a while. `until` is the last day.

    That of PREVIEW lets a strategy beside the default be a preview.
    """

    requirement: str
    strategy: str
    reason: str
    until: date
    spec: str


class Deprecation(NamedTuple):
    """That the driver is going to be removed: from which version on, and what to use instead."""

    since: str
    since_date: date
    remove_in: str
    reason: str
    replacement: str
    migration: str


class Manifest(NamedTuple):
    """What a driver says of itself. None of it is a level."""

    driver: str
    summary: str
    schemes: tuple[str, ...]
    owners: tuple[str, ...]
    page: str
    unit_tests: tuple[str, ...]
    sources: tuple[str, ...]
    client: str
    ci: Ci
    strategies: tuple[Strategy, ...]
    waivers: tuple[Waiver, ...]
    deprecation: Deprecation | None
    unmaintained: bool

    @property
    def default(self) -> Strategy:
        """The strategy that a plain URL gets."""
        return next(each for each in self.strategies if each.is_default)

    def strategy(self, options: Mapping[str, str]) -> Strategy:
        """The strategy that a URL with these options chooses."""
        for each in self.strategies:
            if each.when and all(
                key in options and value in ("*", options[key]) for key, value in each.when.items()
            ):
                return each
        return self.default

    def waived(self, strategy: str, today: date) -> list[Waiver]:
        """The waivers of a strategy that are in force on that day."""
        return [each for each in self.waivers if each.strategy == strategy and today <= each.until]

    def waiver(self, requirement: str, strategy: str, today: date) -> str:
        """The reason for which a requirement is let go on that day; empty if it is not."""
        for each in self.waived(strategy, today):
            if each.requirement == requirement:
                return each.reason
        return ""


def load(path: Path) -> Manifest:
    """Read a manifest; `InvalidManifest` says what in which line is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidManifest(f"{path}: not UTF-8, at byte {error.start}") from None
    return parse(text, str(path))


def parse(text: str, where: str) -> Manifest:
    """Take a manifest apart; `where` is what an error calls it."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidManifest(f"{where}: {error}") from None
    return _manifest(Table(found, (), Source(text, where)))


def _manifest(table: Table) -> Manifest:
    names = table.take("strategies", dict)
    for name in names:
        if not _NAME.fullmatch(name):
            raise table.source.error(("strategies", name), f"{name!r} is no name: it is a folder's")
    if DEFAULT not in names:
        raise table.source.error(("strategies",), f"there is no {DEFAULT!r} among them")
    strategies = tuple(
        _strategy(name, Table(each, ("strategies", name), table.source))
        for name, each in names.items()
    )
    made = Manifest(
        driver=table.take("driver", str),  # the name of its module; see `Home.load`
        summary=table.take("summary", str),
        schemes=table.texts("schemes"),
        owners=table.texts("owners", []),
        page=table.take("page", str),
        unit_tests=table.texts("unit_tests", []),
        sources=table.texts("sources"),
        client=table.take("client", str, ""),
        ci=_ci(table.table("ci")),
        strategies=strategies,
        waivers=tuple(_waiver(each, names) for each in table.tables("waivers")),
        deprecation=_deprecation(table.table("deprecation"))
        if "deprecation" in table.found
        else None,
        unmaintained=table.take("unmaintained", bool, False),
    )
    table.done()
    return made


def _ci(table: Table) -> Ci:
    made = Ci(table.take("job", str), table.take("votes", bool))
    table.done()
    return made


def _strategy(name: str, table: Table) -> Strategy:
    profiles = table.texts("profiles")
    unsupported = table.mapping("unsupported")
    for each in (*profiles, *unsupported):
        if each not in PROFILES:
            key = "profiles" if each in profiles else "unsupported"
            raise table.error(key, f"{each!r} is none of {', '.join(PROFILES)}")
    for each in PROFILES:
        if (each in profiles) is (each in unsupported):
            both = "both claimed and unsupported" if each in profiles else "neither claimed nor so"
            raise table.error("unsupported", f"the profile {each!r} is {both}")
    when = table.mapping("when")
    if bool(when) is (name == DEFAULT):
        raise table.error("when", f"every strategy but {DEFAULT!r} says which options choose it")
    claims = table.texts("claims")
    for each in claims:
        if each not in Characteristic.__members__:
            raise table.error("claims", f"{each!r} is none of {', '.join(Characteristic)}")
    made = Strategy(
        name=name,
        summary=table.take("summary", str),
        when=when,
        provision=table.texts("provision"),
        profiles=profiles,
        claims=frozenset(map(Characteristic, claims)),
        withdrawn=tuple(_withdrawn(each, claims) for each in table.tables("withdrawn")),
        unsupported=unsupported,
        supports=tuple(_supports(each) for each in table.tables("supports")),
        recovery_seconds=table.take("recovery_seconds", float, 30.0),
    )
    table.done()
    return made


def _withdrawn(table: Table, claims: tuple[str, ...]) -> Withdrawn:
    name = table.take("characteristic", str)
    if name not in Characteristic.__members__:
        raise table.error("characteristic", f"{name!r} is none of {', '.join(Characteristic)}")
    if name in claims:
        raise table.error("characteristic", f"{name} is claimed, and so it is not withdrawn")
    made = Withdrawn(Characteristic(name), table.take("on", date), table.take("reason", str))
    table.done()
    return made


def _supports(table: Table) -> Supports:
    client = table.converted("client", support) if "client" in table.found else None
    made = Supports(
        os=table.converted("os", support),
        python=table.converted("python", lambda text: support(f"python {text}")),
        backend=table.converted("backend", support),
        client=client,
        series=table.take("series", int, None),
    )
    if made.series is not None and not 1 <= made.series <= SERIES_MAX:
        raise table.error("series", f"a number from 1 to {SERIES_MAX} was expected")
    table.done()
    return made


def _waiver(table: Table, strategies: Mapping[str, Any]) -> Waiver:
    made = Waiver(
        requirement=table.take("requirement", str),
        strategy=table.take("strategy", str, DEFAULT),
        reason=table.take("reason", str),
        until=table.take("until", date),
        spec=table.take("spec", str),
    )
    from .requirements import REQUIREMENTS  # they are written in terms of what stands here

    if made.requirement not in (*REQUIREMENTS, PREVIEW):
        raise table.error("requirement", f"{made.requirement!r} is no requirement, such as P6")
    if made.requirement in NEVER_WAIVED:
        raise table.error("requirement", f"{made.requirement} is the evidence, and never waived")
    if made.strategy not in strategies:
        raise table.error("strategy", f"there is no strategy {made.strategy!r}")
    if made.requirement == PREVIEW and made.strategy == DEFAULT:
        raise table.error("strategy", f"{DEFAULT!r} needs no waiver to be a preview")
    table.done()
    return made


def _deprecation(table: Table) -> Deprecation:
    made = Deprecation(
        since=table.version("since"),
        since_date=table.take("since_date", date),
        remove_in=table.version("remove_in"),
        reason=table.take("reason", str),
        replacement=table.take("replacement", str),
        migration=table.take("migration", str),
    )
    table.done()
    return made
