"""Wake-ups from Redis: one subscribed connection, opened when somebody first listens.

It always hears the channel of its own mailbox, where the claims that moved up are told.
The channels of the rosters that somebody watches come and go: the job that reads from the
connection is also the only one that writes to it, and whoever wants a channel nudges it
with a message to its own mailbox.
"""

from __future__ import annotations

import logging
from typing import Any

from .._runtime.base import Job, Runtime, Signal
from ..errors import BackendError, OutcomeUnknown, TenureError, Unavailable
from ..wires.redis import MORE, Wire
from .base import Wake

logger = logging.getLogger("tenure")

_SLICE_SECONDS = 1.0
_PAUSE_SECONDS = 0.05


class _Channel:
    """A channel that somebody watches."""

    __slots__ = ("asked", "heard", "known", "refused", "settled", "wakes")

    def __init__(self, settled: Signal) -> None:
        self.wakes: dict[str, Wake] = {}
        self.asked = False
        """Whether the connection was told to subscribe to it."""
        self.heard = False
        """Whether it has confirmed that."""
        self.known = False
        """Whether any connection ever has."""
        self.refused: TenureError | None = None
        self.settled = settled
        """Set when it is heard or refused, or when the connection that was asked is gone."""


class Ear:
    """Hears which claims moved up and which rosters changed, and calls the wakes."""

    def __init__(self, wire: Wire[Any], runtime: Runtime, mailbox: bytes, patience: float) -> None:
        self._wire = wire
        self._runtime = runtime
        self._mailbox = mailbox
        self._patience = patience
        self._wakes: dict[str, Wake] = {}
        self._channels: dict[bytes, _Channel] = {}
        self._untuned = False
        """Whether the connection may hear other channels than it should."""
        self._lock = runtime.lock()
        self._job: Job | None = None
        self._link: Any = None
        self._stop = runtime.signal()
        self._settled = runtime.signal()
        self._deaf: BackendError | None = None

    # -- what a driver calls ---------------------------------------------------

    async def listen(self, id: str, wake: Wake) -> None:
        """Returns when a message that is sent from now on would be heard."""
        self._wakes[id] = wake
        try:
            await self._connected(self._runtime.now() + self._patience)
        except BaseException:
            self._wakes.pop(id, None)
            raise

    def unlisten(self, id: str) -> None:
        self._wakes.pop(id, None)

    async def watch(self, name: bytes, id: str, wake: Wake) -> None:
        """The same for a channel."""
        until = self._runtime.now() + self._patience
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                channel = self._channels[name] = _Channel(self._runtime.signal())
            channel.wakes[id] = wake
            self._untuned = True
        try:
            await self._connected(until)
            settled = channel.settled
            if not channel.heard:
                if not channel.asked:
                    await self._nudge()
                await settled.wait(until)
            if not channel.heard:
                cause = channel.refused or self._deaf
                raise Unavailable(f"redis: no subscription: {cause or 'none in time'}") from cause
        except BaseException:
            self.unwatch(name, id)
            raise

    def unwatch(self, name: bytes, id: str) -> None:
        """Forget the wake. A channel that nobody wants any more is left within a second."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is not None:
                channel.wakes.pop(id, None)
                self._untuned = True
                if not channel.wakes and not channel.asked:
                    del self._channels[name]

    async def close(self) -> None:
        self._stop.set()
        job, link = self._job, self._link
        if job is None:
            return
        if link is not None:
            link.hang_up()
        job.cancel()
        await job.join(self._runtime.now() + self._patience + _SLICE_SECONDS)

    async def _connected(self, until: float) -> None:
        if self._link is not None and self._settled.is_set():
            return
        with self._lock:
            if self._job is None and not self._stop.is_set():
                self._job = self._runtime.spawn(self._run, "redis-listener")
        await self._settled.wait(until)
        if self._link is None:
            cause = self._deaf
            raise Unavailable(f"redis: no subscription: {cause or 'none in time'}") from cause

    async def _nudge(self) -> None:
        """Have the job look at the channels now and not only at the end of its slice."""
        try:
            await self._wire.command(b"PUBLISH", self._mailbox, b"")
        except BackendError:
            return

    # -- the job -----------------------------------------------------------------

    async def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                link = await self._wire.subscribe(self._mailbox)
                try:
                    failures = 0
                    self._link, self._deaf = link, None
                    self._settled.set()
                    for wake in list(self._wakes.values()):
                        wake()  # what was sent while nobody listened is lost
                    await self._hear(link)
                finally:
                    self._link = None
                    self._settled.clear()
                    self._disconnected()
                    self._wire.discard(link)
            except BackendError as error:
                if type(self._deaf) is not type(error) and not isinstance(error, Unavailable):
                    # No permission, most likely. Locks work, but waiters are slow to wake.
                    logger.warning("tenure: waiters must poll, since subscribing failed: %s", error)
                self._deaf = error
                self._settled.set()
            if self._stop.is_set():
                return
            failures += 1
            pause = min(self._patience, _PAUSE_SECONDS * 2 ** min(failures, 10))
            now = self._runtime.now()
            await self._stop.wait(now + pause * (0.5 + 0.5 * self._runtime.random()))
            self._settled.clear()

    async def _hear(self, link: Any) -> None:
        """Pass messages on until the connection ends or goes silent."""
        now = self._runtime.now
        heard = now()
        asked: float | None = None
        while not self._stop.is_set():
            await self._tune(link)
            reply = await link.receive(min(_SLICE_SECONDS, self._patience))
            if reply is not MORE:
                heard, asked = now(), None
                self._heard(reply)
            elif asked is not None and now() - asked > self._patience:
                raise OutcomeUnknown("redis: the subscribed connection is silent")
            elif asked is None and now() - heard > self._patience:
                await self._wire.post(link, b"PING")
                asked = now()

    async def _tune(self, link: Any) -> None:
        """Subscribe to what somebody watches, unsubscribe from what nobody does any more."""
        if not self._untuned:
            return
        orders: list[tuple[bytes, bytes]] = []
        with self._lock:
            self._untuned = False
            for name, channel in list(self._channels.items()):
                if channel.wakes:
                    if not channel.asked:
                        channel.asked = True
                        orders.append((b"SUBSCRIBE", name))
                elif channel.heard or not channel.asked:
                    # Not while a confirmation is under way, which would be taken for the next.
                    del self._channels[name]
                    if channel.heard:
                        orders.append((b"UNSUBSCRIBE", name))
        for order in orders:
            await self._wire.post(link, *order)

    def _heard(self, reply: Any) -> None:
        refused = self._wire.refusal(reply)
        if refused is not None:
            self._refused(refused)
            return
        if not isinstance(reply, list) or len(reply) != 3:
            return  # the answer to a sign of life
        kind, name, what = reply
        if kind == b"message" and name == self._mailbox:
            wake = self._wakes.get(str(what, "utf-8", "surrogatepass"))
            if wake is not None:
                wake()
            return
        wakes: list[Wake] = []
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                return
            if kind == b"message":
                wakes = list(channel.wakes.values())
            elif kind == b"subscribe":
                if channel.known:
                    wakes = list(channel.wakes.values())  # what was sent in between is lost
                channel.heard = channel.known = self._untuned = True
                channel.settled.set()
        for wake in wakes:
            wake()

    def _refused(self, error: TenureError) -> None:
        """No permission for a channel; which one, the server does not say."""
        with self._lock:
            names = [name for name, each in self._channels.items() if each.asked and not each.heard]
            for name in names:
                channel = self._channels.pop(name)
                channel.refused = error
                channel.settled.set()
        if names:
            logger.warning("tenure: watchers must poll, since subscribing failed: %s", error)

    def _disconnected(self) -> None:
        """Whoever waits for a channel is told; whoever watches one keeps its place."""
        with self._lock:
            self._untuned = True
            for channel in self._channels.values():
                channel.asked = channel.heard = False
                channel.settled.set()
                channel.settled = self._runtime.signal()
