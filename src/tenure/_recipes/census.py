"""Reading a roster once for all who ask at the same time: a hundred watchers cost one reading.

Whoever asks gets a reading that began after it asked, so that it sees all that it was woken
for. While one is under way those who come wait for it, and then share the next.
"""

from __future__ import annotations

from .._model import Claim
from .._runtime.base import Runtime
from .._session import Session
from ..errors import BackendError
from .records import insist


class _Reading:
    """The readings of one roster, one after the other, while somebody wants one."""

    __slots__ = ("begun", "claims", "done", "error", "turn", "users")

    def __init__(self, runtime: Runtime) -> None:
        self.turn = runtime.mutex()
        self.users = 0
        self.begun = 0
        self.done = 0
        """The number of the last reading that came to an end."""
        self.claims: tuple[Claim, ...] = ()
        self.error: BackendError | None = None


async def census(session: Session, roster: str) -> tuple[Claim, ...]:
    """Every claim of a session that lives, ordered by token."""
    session.check_open()
    readings = session.readings
    with session.shared:
        reading: _Reading = readings.setdefault(roster, _Reading(session.runtime))
        reading.users += 1
        asked = reading.begun
    try:
        async with reading.turn:
            if reading.done <= asked:
                reading.begun += 1
                number = reading.begun
                try:
                    reading.claims = await insist(session, lambda: session.driver.census(roster))
                    reading.error = None
                except BackendError as error:
                    reading.error = error  # nobody need wait for that twice
                reading.done = number
            if reading.error is not None:
                raise reading.error
            return reading.claims
    finally:
        with session.shared:
            reading.users -= 1
            if not reading.users:
                readings.pop(roster, None)
