"""Records, read and written with the outcome known, whatever became of the replies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from .._model import Record
from .._session import Session
from ..errors import Unavailable

T = TypeVar("T")

TRIES_MAX = 100
"""Rounds of reading and comparing before a record counts as too contended."""


async def insist(
    session: Session,
    call: Callable[[], Awaitable[T]],
    until: float | None = None,
    seconds: float | None = None,
) -> T:
    """Call until the backend answers: for `seconds`, a third of the TTL by default, or to `until`.

    For idempotent calls. Raises the backend's last error when the time is over.
    """
    runtime = session.runtime
    give_up = runtime.now() + (session.ttl / 3 if seconds is None else seconds)
    if until is not None:
        give_up = min(give_up, until)
    pause = 0.02
    while True:
        session.check_open()
        try:
            return await call()
        except Unavailable:
            now = runtime.now()
            if now >= give_up:
                raise
            await runtime.sleep(min(give_up, now + pause * (0.5 + runtime.random())))
            pause = min(pause * 2, session.driver.patience)


async def recall(session: Session, name: str) -> Record | None:
    """Read a record."""
    return await insist(session, lambda: session.driver.recall(name))


async def swap(session: Session, name: str, text: str | None, version: Any) -> Any:
    """Write or delete a record if its version is still that; None if somebody was faster.

    `text` must be new to the world: it is how a write is known again whose reply was
    lost. A deletion counts as done when the record is found gone.
    """

    async def attempt() -> Any:
        try:
            return await session.driver.record(name, text, version)
        except Unavailable:
            found = await session.driver.recall(name)
            if found is None:
                if text is None:
                    return True
                if version is not None:
                    return None
            elif found.text == text:
                return found.version
            elif found.version != version:
                return None
            raise  # not carried out, so far: the same request may be made again

    return await insist(session, attempt)


async def pause(session: Session, attempt: int) -> None:
    """Stand back after a round that somebody else won; the longer, the more there were.

    `Unavailable` when there were too many.
    """
    if attempt >= TRIES_MAX:
        raise Unavailable(f"the record is too contended: {TRIES_MAX} rounds in vain")
    runtime = session.runtime
    if attempt:
        await runtime.sleep(runtime.now() + runtime.random() * 0.002 * min(attempt, 25))
