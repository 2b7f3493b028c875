"""From a roll to who holds what: pure functions, shared by every recipe.

A roster is one ordered list of claims. A mutex is held by the first; a claim that
does not hold watches only the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from ._model import Claim, Roll


def granted(roll: Roll, width: int) -> Claim | None:
    """The claim that the roll was read for, if it is among the first `width`."""
    return roll.mine if roll.mine is not None and roll.rank < width else None


def holding(claims: Sequence[Claim], width: int) -> Sequence[Claim]:
    """Those of all the claims of a roster that hold, if so many may."""
    if claims and claims[0].shared:
        return list(takewhile(lambda claim: claim.shared, claims))
    return claims[:width]


def patience(rank: int, poll: float, ttl: float) -> float:
    """How long a waiter of this rank may sleep before it looks for itself, in seconds.

    The first in line looks often, since it must find a dead holder; those behind it
    look the more rarely the farther back they stand, so that n waiters cost the
    backend no more than about log n looks per poll.
    """
    return min(poll * max(1, rank), max(poll, ttl))
