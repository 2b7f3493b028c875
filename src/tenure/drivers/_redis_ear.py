"""Wake-ups from Redis: one subscribed connection, opened when somebody first listens."""

from __future__ import annotations

import logging
from typing import Any

from .._runtime.base import Job, Runtime
from ..errors import BackendError, OutcomeUnknown, Unavailable
from ..wires.redis import MORE, Wire
from .base import Wake

logger = logging.getLogger("tenure")

_SLICE_SECONDS = 1.0
_PAUSE_SECONDS = 0.05


class Ear:
    """Hears which claims moved up, and calls their wakes."""

    def __init__(self, wire: Wire[Any], runtime: Runtime, channel: bytes, patience: float) -> None:
        self._wire = wire
        self._runtime = runtime
        self._channel = channel
        self._patience = patience
        self._wakes: dict[str, Wake] = {}
        self._lock = runtime.lock()
        self._job: Job | None = None
        self._link: Any = None
        self._stop = runtime.signal()
        self._settled = runtime.signal()
        self._deaf: BackendError | None = None

    async def listen(self, id: str, wake: Wake) -> None:
        """Returns when a message that is sent from now on would be heard."""
        self._wakes[id] = wake
        if self._link is not None and self._settled.is_set():
            return
        with self._lock:
            if self._job is None and not self._stop.is_set():
                self._job = self._runtime.spawn(self._run, "redis-listener")
        try:
            await self._settled.wait(self._runtime.now() + self._patience)
            if self._link is None:
                cause = self._deaf
                raise Unavailable(f"redis: no subscription: {cause or 'none in time'}") from cause
        except BaseException:
            self._wakes.pop(id, None)
            raise

    def unlisten(self, id: str) -> None:
        self._wakes.pop(id, None)

    async def close(self) -> None:
        self._stop.set()
        job, link = self._job, self._link
        if job is None:
            return
        if link is not None:
            link.hang_up()
        job.cancel()
        await job.join(self._runtime.now() + self._patience + _SLICE_SECONDS)

    async def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                link = await self._wire.subscribe(self._channel)
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
            reply = await link.receive(min(_SLICE_SECONDS, self._patience))
            if reply is not MORE:
                heard, asked = now(), None
                if isinstance(reply, list) and reply[:1] == [b"message"]:
                    wake = self._wakes.get(str(reply[2], "utf-8", "surrogatepass"))
                    if wake is not None:
                        wake()
            elif asked is not None and now() - asked > self._patience:
                raise OutcomeUnknown("redis: the subscribed connection is silent")
            elif asked is None and now() - heard > self._patience:
                await self._wire.ping(link)
                asked = now()
