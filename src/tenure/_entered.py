"""Who is inside of the `with` blocks of one lock, and with what."""

from __future__ import annotations

from typing import TypeVar

from .errors import NotHeld

H = TypeVar("H")


def inside(entered: dict[object, list[H]], caller: object) -> tuple[object, H]:
    """What the caller has entered with last, and who counts as having entered with it.

    Whoever has not entered leaves for who has, if that is one alone: a generator may be finished
    by another thread or task than began it. `NotHeld` if there is nobody, or if there are
    several, since nobody can say which of them is meant.
    """
    leases = entered.get(caller)
    if leases is None:
        others = list(entered)
        if len(others) != 1 or len(entered[others[0]]) != 1:
            raise NotHeld(
                f"a `with` block is left by {caller!r}, which has not entered it; {len(others)} "
                "others have. Leave it where it was entered, or use the lease: "
                "`with lock.acquire() as lease:`"
            )
        caller = others[0]
        leases = entered[caller]
    return caller, leases[-1]


def left(entered: dict[object, list[H]], caller: object, lease: H) -> None:
    """The block was left. Does nothing the second time."""
    leases = entered.get(caller, [])
    if lease in leases:
        leases.remove(lease)
    if not leases:
        entered.pop(caller, None)
