"""Looks at rosters that are not carried out twice while nothing has changed.

Where nothing is pushed, waiters and watchers look all the time. A look that was made before
first asks for the roster's version alone, which is cheap at any size; and it is told again what
it found, for a while, if that is still the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._runtime.base import Runtime
from ..wires.memcached import Wire
from ._memcached_items import Keys, Version, fetched
from .document import KNOWN_MAX


class Look(NamedTuple):
    """A look that has begun, at some version of the roster or after it."""

    key: tuple[str, object]
    began: float
    version: Version | None
    """None if this look was never made before, or the roster is not there."""
    found: Any
    """What was found before, if it may be told again; else None."""


class _Known(NamedTuple):
    version: Version | None
    until: float
    found: Any


class Looks:
    """What the looks of one client have found."""

    def __init__(self, wire: Wire[Any], keys: Keys, runtime: Runtime) -> None:
        self._wire = wire
        self._keys = keys
        self._runtime = runtime
        self._known: dict[tuple[str, object], _Known] = {}

    async def begin(self, roster: str, who: object) -> Look:
        """Begin a look of somebody's at a roster; if it is repeated, with its version."""
        key, now = (roster, who), self._runtime.now()
        known = self._known.get(key)
        if known is None:
            return Look(key, now, None, None)
        version = await self._probe(roster)
        same = version == known.version and now < known.until
        return Look(key, now, version, known.found if same else None)

    def end(self, look: Look, found: Any, seconds: float) -> None:
        """Keep what was found, to be told again for so long since the look began.

        The version is from before, so what was found is never older than that. Without one,
        only that somebody looked is kept: the next look asks for the version first.
        """
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        until = 0.0 if look.version is None else look.began + seconds
        self._known[look.key] = _Known(look.version, until, found)

    async def _probe(self, roster: str) -> Version | None:
        request = b"mg %b c f\r\n" % self._keys.of("r", roster).key
        instance, replies = await self._wire.ask(request)
        return fetched(instance, replies[0]) if replies[0].code == b"HD" else None
