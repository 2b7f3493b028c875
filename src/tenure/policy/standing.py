"""How the driver that a URL names stands today, out of the index beside its module."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from ..drivers import registry
from ..drivers.base import Server
from ..errors import InvalidArgument
from . import index
from .level import Level
from .versions import SERIES, SERIES_MAX, release

VERDICTS = (None, "corroborated", "refuted", "untestable")

_indexes: dict[str, dict[str, Any] | str] = {}
"""What the index says in a folder of drivers, or why it says nothing."""


class Standing(NamedTuple):
    """What the index says today of the strategy that a URL chooses."""

    driver: str
    strategy: str
    level: Level
    unmet: tuple[Mapping[str, Any], ...]
    characteristics: Mapping[str, Mapping[str, Any]]
    backends: Mapping[str, list[str]]
    series: Mapping[str, int]
    deprecation: Mapping[str, str] | None
    unmaintained: bool

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.driver if self.strategy == "default" else f"{self.driver} ({self.strategy})"

    def missing(self, level: Level) -> tuple[str, ...]:
        """What keeps it below a level, each with its reason.

        Beside the default no strategy is a preview, and what is open may be above that level.
        """
        open_ = [
            (Level.parse(each["level"]), f"{each['requirement']}: {each['reason']}")
            for each in self.unmet
            if not each.get("waived")
        ]
        level = max(level, min((of for of, _ in open_), default=level))
        return tuple(text for of, text in open_ if of <= level)

    def covers(self, server: Server) -> bool:
        """Whether the evidence is about that version: of its series, or between two that were."""
        return self._tried(server, self.backends) or _between(server, self.backends)

    def corroborated(self, characteristic: str, server: Server) -> bool:
        """Whether a characteristic was corroborated on that version, or on both sides of it.

        The latter does not count where its series was tried, and nothing was corroborated.
        """
        known = self.characteristics[characteristic]["backends"]
        return self._tried(server, known) or (
            not self._tried(server, self.backends) and _between(server, known)
        )

    def _tried(self, server: Server, known: Mapping[str, list[str]]) -> bool:
        """Whether a version of its series is known."""
        series = self.series.get(server.product, SERIES)
        found = release(server.version)[:series]
        versions = known.get(server.product, ())
        return bool(found) and any(release(each)[:series] == found for each in versions)


def _between(server: Server, known: Mapping[str, list[str]]) -> bool:
    """Whether a version is between two that are known."""
    versions = [release(version) for version in known.get(server.product, ())]
    found = release(server.version)
    return bool(found and versions) and min(versions) <= found <= max(versions)


def of(entry: registry.Entry, options: Mapping[str, str]) -> Standing:
    """How the driver that an entry names stands today; unverified if nothing is known."""
    name = entry.module.rpartition(".")[2]
    found = _index(entry.module)
    driver = found if isinstance(found, str) else found.get(name, "its index does not list it")
    if isinstance(driver, str):
        return _unknown(name, driver)
    try:
        return _told(entry, name, driver, options)
    except (LookupError, TypeError, ValueError, AttributeError, InvalidArgument) as error:
        return _unknown(name, f"its index is not as Tenure writes it: {error!r}")


def _unknown(name: str, reason: str) -> Standing:
    unmet = {"requirement": "E1", "level": "experimental", "reason": reason}
    return Standing(name, "default", Level.UNVERIFIED, (unmet,), {}, {}, {}, None, False)


def _told(
    entry: registry.Entry, name: str, driver: Mapping[str, Any], options: Mapping[str, str]
) -> Standing:
    strategy = index.strategy(driver, options)
    step = index.step(strategy, today().isoformat())
    level = Level.parse(step["level"])
    if outside(entry):  # whatever its author has written
        level = min(level, Level.PREVIEW)
    found = Standing(
        name,
        strategy["name"],
        level,
        _lacks(step, strategy, driver),
        strategy["characteristics"],
        strategy["backends"],
        strategy["series"],
        driver["deprecation"],
        driver["unmaintained"],
    )
    _check(found)
    return found


def _check(found: Standing) -> None:
    """Look at all that is used later, when what is broken could not be told from what is unmet.

    Raises what an operation raises that is given something else than it is for.
    """
    found.missing(Level.STABLE)
    lines = found.characteristics.values()
    for known in (found.backends, *(line["backends"] for line in lines)):
        for versions in known.values():
            for version in versions:
                release(version)
    for line in lines:
        if not isinstance(line["claimed"], bool) or line["verdict"] not in VERDICTS:
            raise TypeError(f"this says nothing of a characteristic: {line!r:.60}")
    if not all(1 <= each <= SERIES_MAX for each in found.series.values()):
        raise ValueError("a series of versions has not so many numbers")
    if found.deprecation is not None:
        from . import deprecation

        block = deprecation.of(found.deprecation)
        deprecation.minors(block.since, block.remove_in)


def _lacks(
    step: Mapping[str, Any], strategy: Mapping[str, Any], driver: Mapping[str, Any]
) -> tuple[Mapping[str, Any], ...]:
    """What a strategy lacks, and what keeps the default down, below which it stays."""
    unmet = tuple(step["unmet"])
    default = index.strategy(driver, {})
    if strategy["name"] == default["name"]:
        return unmet
    own = {(each["requirement"], each["reason"]) for each in unmet}
    return unmet + tuple(
        {**each, "reason": f"the default strategy: {each['reason']}"}
        for each in index.step(default, today().isoformat())["unmet"]
        if (each["requirement"], each["reason"]) not in own
    )


def today() -> date:
    """The day by which levels and deprecations go: that of UTC."""
    return datetime.now(UTC).date()


def outside(entry: registry.Entry) -> bool:
    """Whether a driver is of another distribution than Tenure."""
    return all(each.module != entry.module for each in registry.BUILT_IN.values())


def _index(module: str) -> dict[str, Any] | str:
    """The index beside a module that is imported; also in an archive."""
    spec = sys.modules[module].__spec__
    origin = getattr(spec, "origin", None) or ""
    path = os.path.join(os.path.dirname(origin), "evidence", "index.json")
    found = _indexes.get(path)
    if found is None:
        loader = getattr(spec, "loader", None)
        try:
            found = index.parse(loader.get_data(path), path)  # type: ignore[union-attr]
        except (OSError, AttributeError):
            found = "there is no evidence beside its module"
        except index.InvalidIndex as error:
            found = str(error)
        _indexes[path] = found
    return found


def forget() -> None:
    """Forget what was read."""
    _indexes.clear()
