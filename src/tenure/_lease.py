"""The lease: proof of holding, with a token, a deadline and a loss signal.

A lease is a handle and belongs to nobody's thread: any thread or task may ask it,
release it, or wait for its loss. What it answers it knows without I/O.
"""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Callable
from typing import Any, Self

from ._callbacks import call_back
from ._gate import Ticket
from ._model import Event, Grant
from ._runtime.base import Signal
from ._session import Life, Session
from .errors import LeaseLost, SessionLost

logger = logging.getLogger("tenure")


class State(enum.StrEnum):
    """What a lease can be. Only in `HELD` and `IN_DOUBT` does it keep others out."""

    HELD = "held"
    """Held, and the last renewal succeeded."""
    IN_DOUBT = "in doubt"
    """Still held, but the last renewal failed: it will be lost at the deadline."""
    LOST = "lost"
    """Over, without having been released: another may hold the lock."""
    RELEASED = "released"
    """Released, or being released."""


class BaseLease:
    """What the leases of both APIs share. Made by `acquire`, never by hand."""

    __slots__ = (
        "_callbacks",
        "_ended",
        "_grant",
        "_id",
        "_life",
        "_lost_signal",
        "_reason",
        "_releasing",
        "_roster",
        "_session",
        "_since",
        "_ticket",
        "_told",
        "_width",
        "name",
        "shared",
        "token",
        "unsure",
    )

    name: str
    """The lock's name, as it was asked for."""
    token: int
    """The fencing token: greater than the token of every lease of this name before."""
    shared: bool
    """Whether other shared leases may be held at the same time."""
    unsure: bool
    """Whether a request to enter its claim got no answer, and may yet arrive."""

    def __init__(
        self,
        session: Session,
        life: Life,
        ticket: Ticket,
        name: str,
        token: int,
        id: str,
        grant: Grant | None,
        roster: str,
        width: int,
    ) -> None:
        self._session = session
        self._life = life
        self._ticket = ticket
        self._id = id
        self._grant = grant
        self._roster = roster
        self._width = width
        self._since = session.now() if session.watched else 0.0
        self._reason: str | None = None
        self._ended = False
        self._releasing = False
        self._callbacks: list[Callable[[Any], object]] = []
        self._lost_signal: Signal | None = None
        self._told = False
        self.name = name
        self.token = token
        self.shared = ticket.shared
        self.unsure = False
        session.hold(life, self)

    # -- what the holder asks ------------------------------------------------

    @property
    def owner(self) -> str:
        """Who holds it: the coordinator's owner."""
        return self._session.owner

    @property
    def deadline(self) -> float:
        """When it ends unless it is renewed, on the clock of `tenure.now()`.

        `math.inf` where the backend needs no renewal to keep it.
        """
        return self._life.deadline

    @property
    def reason(self) -> str | None:
        """Why it was lost; None if it was not."""
        return self._reason or (None if self._ended else self._life.reason)

    @property
    def state(self) -> State:
        """Held, in doubt, lost or released, by the clock of this very moment."""
        if self._reason is not None:
            return State.LOST
        if self._ended or self._releasing:
            return State.RELEASED
        life = self._life
        if life.reason is not None or self._session.expire(life):
            return State.LOST
        return State.HELD if life.doubt is None else State.IN_DOUBT

    def held(self) -> bool:
        """Say whether it is still held: compares the clock with the deadline, no I/O."""
        state = self.state
        return state is State.HELD or state is State.IN_DOUBT

    def check(self) -> None:
        """Raise `LeaseLost` if it was lost, or was released. Call it before each side effect."""
        if not self.held():
            raise self._loss()

    def on_lost(self, call: Callable[[Self], object]) -> None:
        """Have `call(lease)` called once, when the lease is lost; at once if it is lost now.

        It runs on a thread of Tenure's (asyncio: usually the loop's), so it must be
        short and must not block.
        """
        self._callbacks.append(call)
        if self.state is State.LOST:
            self._call_back()

    def __repr__(self) -> str:
        left = self.deadline - self._session.runtime.now()
        state = self.state
        if state is State.LOST:
            detail = f"lost: {self.reason}"
        elif state is State.RELEASED or left == math.inf:
            detail = str(state)
        else:
            detail = f"{state}, {left:.1f} s left"
        kind = "shared " if self.shared else ""
        return f"<{kind}lease {self.name!r} token={self.token} owner={self.owner!r} {detail}>"

    # -- its end -------------------------------------------------------------

    def end(self, reason: str) -> None:
        """The session is over: wake whoever waits for it. (For the session to call.)"""
        if self._ended:
            return
        self._reason = reason
        self._ended = True
        self._session.gates.leave(self._ticket)
        if self._lost_signal is not None:
            self._lost_signal.set()

    def tell(self) -> None:
        """Call back whoever asked to be told of the end. (For the session to call.)"""
        if self._reason is not None and not self._told:
            self._told = True
            self._call_back()
            self._emit("lost", self._reason)

    def doubt(self, reason: str) -> None:
        """The last renewal failed. (For the session to call.)"""
        self._emit("in doubt", reason)

    async def release_at_close(self) -> None:
        """Free it at the backend; what cannot be freed ends with the session."""
        try:
            await self._release()
        except Exception as error:  # noqa: BLE001 - the rest is closed whatever fails here
            logger.info("tenure: releasing %r at close failed: %s", self.name, error)

    async def _release(self) -> None:
        """Give it back. Forgotten only when the backend has confirmed it.

        Does nothing if it was released already; raises `LeaseLost` if it was lost,
        and the backend's error if the backend does not answer: then it is no longer
        held as far as the caller is concerned, and is freed in the background, or at
        the latest with the session.
        """
        if self._ended:
            if self._reason is not None:
                raise self._loss()
            return
        session, life = self._session, self._life
        if life.reason is not None or session.now() >= life.deadline:
            session.expire(life)
            raise self._loss()
        self._releasing = True
        driver, roster, id, width = session.driver, self._roster, self._id, self._width
        try:
            if self._grant is not None:
                assert driver.mutex is not None
                await driver.mutex.unseize(self._grant)
            else:
                try:
                    await driver.withdraw(life.id, roster, id, width)
                except ConnectionError:
                    await session.retry(
                        life,
                        lambda: driver.withdraw(life.id, roster, id, width),
                        None,
                        session.ttl / 3,
                    )
        except SessionLost as error:
            session.lose(life, str(error))
            if self._reason is None:
                return  # released by a close at the same time
            raise self._loss() from error
        except BaseException as error:
            # Unknown is not success, and a cancelled release must not leave it taken.
            if self._grant is None:
                session.owe(life, roster, id, width)
            elif isinstance(error, KeyboardInterrupt):
                raise  # perhaps before anything was done: `release` does it again
            self._forget()
            raise
        self._forget()
        if self._reason is not None:
            raise self._loss()  # lost before the backend had confirmed

    def _forget(self) -> None:
        if self._ended:
            return
        session = self._session
        # First of all, and last what says that it was done: Ctrl-C may come in between.
        session.gates.leave(self._ticket)
        session.drop(self._life, self)
        self._ended = True
        if self._lost_signal is not None:
            self._lost_signal.set()  # it will never be lost: nobody need wait any longer
        if self.unsure:
            session.owe(self._life, self._roster, self._id, self._width)
        if session.watched:
            self._emit("released", "")

    def _loss(self) -> LeaseLost:
        reason = self.reason or "it was released"
        return LeaseLost(
            f"the lease of {self.name!r} (token {self.token}) is no longer held: {reason}",
            lease=self,
            reason=reason,
        )

    def _signal(self) -> Signal:
        if self._lost_signal is None:
            self._lost_signal = self._session.runtime.signal()
        if self._ended or self.state is State.LOST:
            self._lost_signal.set()
        return self._lost_signal

    def _call_back(self) -> None:
        # Two threads may be here at a time: each callback is taken, and called, by one.
        while self._callbacks:
            try:
                call = self._callbacks.pop(0)
            except IndexError:
                return
            call_back(call, (self,), "tenure: the on_lost callback of %r failed", self.name)

    def _emit(self, kind: Any, reason: str) -> None:
        session = self._session
        if session.watched:
            seconds = session.runtime.now() - self._since
            session.emit(Event(kind, self.name, self.token, self.owner, seconds, reason))
