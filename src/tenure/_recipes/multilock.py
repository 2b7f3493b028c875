"""Many locks at a time: all of them, or none.

They are acquired one after the other, in the order of their names, whatever the order in which
they were given. So two who want the same ones meet at the first, and never each hold what the
other waits for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any, Generic, Self, TypeVar

from .._callbacks import call_back
from .._lease import BaseLease, State
from .._runtime.base import Signal
from .._session import Session
from ..errors import LeaseLost, TenureError
from .lock import LockRecipe

NAMES_MAX = 1000
"""The greatest number of locks in one."""

L = TypeVar("L", bound=BaseLease)

logger = logging.getLogger("tenure")


class MultiRecipe(Generic[L]):
    """Several names. Stateless, as a lock's is."""

    __slots__ = ("_locks", "_session", "names")

    def __init__(self, session: Session, names: Iterable[str], lease_type: type[L]) -> None:
        self._session = session
        self.names = tuple(sorted(set(names)))
        self._locks = [LockRecipe(session, name, False, lease_type) for name in self.names]

    async def try_acquire(self) -> list[L] | None:
        """Take them all if they are all free."""
        return await self._acquire(False, None)

    async def acquire(self, until: float | None) -> list[L] | None:
        """Take them all, waiting in turn for each; None if the time came first."""
        return await self._acquire(True, until)

    async def _acquire(self, wait: bool, until: float | None) -> list[L] | None:
        while True:
            leases: list[L] = []
            whole = False
            try:
                for lock in self._locks:
                    lease = await (lock.acquire(until) if wait else lock.try_acquire())
                    if lease is None:
                        return None
                    leases.append(lease)
                whole = all(lease.held() for lease in leases)
                if whole:
                    return leases
                # The session was lost on the way, and the first ones with it.
                self._session.check_open()
            finally:
                if leases and not whole:
                    await self._session.runtime.finish(_give_back(leases))


async def _give_back(leases: Iterable[BaseLease]) -> None:
    for lease in reversed(list(leases)):
        await lease.release_at_close()


class BaseMultiLease(Generic[L]):
    """What holds many locks. Made by acquiring, never by hand.

    It answers as a lease does; the loss of one is the loss of all.
    """

    __slots__ = ("_callbacks", "_leases", "_lost_signal", "_releasing", "_session")

    def __init__(self, session: Session, leases: list[L]) -> None:
        self._session = session
        self._leases = leases
        self._callbacks: list[Callable[[Any], object]] = []
        self._lost_signal: Signal | None = None
        self._releasing = False
        for lease in leases:
            lease.on_lost(self._one_lost)

    @property
    def names(self) -> tuple[str, ...]:
        """The locks' names, in the order in which they were acquired."""
        return tuple(lease.name for lease in self._leases)

    @property
    def name(self) -> str:
        """All the names, for people to read."""
        return ", ".join(self.names)

    @property
    def tokens(self) -> dict[str, int]:
        """The fencing token of each lock, by its name."""
        return {lease.name: lease.token for lease in self._leases}

    @property
    def owner(self) -> str:
        """Who holds them: the coordinator's owner."""
        return self._session.owner

    @property
    def deadline(self) -> float:
        """When the first of them ends unless it is renewed, on the clock of `tenure.now()`."""
        return min(lease.deadline for lease in self._leases)

    @property
    def reason(self) -> str | None:
        """Why it was lost; None if it was not."""
        lost = self._first_lost()
        return None if lost is None else f"{lost.name!r}: {lost.reason}"

    @property
    def state(self) -> State:
        """Held, in doubt, lost or released, by the clock of this very moment."""
        if self._first_lost() is not None:
            return State.LOST
        states = {lease.state for lease in self._leases}
        if self._releasing or State.RELEASED in states:
            return State.RELEASED
        return State.IN_DOUBT if State.IN_DOUBT in states else State.HELD

    def held(self) -> bool:
        """Say whether all of them are still held: compares clocks with deadlines, no I/O."""
        state = self.state
        return state is State.HELD or state is State.IN_DOUBT

    def check(self) -> None:
        """Raise `LeaseLost` if one was lost, or if it was released."""
        if not self.held():
            raise self._loss()

    def on_lost(self, call: Callable[[Self], object]) -> None:
        """Have `call(lease)` called once, when one of them is lost; at once if one is lost now.

        It runs on a thread of Tenure's (asyncio: usually the loop's), so it must be
        short and must not block.
        """
        self._callbacks.append(call)
        if self.state is State.LOST:
            self._call_back()

    def __repr__(self) -> str:
        tokens = " ".join(f"{name!r}={token}" for name, token in self.tokens.items())
        left = self.deadline - self._session.now()
        state = self.state
        if state is State.LOST:
            detail = f"lost: {self.reason}"
        elif state is State.RELEASED or left == math.inf:
            detail = str(state)
        else:
            detail = f"{state}, {left:.1f} s left"
        return f"<multi-lease {tokens} owner={self.owner!r} {detail}>"

    async def _release(self) -> None:
        """Give all back, whatever becomes of one.

        Raises `LeaseLost` if one was lost, else what went wrong with the first that the
        backend did not confirm; that one is freed in the background.
        """
        self._releasing = True
        failed: TenureError | None = None
        left = list(self._leases)
        try:
            while left:
                try:
                    await left.pop()._release()
                except LeaseLost:
                    pass  # told below, for all of them
                except TenureError as error:
                    failed = failed or error
        finally:
            if left:
                await self._session.runtime.finish(_give_back(left))
            if self._lost_signal is not None:
                self._lost_signal.set()  # it will never be lost: nobody need wait any longer
        if self.state is State.LOST:
            raise self._loss()
        if failed is not None:
            raise failed

    def _first_lost(self) -> L | None:
        return next((lease for lease in self._leases if lease.state is State.LOST), None)

    def _loss(self) -> LeaseLost:
        reason = self.reason or "it was released"
        return LeaseLost(
            f"the lease of {self.name} is no longer held: {reason}", lease=self, reason=reason
        )

    def _signal(self) -> Signal:
        if self._lost_signal is None:
            self._lost_signal = self._session.runtime.signal()
        if not self.held():
            self._lost_signal.set()
        return self._lost_signal

    def _one_lost(self, lease: BaseLease) -> None:
        if self._lost_signal is not None:
            self._lost_signal.set()
        self._call_back()

    def _call_back(self) -> None:
        # Two threads may be here at a time: each callback is taken, and called, by one.
        while self._callbacks:
            try:
                call = self._callbacks.pop(0)
            except IndexError:
                return
            call_back(call, (self,), "tenure: the on_lost callback of %s failed", self.name)
