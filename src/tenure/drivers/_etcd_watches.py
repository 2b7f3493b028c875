"""The watches of one etcd driver: all of them over one stream, read by one job.

The stream may break at any time. Then it is opened again, every watch is asked for
anew, and each waiter is woken once, since something may have been missed.

A watch sees what comes after the moment at which it is entered. To ask for one from an
earlier revision would miss nothing either, but etcd lets such watches wait for up to a
tenth of a second before it tells them anything.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence

from .._model import Interest
from .._runtime.base import Job, Runtime
from ..errors import AuthenticationFailed, ProtocolError, TenureError
from ..wires._etcd_api import News, Stream, Unwatch, Watch, Wire, is_stale
from ._etcd_lines import Purpose
from .base import Wake

logger = logging.getLogger("tenure")

_PAUSE_LEAST = 0.05
_PAUSE_MOST = 2.0
_PAUSE_REFUSED = 30.0  # a login is dear to the server
_IDLE = 60.0


class _Watcher:
    """One watch that an interest needs, under the id that it has now."""

    __slots__ = ("again", "gone", "purpose", "request", "sent", "wake")

    def __init__(self, request: Watch, purpose: Purpose, wake: Wake) -> None:
        self.request = request
        self.purpose = purpose
        self.wake = wake
        self.sent = False
        self.again = False
        self.gone = False

    def broke(self) -> None:
        """Have it look when the watch begins anew."""
        self.again = True
        self.purpose.broke()


class Watches:
    """`add` and `remove` may be called from any thread; they never wait for the backend.

    A race between them and a stream that is opened again can only ask for a watch
    twice, which etcd refuses by its id, or leave one behind, which is ended when it
    first says something.
    """

    def __init__(self, runtime: Runtime, wire: Callable[[], Wire], patience: float) -> None:
        self._runtime = runtime
        self._wire = wire
        self._patience = patience
        self._ids = itertools.count(1)
        self._watchers: dict[int, _Watcher] = {}
        self._of: dict[Interest, list[_Watcher]] = {}
        self._stream: Stream | None = None
        self._job: Job | None = None
        self._lock = runtime.lock()
        self._wanted = runtime.signal()
        self._stop = runtime.signal()
        self._closed = False

    def add(
        self, interest: Interest, requests: Sequence[tuple[Watch, Purpose]], wake: Wake
    ) -> None:
        """Watch for an interest; the requests' ids are filled in here."""
        self.remove(interest)
        with self._lock:
            if self._closed:
                return
            if self._job is None:
                self._job = self._runtime.spawn(self._run, "etcd-watches")
        watchers = [_Watcher(request, purpose, wake) for request, purpose in requests]
        self._of[interest] = watchers
        for watcher in watchers:
            self._ask(watcher)
        self._wanted.set()

    def remove(self, interest: Interest) -> None:
        """End the watches for an interest, if there are any."""
        for watcher in self._of.pop(interest, ()):
            watcher.gone = True
            self._forget(watcher)

    async def close(self) -> None:
        """End the stream and the job."""
        with self._lock:
            self._closed = True
        self._stop.set()
        self._wanted.set()
        stream, job = self._stream, self._job
        if stream is not None:
            stream.close()
        if job is not None and not await job.join(self._runtime.now() + self._patience):
            job.cancel()

    def abandon(self) -> None:
        """In a forked child: the job and the stream are the parent's."""
        self._closed = True
        self._job = self._stream = None

    def _ask(self, watcher: _Watcher) -> None:
        """Ask for the watch, under an id that this driver never used before."""
        id = next(self._ids)
        watcher.request = watcher.request._replace(id=id)
        self._watchers[id] = watcher
        stream = self._stream
        if stream is not None:
            watcher.sent = True
            stream.send(watcher.request)
        if watcher.gone:  # removed meanwhile, under its former id
            self._forget(watcher)

    def _forget(self, watcher: _Watcher) -> None:
        id = watcher.request.id
        self._watchers.pop(id, None)
        stream = self._stream
        if stream is not None:
            stream.send(Unwatch(id))

    # -- the job -----------------------------------------------------------

    async def _run(self) -> None:
        pause, fresh = _PAUSE_LEAST, False
        while not self._closed:
            if not self._watchers:
                self._wanted.clear()
                if not self._watchers and not self._closed:
                    await self._wanted.wait(self._runtime.now() + _IDLE)
                continue
            try:
                stream = await self._open(fresh)
                try:
                    while True:
                        self._heed(await stream.receive(), stream)
                        pause, fresh = _PAUSE_LEAST, False
                finally:
                    self._stream = None
                    stream.close()
            except AuthenticationFailed as error:
                if fresh:
                    logger.warning("tenure: etcd refuses the watches: %s", error)
                    pause = _PAUSE_REFUSED
                fresh = True
            except TenureError as error:
                if not self._closed:
                    logger.debug("tenure: the stream of etcd's watches ended: %s", error)
            await self._stop.wait(self._runtime.now() + pause * (0.5 + self._runtime.random()))
            pause = max(pause, min(pause * 2, _PAUSE_MOST))

    async def _open(self, fresh: bool) -> Stream:
        stream = await self._wire().watch(fresh=fresh)
        self._stream = stream
        if self._closed:
            stream.close()
        for watcher in list(self._watchers.values()):
            if watcher.sent:
                watcher.broke()
            watcher.sent = True
            stream.send(watcher.request)
        return stream

    def _heed(self, news: News, stream: Stream) -> None:
        if news.cancelled and is_stale(news.reason):
            raise AuthenticationFailed(f"etcd: {news.reason}")
        watcher = self._watchers.get(news.id)
        if watcher is None:
            if not news.cancelled:
                stream.send(Unwatch(news.id))
            return
        if news.compacted:
            # It came so late that etcd's history no longer has what it would have seen.
            self._watchers.pop(news.id, None)
            watcher.broke()
            self._ask(watcher)
            return
        if news.cancelled:
            raise ProtocolError(f"etcd: a watch was cancelled: {news.reason}")
        wake = False
        if news.created:
            wake = watcher.purpose.began(news.revision) or watcher.again
            watcher.again = False
        if news.changes:
            wake = watcher.purpose.saw(news.changes) or wake
        if wake:
            watcher.wake()
