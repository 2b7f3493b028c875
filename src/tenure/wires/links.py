"""What the connections of the drivers with locks of a server's own have in common.

A `Link` is one connection. It carries one statement at a time, and a statement that was
sent is never given up halfway: either its reply is read, or the connection ends.
`ask`, `ready` and `take` are the round trip of `call` in three steps, for a statement that
may wait for hours; `withdraw` calls it off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from time import monotonic
from typing import Any, ClassVar

from ..errors import OutcomeUnknown, TenureError, Unavailable

Ended = Callable[[Any, str], None]
"""Called with a link that has ended, and the reason."""

Row = tuple[bytes | None, ...]


class NotSent(Unavailable):
    """The connection was busy for too long with what was sent before."""


class Withdrawn(Unavailable):
    """The server gave the statement up because it was asked to; nothing was done."""


class Link(ABC):
    """One connection. `reason` says why it ended, and is None while it lives."""

    service: ClassVar[str]
    """What errors begin with."""
    PING: ClassVar[bytes]
    """A statement that does nothing."""

    def __init__(self, patience: float, ended: Ended) -> None:
        self.reason: str | None = None
        self.asking = False
        self.parked = False  # with a ping that has not been answered yet
        self._patience = patience
        self._ended = ended

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a statement is under way, behind which the next one would queue up."""

    @abstractmethod
    async def call(self, statement: bytes, values: tuple[bytes, ...], undo: bytes) -> bytes | None:
        """Run a statement; return its only value.

        A cancelled call still reads its reply, and then runs `undo` with the same
        values if there is something to undo.
        """

    @abstractmethod
    async def ask(self, statement: bytes, values: tuple[bytes, ...]) -> None:
        """Send a statement whose reply may take long."""

    @abstractmethod
    async def ready(self, seconds: float) -> bool:
        """Wait at most so long for the reply; say whether it is there."""

    @abstractmethod
    async def take(self) -> bytes | None:
        """The value of the reply that is there."""

    @abstractmethod
    async def cancel(self) -> None:
        """Ask the server to give the running statement up."""

    @abstractmethod
    def end(self, reason: str) -> None:
        """End the connection, whatever is under way on it. Idempotent."""

    async def ping(self, statement: bytes = b"", values: tuple[bytes, ...] = ()) -> None:
        """See that the server answers, with a statement that may be carried out or not.

        A ping has no outcome that could be unknown, so one that is not answered in time
        does not end the connection: it stays under way, and the next one waits for it.
        """
        until = monotonic() + self._patience
        while True:
            late = self._unpark()
            if not late:
                await self.ask(statement or self.PING, values)
            answered = False
            try:
                answered = await self.ready(max(0.0, until - monotonic()))
            finally:
                if not answered:
                    self._park()
            if not answered:
                raise OutcomeUnknown(f"{self.service}: the server has not answered a ping yet")
            await self.take()
            if not late:
                return

    @abstractmethod
    def _park(self) -> None:
        """Leave the ping under way, unless the connection has ended."""

    @abstractmethod
    def _unpark(self) -> bool:
        """Go on with the ping that was left under way, if there is one."""

    async def withdraw(self) -> bytes | None:
        """Call off what was asked; return the value if the reply was faster.

        Afterwards the connection is idle, or it has ended.
        """
        try:
            if self.reason is None:
                await self.cancel()
            if await self.ready(self._patience):
                return await self.take()
            self._give_up("the server does not answer a cancel request")
        except Withdrawn:
            return None
        except TenureError as error:
            self._give_up(f"a statement could not be called off ({error})")
        return None

    def _give_up(self, reason: str) -> None:
        """End the connection, of which this caller holds the gate if it still asks."""
        self.end(reason)
        if self._take_up():
            self._leave()

    def _take_up(self) -> bool:
        """Whether a statement is under way that is the caller's to leave."""
        return self.asking

    @abstractmethod
    def _leave(self) -> None:
        """Let the next statement in, or close the connection if it has ended."""

    @abstractmethod
    def abandon(self) -> None:
        """In a forked child: let go of the connection without a word to the server."""

    def _gone(self) -> Unavailable:
        return Unavailable(f"{self.service}: the connection has ended: {self.reason}")

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(f"{self.service}: no reply, the connection has ended: {self.reason}")
