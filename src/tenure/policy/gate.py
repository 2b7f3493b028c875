"""What `connect` demands of a driver, before it is opened and after.

Before: the level and the characteristics that the index of the evidence has for it. After, where
something depends on it: whether the evidence is about the version of the backend that has
answered. Only what a program, or TENURE_MIN_LEVEL, asks for by itself is always enforced. What is
demanded without being asked for (a warning below stable, a refusal of what is unverified) is left
out for a driver that is allowed by name, and while the gate is lifted, for the tests and tools
that judge drivers: `lift` says so to this process and to all that it starts.

Nothing here takes evidence apart: a connect costs microseconds, and the first one the reading of
one file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from .._caller import Caller
from .._ungated import UNGATED, ungated
from .._url import Url
from ..drivers import registry
from ..drivers.base import Driver, Server
from ..errors import (
    BackendError,
    CharacteristicUnmet,
    DriverDeprecated,
    InvalidArgument,
    LevelTooLow,
    Unavailable,
    Unsupported,
)
from . import standing
from .characteristics import Characteristic
from .level import Level
from .notices import (
    BackendVersionWarning,
    DeprecatedDriverWarning,
    DriverLevelWarning,
    PolicyWarning,
)
from .standing import Standing
from .versions import release

MIN_LEVEL = "TENURE_MIN_LEVEL"
ALLOW = "TENURE_ALLOW"
REFUSES_UNVERIFIED = True
"""Whether a driver about which nothing is known is refused, and not only warned of."""
REASONS_MAX = 6
URLS_MAX = 1000

logger = logging.getLogger("tenure")

_told: dict[tuple[str, str], object] = {}
"""What has been warned of in this process: the kind of the warning, and the driver or backend."""
_asked: set[str] = set()
"""The URLs of which it is known what answers there."""


def lift() -> None:
    """Lift the gate, in this process and in those that it starts from now on.

    No level is demanded either: this is for what earns a level.
    """
    os.environ[UNGATED] = "1"
    os.environ.pop(MIN_LEVEL, None)


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """A block in which the gate is lifted, as it is for every case of the kit."""
    before = {name: os.environ.get(name) for name in (UNGATED, MIN_LEVEL)}
    lift()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def forget() -> None:
    """Forget what was read and what was told, as if the process had just begun."""
    _told.clear()
    _asked.clear()
    standing.forget()


# -- what is demanded --------------------------------------------------------------------------


class Demands(NamedTuple):
    """What a driver must have earned. `floor` is None if nobody has set one."""

    require: frozenset[Characteristic]
    floor: Level | None
    allow: frozenset[str]

    @property
    def depend_on_version(self) -> bool:
        """Whether another version of the backend than the evidence's would not do."""
        return bool(self.require) or (self.floor or Level.UNVERIFIED) > Level.EXPERIMENTAL


def demands(
    require: Iterable[Characteristic | str], min_level: Level | str | None, allow: Iterable[str]
) -> Demands:
    """What the arguments of `connect` and the environment demand; `InvalidArgument`."""
    names = set(_names(require, "require"))
    for name in sorted(names):
        if name not in Characteristic.__members__:
            known = ", ".join(Characteristic)
            raise InvalidArgument(f"require: {name!r} is no characteristic; there are {known}")
    floors = [Level.parse(text, MIN_LEVEL) for text in [os.environ.get(MIN_LEVEL)] if text]
    if isinstance(min_level, Level):
        floors.append(min_level)
    elif min_level is not None:
        floors.append(Level.parse(min_level, "min_level"))
    allowed = {*_names(allow, "allow"), *os.environ.get(ALLOW, "").replace(",", " ").split()}
    return Demands(
        frozenset(map(Characteristic, names)), max(floors, default=None), frozenset(allowed)
    )


def _names(given: Iterable[str], what: str) -> list[str]:
    if isinstance(given, str):
        return [str(given)]
    try:
        names = list(given)
    except TypeError:
        raise InvalidArgument(f"{what} is a name or several, not {given!r}") from None
    for name in names:
        if not isinstance(name, str):
            raise InvalidArgument(f"{what} has names, not {name!r}")
    return [str(name) for name in names]


# -- before the driver is opened -----------------------------------------------------------------


def admit(entry: registry.Entry, url: Url, wanted: Demands, caller: Caller) -> Gate | None:
    """Let a driver pass, or raise `PolicyError`; the gate has more to ask once it is open."""
    lifted = ungated()
    found = standing.of(entry, url.options)
    allowed = not wanted.allow.isdisjoint({found.driver, entry.scheme, url.scheme})
    if found.deprecation is not None and not lifted:
        _deprecated(entry, found, allowed, caller)
    if wanted.floor is not None and found.level < wanted.floor:
        raise _too_low(found, wanted.floor, found.level)
    if wanted.require:
        _check_characteristics(found, wanted.require)
    quiet = lifted or allowed
    if not quiet and found.level is Level.UNVERIFIED and REFUSES_UNVERIFIED:
        raise _unverified(found)
    if not quiet and wanted.floor is None and found.level < Level.STABLE:
        _warn(DriverLevelWarning, found.driver, _below_stable(found), caller)
    if wanted.depend_on_version or not quiet:
        return Gate(found, wanted, caller)
    return None


def _too_low(found: Standing, floor: Level, level: Level, why: str = "") -> LevelTooLow:
    unmet = (why,) if why else found.missing(floor)
    return LevelTooLow(
        f"{found.title}: its level is {level}, and {floor} is demanded; {_listed(unmet)}",
        driver=found.driver,
        unmet=unmet,
    )


def _unverified(found: Standing) -> LevelTooLow:
    unmet, name = found.missing(Level.EXPERIMENTAL), found.driver
    return LevelTooLow(
        f"{found.title}: this driver is unverified, and so it is refused; {_listed(unmet)}; "
        f"allow={name!r} or {ALLOW}={name} connects to it all the same",
        driver=name,
        unmet=unmet,
    )


def _below_stable(found: Standing) -> str:
    missing = found.missing(Level(min(found.level + 1, Level.STABLE)))
    more = " and unmaintained" if found.unmaintained else ""
    return (
        f"{found.title}: this driver is {_article(found.level)}{more}; {_listed(missing)}; "
        f"allow={found.driver!r}, or a min_level that is enough for you, ends this warning"
    )


def _article(level: Level) -> str:
    return "a preview, not stable" if level is Level.PREVIEW else f"{level}, not stable"


def _listed(unmet: tuple[str, ...]) -> str:
    shown = "; ".join(unmet[:REASONS_MAX])
    more = f"; and {len(unmet) - REASONS_MAX} more" if len(unmet) > REASONS_MAX else ""
    return f"{shown}{more}" if unmet else "all that it lacks is waived, or for a witness to see"


def _check_characteristics(found: Standing, wanted: frozenset[Characteristic]) -> None:
    """`CharacteristicUnmet` lists what is required and not corroborated, with the reasons."""
    unmet = []
    for name in sorted(wanted):
        line = found.characteristics.get(name, {})
        verdict, reason = line.get("verdict"), line.get("reason", "")
        if not line.get("claimed"):
            unmet.append(f"{name}: it does not claim that")
        elif verdict != "corroborated":
            told = f"{verdict}: {reason}" if reason else verdict or "not tried yet"
            unmet.append(f"{name}: claimed, and {told}")
    if unmet:
        raise _lacking(found, tuple(unmet))


def _lacking(found: Standing, unmet: tuple[str, ...]) -> CharacteristicUnmet:
    return CharacteristicUnmet(
        f"{found.title}: not all that is required is corroborated; {_listed(unmet)}",
        driver=found.driver,
        unmet=unmet,
    )


def _deprecated(entry: registry.Entry, found: Standing, allowed: bool, caller: Caller) -> None:
    """Warn of a driver that is going away, louder with each release, and refuse it in the end."""
    from . import deprecation
    from .deprecation import Phase

    assert found.deprecation is not None
    block = deprecation.of(found.deprecation)
    version = deprecation.version_of(entry.scheme, standing.outside(entry))
    phase = deprecation.phase(block, version, standing.today())
    if phase is Phase.NONE:
        return
    text = deprecation.told(found.driver, block)
    if phase >= Phase.REFUSED and not allowed:
        raise DriverDeprecated(
            f"{text}; until then allow={found.driver!r} or {ALLOW}={found.driver} connects to it",
            driver=found.driver,
            unmet=(block.reason,),
        )
    if phase is Phase.ANNOUNCED:
        _warn(DeprecatedDriverWarning, found.driver, text, caller)
    else:  # at every connect, and even from the command line
        _warn(DeprecatedDriverWarning, None, text, caller, logging.WARNING)


def _warn(
    kind: type[PolicyWarning],
    about: str | None,
    text: str,
    caller: Caller,
    level: int = logging.INFO,
) -> None:
    """Warn once of the same thing, or each time if it is about None.

    It is attributed to the line that has connected. Nobody reads the warnings of the command
    line, which cron would mail every night: there it is in the log alone, unless it is grave.
    """
    key, mine = (kind.__name__, about or ""), object()
    if about is not None and _told.setdefault(key, mine) is not mine:
        return
    logger.log(level, "%s", text)
    if caller.command:
        if level > logging.INFO:
            sys.stderr.write(f"tenure: {text}\n")
        return
    try:
        warnings.warn_explicit(
            kind(text), None, caller.file, caller.line, caller.module, caller.registry
        )
    except PolicyWarning:
        _told.pop(key, None)  # an error for who wants it so, and not only the first time
        raise


# -- after it was opened --------------------------------------------------------------------------


class Gate(NamedTuple):
    """What is asked of a driver once it is open: whether the evidence is about this backend."""

    found: Standing
    wanted: Demands
    caller: Caller

    async def check(self, driver: Driver) -> None:
        """Ask what it is connected to, and raise `PolicyError` or warn if that is not known.

        Who only would be warned is asked once per process and URL.
        """
        where, binding = str(driver.url), self.wanted.depend_on_version
        if not binding and where in _asked:
            return
        try:
            server = await driver.server()
        except Unsupported as error:
            self._untold(str(error), binding)
        except Unavailable:
            if binding:
                raise
            return  # it may answer the next time
        except BackendError as error:
            self._untold(str(error), binding)
        else:
            if not release(server.version):
                self._untold(f"it calls itself {server.product} {server.version!r}", binding)
            elif not self.found.covers(server):
                self._other_version(server, binding)
            else:
                self._check_corroborated(server)
        if len(_asked) >= URLS_MAX:
            _asked.clear()
        _asked.add(where)

    def _untold(self, reason: str, binding: bool) -> None:
        """The backend does not tell its version: no demand can be met, and nobody is warned."""
        if binding:
            self._refuse(f"the version of the backend cannot be told: {reason}")
        logger.info("%s: the version of the backend cannot be told: %s", self.found.title, reason)

    def _check_corroborated(self, server: Server) -> None:
        """What is required must have been corroborated on this version, and not on another."""
        unmet = tuple(
            f"{name}: this is {server.product} {server.version}, and it was corroborated on "
            f"{_versions(self.found.characteristics[name]['backends'])}"
            for name in sorted(self.wanted.require)
            if not self.found.corroborated(name, server)
        )
        if unmet:
            raise _lacking(self.found, unmet)

    def _other_version(self, server: Server, binding: bool) -> None:
        reason = (
            f"this is {server.product} {server.version}, and the evidence is about "
            f"{_versions(self.found.backends)}"
        )
        if binding:
            self._refuse(reason)
        text = f"{self.found.title}: {reason}; so this driver is experimental at most here"
        about = f"{self.found.title} {server.product} {server.version}"
        _warn(BackendVersionWarning, about, text, self.caller)

    def _refuse(self, reason: str) -> None:
        floor, require = self.wanted.floor, self.wanted.require
        if floor is not None and floor > Level.EXPERIMENTAL:
            raise _too_low(self.found, floor, min(self.found.level, Level.EXPERIMENTAL), reason)
        raise _lacking(self.found, tuple(f"{name}: {reason}" for name in sorted(require)))


def _versions(backends: Mapping[str, list[str]]) -> str:
    return (
        ", ".join(f"{product} {each}" for product, known in backends.items() for each in known)
        or "no version at all"
    )
