"""Barriers and latches: waiting for others to come, or for work to be done."""

# Made by scripts/twins from aio/_barrier.py: change it there.

from __future__ import annotations

from .._coordinator import checked_name, checked_number, checked_timeout
from .._recipes.barrier import PARTIES_MAX, BarrierRecipe
from .._recipes.latch import COUNT_MAX, LatchRecipe
from .._session import Session
from ..errors import WaitTimeout
from ._run import run


class Barrier:
    """A place where so many parties wait for each other, and then all go on.

    It can be used again and again: the next to come wait for as many others. One barrier may
    be used by many threads at a time; each that waits is a party.
    """

    __slots__ = ("_recipe", "_session", "timeout")

    def __init__(self, session: Session, name: str, parties: int, timeout: float | None) -> None:
        parties = checked_number(parties, "number of parties", PARTIES_MAX)
        self._session = session
        self._recipe = BarrierRecipe(session, checked_name(name), parties)
        self.timeout = checked_timeout(timeout)

    @property
    def name(self) -> str:
        """The barrier's name, as it was asked for."""
        return self._recipe.name

    @property
    def parties(self) -> int:
        """How many must come."""
        return self._recipe.parties

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all have come; return the place among them, from 0, by who came first.

        `timeout` is in seconds; None means the barrier's own timeout, and without one to
        wait for ever. Raises `WaitTimeout` if the others have not come by then,
        `LimitMismatch` if it is in use with another number of parties, `OutcomeUnknown` if
        the backend cannot be reached, and whether the others went on cannot be told. A party
        that gives up, or whose session ends while it waits, does not count.
        """
        seconds = self.timeout if timeout is None else checked_timeout(timeout)
        until = None if seconds is None else self._session.now() + seconds
        place = run(self._recipe.wait(until))
        if place is None:
            raise WaitTimeout(
                f"fewer than {self.parties} had come to {self.name!r} after {seconds:g} s"
            )
        return place

    def waiting(self) -> int:
        """How many wait at this moment."""
        return run(self._recipe.waiting())

    def __repr__(self) -> str:
        return f"<barrier {self.name!r} parties={self.parties}>"


class Latch:
    """A number that is counted down to zero, and who waits for that.

    It is kept by the backend until it is deleted, and outlives every client. Once it has come
    to zero it stays open: every wait returns at once, until it is reset.
    """

    __slots__ = ("_recipe", "_session", "timeout")

    def __init__(
        self, session: Session, name: str, count: int | None, timeout: float | None
    ) -> None:
        if count is not None:
            count = checked_number(count, "count", COUNT_MAX)
        self._session = session
        self._recipe = LatchRecipe(session, checked_name(name), count)
        self.timeout = checked_timeout(timeout)

    @property
    def name(self) -> str:
        """The latch's name, as it was asked for."""
        return self._recipe.name

    def count(self) -> int | None:
        """What is left to count down; None if nobody has said where it begins."""
        return run(self._recipe.count())

    def count_down(self, n: int = 1) -> int:
        """Take `n` off, and return what is left. At zero it does nothing.

        It counts once, even if the backend's replies are lost; `OutcomeUnknown` if the
        backend then cannot be reached for a whole TTL. Raises `LimitMismatch` if the latch
        began with another count.
        """
        return run(self._recipe.count_down(checked_number(n, "number", COUNT_MAX)))

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is open.

        `timeout` is in seconds; None means the latch's own timeout, and without one to
        wait for ever. Raises `WaitTimeout` if it is not open by then.
        """
        seconds = self.timeout if timeout is None else checked_timeout(timeout)
        until = None if seconds is None else self._session.now() + seconds
        if not run(self._recipe.wait(until)):
            raise WaitTimeout(f"the latch {self.name!r} was not open after {seconds:g} s")

    def reset(self, count: int | None = None) -> None:
        """Close it: count from `count` again, or from where it began.

        With another count than before, those who use the latch must give that one, or None.
        """
        checked = None if count is None else checked_number(count, "count", COUNT_MAX)
        run(self._recipe.reset(checked))

    def delete(self) -> None:
        """Have the backend forget it. Who waits goes on waiting. Does nothing a second time."""
        run(self._recipe.delete())

    def __repr__(self) -> str:
        first = "" if self._recipe.first is None else f" count={self._recipe.first}"
        return f"<latch {self.name!r}{first}>"
