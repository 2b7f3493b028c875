"""`?wait_replicas=N`: nothing is told before so many replicas have it.

Behind what is asked goes a WAIT, in the same exchange. WAIT looks at what was written over
its own connection, and a claim that is found standing may have been written over another: so
something is written in between, which changes nothing, and reaches the replicas after all that
the master has written before.

It is no consensus. That a replica has a write does not mean that this replica, and no
other, will take the master's place.
"""

from __future__ import annotations

from typing import Any

from .._url import Url
from ..errors import InvalidURL, OutcomeUnknown
from ..wires.redis import Reply, Wire, packed_command

_WANTED_MAX = 100


class TooFewReplicas(OutcomeUnknown):
    """The master has it, and too few replicas have said so in time."""


def wanted(url: Url) -> int:
    """How many replicas to wait for: the option's value, or 0."""
    text = url.options.get("wait_replicas", "0")
    if not (text.isascii() and text.isdigit() and int(text) <= _WANTED_MAX):
        raise InvalidURL(
            f"{url.scheme}: option 'wait_replicas' is a number from 0 to {_WANTED_MAX}"
        )
    return int(text)


class Replicas:
    """Asks the master, and waits for its replicas."""

    def __init__(self, wire: Wire[Any], counter: bytes, count: int, patience: float) -> None:
        self._wire = wire
        self._count = count
        # What is left of the patience is for the answer to come.
        self._wait = packed_command(b"WAIT", count, int(patience * 500))
        self._touch = packed_command(b"INCRBY", counter, 0)

    async def entered(self, packed: bytes) -> Reply:
        """The reply to a script, when the replicas have all that it found or wrote."""
        reply, _, had = await self._wire.series(packed + self._touch + self._wait, 3)
        self._check(had)
        return reply

    async def renewed(self, packed: bytes) -> Reply:
        """The reply to a command that has written something."""
        reply, had = await self._wire.series(packed + self._wait, 2)
        self._check(had)
        return reply

    def _check(self, had: Reply) -> None:
        if not isinstance(had, int) or had < self._count:
            raise TooFewReplicas(
                f"{self._wire.settings.label}: {had!r} of {self._count} replicas had it in time"
            )
