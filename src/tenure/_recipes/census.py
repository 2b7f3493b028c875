"""Reading a roster once for all who ask at the same time: a hundred watchers cost one reading.

Whoever asks gets a reading that began after it asked, or after it was woken, so that it
sees all that it was woken for. While one is under way those who come wait for it, and then
share the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from .._model import Claim
from .._session import Session
from ..errors import BackendError
from .records import insist

T = TypeVar("T")


class Reading:
    """The readings of one roster, one after the other, while somebody wants one."""

    __slots__ = ("begun", "done", "error", "turn", "users", "value")

    def __init__(self, session: Session) -> None:
        self.turn = session.runtime.mutex()
        self.users = 0
        self.begun = 0
        self.done = 0
        """The number of the last reading that came to an end."""
        self.value: Any = None
        self.error: BackendError | None = None

    def result(self) -> Any:
        """What the last one found, or how it failed."""
        if self.error is not None:
            raise self.error
        return self.value


def enter(session: Session, roster: str) -> Reading:
    """The readings of a roster, kept until as many have left. The caller has `session.shared`."""
    reading: Reading = session.readings.setdefault(roster, Reading(session))
    reading.users += 1
    return reading


def leave(session: Session, roster: str, reading: Reading) -> None:
    """The caller has `session.shared`."""
    reading.users -= 1
    if not reading.users:
        session.readings.pop(roster, None)


async def census(
    session: Session,
    roster: str,
    make: Callable[[tuple[Claim, ...]], T],
    since: int | None = None,
) -> T:
    """What `make` makes of every claim of a session that lives, ordered by token.

    With `since`, a reading that is later than that many is good enough. All who ask for a
    roster must make the same of it, since they share it.
    """
    session.check_open()
    with session.shared:
        reading = enter(session, roster)
        asked = reading.begun if since is None else since
    try:
        done = reading.done
        if done > asked and done == reading.begun:
            return cast("T", reading.result())
        async with reading.turn:
            if reading.done <= asked:
                reading.begun += 1
                number = reading.begun
                try:
                    claims = await insist(session, lambda: session.driver.census(roster))
                    reading.value, reading.error = make(claims), None
                except BackendError as error:
                    reading.error = error  # nobody need wait for that twice
                reading.done = number
            return cast("T", reading.result())
    finally:
        with session.shared:
            leave(session, roster, reading)
