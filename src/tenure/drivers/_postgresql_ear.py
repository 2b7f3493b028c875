"""Wake-ups from PostgreSQL: one listening connection, opened when somebody first listens.

A waiter hears on the channel of its session, where the payload names its claim; a watcher
on the channel of its roster. A channel of a roster is left when its last watcher has gone,
at the next opportunity; a session's is kept as long as the connection.
"""

from __future__ import annotations

import logging
from typing import Protocol

from .._model import Interest
from .._runtime.base import Job, Runtime
from ..errors import BackendError, OutcomeUnknown, TenureError, Unavailable
from ..wires.libpq import Heard
from ..wires.postgresql import Link
from ._advisory import key
from .base import Wake

logger = logging.getLogger("tenure")

_SLICE_SECONDS = 1.0
_PAUSE_SECONDS = 0.05


class Doors(Protocol):
    """What the ear needs of the driver."""

    namespace: str
    patience: float

    async def ear_link(self) -> Link: ...


class Ear:
    """Hears what is notified, and calls whoever listens for it."""

    def __init__(self, driver: Doors, runtime: Runtime) -> None:
        self._driver = driver
        self._runtime = runtime
        self._wakes: dict[str, dict[str, Wake]] = {}  # by channel, then by the interest's id
        self._lock = runtime.lock()
        self._turn = runtime.mutex()  # held to change the channels of the connection
        self._job: Job | None = None
        self._link: Link | None = None
        self._channels: set[str] = set()  # that the connection listens to
        self._stop = runtime.signal()
        self._settled = runtime.signal()
        self._deaf: TenureError | None = None
        self._missed = False  # whether there was a connection before, and notifications since

    async def listen(self, interest: Interest, wake: Wake) -> None:
        """Returns when a notification that is sent from now on would be heard."""
        channel = self._channel(interest)
        with self._lock:
            self._wakes.setdefault(channel, {})[interest.id] = wake
            if self._job is None and not self._stop.is_set():
                self._job = self._runtime.spawn(self._run, "postgresql-listener")
        try:
            if self._link is None:
                await self._settled.wait(self._runtime.now() + self._driver.patience)
            link = self._link
            if link is None:
                cause = self._deaf
                raise Unavailable(f"postgresql: not listening: {cause or 'none in time'}")
            if channel not in self._channels:
                async with self._turn:
                    if channel not in self._channels:
                        await link.script(f'LISTEN "{channel}"')
                        self._channels.add(channel)
                # What came along with the reply, nobody else would be told of.
                self._tell(await link.hear(0))
            if link is not self._link:
                raise Unavailable("postgresql: the listening connection has ended")
        except BaseException:
            self.unlisten(interest)
            raise

    def unlisten(self, interest: Interest) -> None:
        """Forget the interest."""
        channel = self._channel(interest)
        with self._lock:
            wakes = self._wakes.get(channel, {})
            wakes.pop(interest.id, None)
            if not wakes:
                self._wakes.pop(channel, None)

    async def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        with self._lock:
            job, link = self._job, self._link
        if job is None:
            return
        if link is not None:
            link.end("closed")
        job.cancel()
        await job.join(self._runtime.now() + self._driver.patience + _SLICE_SECONDS)

    def _channel(self, interest: Interest) -> str:
        if interest.watch:
            return f"tenure_r{key('roster', self._driver.namespace, interest.roster)}"
        return f"tenure_s{key('session', interest.session)}"

    async def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            link: Link | None = None
            try:
                link = await self._driver.ear_link()
                await self._begin(link)
                failures = 0
                await self._hear(link)
            except TenureError as error:
                if not isinstance(error, Unavailable) and type(self._deaf) is not type(error):
                    logger.warning("tenure: waiters must poll, since listening failed: %s", error)
                self._deaf = error
                if not isinstance(error, BackendError):
                    raise
            finally:
                self._link = None
                if link is not None:
                    link.end("it is not listened to any more")
            if self._stop.is_set():
                return
            self._settled.set()  # whoever waits is told why not
            failures += 1
            pause = min(self._driver.patience, _PAUSE_SECONDS * 2 ** min(failures, 10))
            now = self._runtime.now()
            await self._stop.wait(now + pause * (0.5 + 0.5 * self._runtime.random()))
            self._settled.clear()

    async def _begin(self, link: Link) -> None:
        async with self._turn:
            with self._lock:
                channels = set(self._wakes)
            if channels:
                await link.script("; ".join(f'LISTEN "{each}"' for each in sorted(channels)))
            self._channels = channels
            self._link, self._deaf = link, None
        self._settled.set()
        if self._missed:
            with self._lock:
                wakes = [wake for each in self._wakes.values() for wake in each.values()]
            for wake in wakes:
                wake()
        self._missed = True

    async def _hear(self, link: Link) -> None:
        """Pass notifications on until the connection ends or goes silent."""
        now = self._runtime.now
        quiet_since = now()
        while not self._stop.is_set():
            heard = await link.hear(min(_SLICE_SECONDS, self._driver.patience))
            if heard:
                quiet_since = now()
                self._tell(heard)
            else:
                await self._leave_channels(link)
                if now() - quiet_since > self._driver.patience:
                    await link.script("SELECT")
                    quiet_since = now()
        if link.reason is not None:
            raise OutcomeUnknown(f"postgresql: {link.reason}")

    async def _leave_channels(self, link: Link) -> None:
        async with self._turn:
            with self._lock:
                left = {
                    each
                    for each in self._channels
                    if each.startswith("tenure_r") and each not in self._wakes
                }
                self._channels -= left
            if left:
                await link.script("; ".join(f'UNLISTEN "{each}"' for each in sorted(left)))

    def _tell(self, heard: list[Heard]) -> None:
        for channel, payload in heard:
            name = channel.decode()
            with self._lock:
                wakes = self._wakes.get(name, {})
                if name.startswith("tenure_s"):
                    wake = wakes.get(payload.decode())
                    called = [wake] if wake is not None else []
                else:
                    called = list(wakes.values())
            for each in called:
                each()
