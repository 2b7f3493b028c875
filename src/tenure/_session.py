"""The session: keepalive, a deadline that fires by itself, the loss signal, and debts.

A coordinator has one session at a time and renews it, however many leases it holds.
The session's `Life` begins when the backend has started it and ends when it is lost;
the next acquire begins another. Three parties watch a life, and none depends on
another: the keepalive job renews it; a timer ends it at its deadline even while a
renewal hangs; and every question to a lease compares the clock with the deadline.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from ._callbacks import call_back
from ._gate import Gates
from ._model import Event
from ._runtime.base import Job, Runtime, Signal, Timer
from .drivers.base import Driver
from .errors import BackendError, ClosedError, ForkedError, SessionLost, TenureError, Unavailable

T = TypeVar("T")

logger = logging.getLogger("tenure")


class Held(Protocol):
    """What a life knows of the leases that depend on it."""

    def end(self, reason: str) -> None:
        """The life is over: from now on it is lost. Never raises."""

    def tell(self) -> None:
        """Tell whoever cares. Called when every lease of the life has ended."""

    def doubt(self, reason: str) -> None:
        """The last renewal failed. Never raises."""

    async def release_at_close(self) -> None:
        """Free it at the backend while the session still lives. Never raises."""


class Life:
    """One life of a session, as its leases see it."""

    __slots__ = ("_serial", "deadline", "doubt", "id", "leases", "reason", "renew_at", "waiters")

    def __init__(self) -> None:
        self.id = ""
        self.deadline = -math.inf
        self.renew_at = math.inf
        self.reason: str | None = None
        """Why the life ended; None while it goes on."""
        self.doubt: str | None = None
        """Why the last renewal failed; None if it succeeded."""
        self.leases: set[Held] = set()
        self.waiters: set[Signal] = set()
        self._serial = 0

    def next_id(self) -> str:
        """A claim id that is unique for ever, and shows whose it is."""
        self._serial += 1
        return f"{self.id}.{self._serial}"


class Session:
    """Keeps one session alive at the backend, and knows at any time whether it is."""

    def __init__(
        self,
        runtime: Runtime,
        driver: Driver,
        owner: str,
        ttl: float,
        on_event: Callable[[Event], object] | None = None,
    ) -> None:
        self.runtime = runtime
        self.now = runtime.now
        self.driver = driver
        self.owner = owner
        self.ttl = ttl
        self.margin = min(1.0, ttl * 0.1)
        self.gates = Gates(runtime)
        self.watched = on_event is not None
        self._on_event = on_event
        self._lock = runtime.lock()
        self._starting = runtime.mutex()
        self._life: Life | None = None
        self.alive: Life | None = None
        """The life that goes on, as far as is known without asking the clock."""
        self._over: list[Life] = []
        """Lives that are lost, and that the backend has not been told to end."""
        self._kick = runtime.signal()
        self._keeper: Job | None = None
        self._cleaner: Job | None = None
        self._cleaning = False
        self._left = runtime.signal()
        self._closing = runtime.signal()
        self._debts: list[tuple[Life, str, str, int, float]] = []
        self._closed: TenureError | None = None
        self._ending = runtime.mutex()
        self._closer: object = None
        self._shut_down = False
        self.watchers: set[Signal] = set()
        """Set when the session is closed; for who waits, but depends on no life."""
        self.limits: dict[str, int] = {}
        """What the limits of semaphores were when they were read last: hints, by roster."""
        self.groups: dict[str, str] = {}
        """Which group there was when its record was read last: hints, by roster."""
        self.readings: dict[str, Any] = {}
        """The censuses that are under way, by roster; guarded by `shared`."""
        self.ears: dict[str, Any] = {}
        """Who listens to which roster; guarded by `shared`."""
        self.shared = runtime.lock()

    async def open(self) -> None:
        """Open the driver; what was half opened is closed again if that fails."""
        try:
            await self.driver.open()
        except BaseException:
            await self.runtime.finish(self.driver.close())
            raise

    # -- a life --------------------------------------------------------------

    async def life(self) -> Life:
        """The life that goes on; begin one if there is none."""
        life = self._life
        if life is not None and life.reason is None and self._closed is None:
            return life
        async with self._starting:
            if self._closed is not None:
                raise self._closed
            life = self._life
            if life is None or life.reason is not None:
                life = await self._begin()
            return life

    async def _begin(self) -> Life:
        life = Life()
        sent = self.runtime.now()
        life.id = await self.driver.start(self.owner, lambda reason: self.lose(life, reason))
        self._extend(life, sent)
        with self._lock:
            if life.reason is not None:
                raise SessionLost(life.reason)
            self._life = self.alive = life
        if life.deadline < math.inf:
            self._arm(life)
        if self._keeper is None or self._keeper.ended():
            self._keeper = self.runtime.spawn(self._keep, "keepalive")
        self._kick.set()
        return life

    def _extend(self, life: Life, sent: float) -> None:
        # From the moment the request was sent, never from the reply: the backend may
        # have counted from any moment in between.
        if self.driver.traits.expires:
            life.deadline = sent + self.ttl - self.margin
        else:
            life.deadline = math.inf
        life.renew_at = sent + self.ttl / 3 * (0.9 + 0.1 * self.runtime.random())

    def _arm(self, life: Life) -> Timer:
        # Not moved on by each renewal: it looks again when it fires.
        def fire() -> None:
            if life.reason is None and not self.expire(life):
                self._arm(life)

        return self.runtime.call_at(life.deadline, fire)

    def expire(self, life: Life) -> bool:
        """End the life if its deadline has passed; say whether it has."""
        if self.runtime.now() < life.deadline:
            return False
        cause = f" (last renewal: {life.doubt})" if life.doubt else ""
        self.lose(life, f"the session was not renewed within its TTL of {self.ttl:g} s{cause}")
        return True

    def lose(self, life: Life, reason: str) -> None:
        """End the life: every lease is lost, every waiter wakes. Idempotent."""
        with self._lock:
            if life.reason is not None:
                return
            life.reason = reason
            if self.alive is life:
                self.alive = None
            leases, life.leases = life.leases, set()
            waiters = list(life.waiters)
            self._over.append(life)
        if leases:
            logger.warning("tenure: %d lease(s) of %s lost: %s", len(leases), self.owner, reason)
        for lease in leases:
            lease.end(reason)
        for waiter in waiters:
            waiter.set()
        self._kick.set()
        for lease in leases:
            lease.tell()  # not before: what the callbacks do, or raise, must not delay the others

    # -- what depends on a life ----------------------------------------------

    def hold(self, life: Life, lease: Held) -> None:
        """Make the lease end with the life; `SessionLost` if the life is over already."""
        with self._lock:
            if life.reason is None and self.now() < life.deadline:
                life.leases.add(lease)
                return
        self.expire(life)
        raise SessionLost(life.reason or "the session is over")

    def drop(self, life: Life, lease: Held) -> None:
        """The lease was released: it no longer depends on the life."""
        with self._lock:
            life.leases.discard(lease)

    def waiting(self, life: Life, signal: Signal) -> None:
        """Set the signal when the life ends; until `not_waiting`."""
        with self._lock:
            life.waiters.add(signal)
            over = life.reason is not None
        if over or self._closed is not None:
            signal.set()

    def not_waiting(self, life: Life, signal: Signal) -> None:
        """The signal is no longer of interest, and the waiter has left the queue."""
        with self._lock:
            life.waiters.discard(signal)
        if self._closed is not None:
            self._left.set()

    async def retry(
        self, life: Life, call: Callable[[], Awaitable[T]], until: float | None, budget: float
    ) -> T:
        """Call until the backend answers: at most for `budget` seconds, or to `until`.

        The call must be idempotent. Raises `SessionLost` when the life ends first,
        and the backend's last error when the time is over.
        """
        give_up = self.runtime.now() + budget
        if until is not None:
            give_up = min(give_up, until)
        pause = 0.02
        while True:
            try:
                return await call()
            except Unavailable:
                now = self.runtime.now()
                if life.reason is not None:
                    raise SessionLost(life.reason) from None
                if now >= give_up:
                    raise
                await self.runtime.sleep(min(give_up, now + pause * (0.5 + self.runtime.random())))
                pause = min(pause * 2, self.driver.patience)

    def owe(self, life: Life, roster: str, id: str, width: int = 1) -> None:
        """A claim that may stand, or may yet arrive, must be withdrawn in the background.

        A request that was given up on can still be carried out, as long as the
        network holds it. So the withdrawal is repeated for a whole TTL.
        """
        if life.reason is None:
            self._debts.append((life, roster, id, width, self.runtime.now() + self.ttl))
            self._kick.set()

    # -- keepalive -----------------------------------------------------------

    async def _keep(self) -> None:
        while self._closed is None:
            if (self._over or self._debts) and not self._cleaning:
                # In a job of its own: a backend that is slow to clean up must not delay
                # the renewal of the life that goes on.
                self._cleaning = True
                try:
                    self._cleaner = self.runtime.spawn(self._clean, "cleanup")
                except Exception as error:  # noqa: BLE001 - no thread can be had, for instance
                    self._cleaning = False
                    logger.error("tenure: cleaning up must wait: %s", error)
            life = self._life
            if life is None or life.reason is not None:
                await self._kick.wait(self.runtime.now() + self.ttl)
            elif not await self._kick.wait(life.renew_at):
                await self._renew(life)
            self._kick.clear()

    async def _renew(self, life: Life) -> None:
        sent = self.runtime.now()
        try:
            await self.driver.renew(life.id)
        except SessionLost as error:
            self.lose(life, str(error))
        except Exception as error:
            # Whatever it is, the lease's holders hear of it and the deadline stands.
            if not isinstance(error, BackendError):
                logger.exception("tenure: renewing the session failed unexpectedly")
            self._doubt(life, str(error) or type(error).__name__)
        else:
            with self._lock:
                alive = life.reason is None and self.runtime.now() < life.deadline
                if alive:
                    self._extend(life, sent)
                    life.doubt = None
            if alive:
                self.emit(Event("renewed", "", 0, self.owner, self.runtime.now() - sent))
            else:
                self.expire(life)

    def _doubt(self, life: Life, reason: str) -> None:
        now = self.runtime.now()
        life.renew_at = now + self.ttl / 12 * (0.5 + self.runtime.random())
        first, life.doubt = life.doubt is None, reason
        if first:
            logger.warning("tenure: leases of %s are in doubt: %s", self.owner, reason)
            with self._lock:
                leases = list(life.leases)
            for lease in leases:
                lease.doubt(reason)

    # -- cleaning up -----------------------------------------------------------

    async def _clean(self) -> None:
        try:
            while (self._over or self._debts) and self._closed is None:
                while self._over:
                    # Free what the backend may still keep for a life that we gave up.
                    over = self._over.pop()
                    if over.id:  # without one, the backend never began it
                        await self._quietly(self.driver.end(over.id), "ending a lost session")
                await self._pay()
                if self._debts:
                    pause = self.ttl / 6 * (0.5 + self.runtime.random())
                    await self._closing.wait(self.runtime.now() + pause)
        finally:
            self._cleaning = False
            if self._over or self._debts:
                self._kick.set()

    async def _pay(self) -> None:
        for debt in list(self._debts):
            if self._closed is not None:
                return
            life, roster, id, width, until = debt
            if life.reason is None:
                work = self.driver.withdraw(life.id, roster, id, width)
                if not await self._quietly(work, "withdrawing a claim that was given up"):
                    continue
            if life.reason is not None or self.runtime.now() >= until:
                self._debts.remove(debt)

    async def _quietly(self, work: Awaitable[None], what: str) -> bool:
        try:
            await work
        except Exception as error:
            level = logging.INFO if isinstance(error, BackendError) else logging.ERROR
            logger.log(level, "tenure: %s failed: %s", what, error, exc_info=level > logging.INFO)
            return False
        return True

    # -- the end -------------------------------------------------------------

    async def close(self) -> None:
        """Release everything, end the session, stop the background work. Bounded.

        Done once; but what was interrupted is done again by the next call, to the end.
        """
        # A callback of a lease that is lost in this very call may close, too.
        if not self._shut_down and self._closer != self.runtime.caller():
            await self.runtime.finish(self._close())

    async def _close(self) -> None:
        async with self._ending:
            if not self._shut_down:
                self._closer = self.runtime.caller()
                try:
                    await self._shut()
                finally:
                    self._closer = None
                self._shut_down = True

    async def _shut(self) -> None:
        if self._closed is None:
            self._closed = ClosedError("the coordinator is closed")
        self.alive = None
        self.gates.close()
        for watcher in list(self.watchers):
            watcher.set()
        self._kick.set()
        self._closing.set()
        # First of all: no renewal may outlive the session.
        until = self.runtime.now() + self.driver.patience + 1.0
        for job in (self._keeper, self._cleaner):
            if job is not None and not await job.join(until):
                job.cancel()
        async with self._starting:  # a session that is being started is ended, too
            life = self._life
        if life is not None:
            if life.reason is None:
                until = self.runtime.now() + self.driver.patience
                await self._turn_away(life, until)
                for lease in list(life.leases):
                    if self.runtime.now() < until:
                        await lease.release_at_close()
            self.lose(life, "the coordinator was closed")
            await self._quietly(self.driver.end(life.id), "ending the session")
            self._over.clear()
        await self._quietly(self.driver.close(), "closing the driver")

    async def _turn_away(self, life: Life, until: float) -> None:
        """Let those who wait at the backend leave its queue while the session lives."""
        with self._lock:
            waiters = list(life.waiters)
        for waiter in waiters:
            waiter.set()
        while life.waiters and await self._left.wait(until):
            self._left.clear()

    def abandon(self) -> None:
        """In a forked child: hold nothing, and touch nothing of the parent's.

        No lock is taken here: a thread that the fork left behind may have held it.
        """
        self._closed = ForkedError(
            "this coordinator was opened before a fork; call tenure.connect() in the child"
        )
        self._shut_down = True
        self.alive = None
        life = self._life
        if life is not None and life.reason is None:
            life.reason = "the process was forked: its leases stay with the parent"
            life.leases = set()
        self.driver.abandon()

    def check_open(self) -> None:
        """Raise `ClosedError` or `ForkedError` if the session is not for use any more."""
        if self._closed is not None:
            raise self._closed

    # -- hooks ---------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Tell the event hook. Its failure is logged and harms nothing."""
        if self._on_event is not None:
            call_back(self._on_event, (event,), "tenure: the event hook failed on %r", event)
