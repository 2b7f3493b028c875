"""Waiting for a change of one file: inotify where there is one, else a short poll.

The kernel tells of a closed descriptor also when its process was killed, so a waiter
for a file lock needs no busy loop. Nothing is promised: a wait may end for no reason,
and must be bounded by its caller.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import select
import sys

POLL_SECONDS = 0.002
"""Where inotify cannot be had: a hand-over within two milliseconds for about 1 % of a core."""

# <sys/inotify.h>
_CLOSE = 0x08 | 0x10
_GONE = 0x04 | 0x400 | 0x800  # attributes (a link removed), deleted, moved
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK


class _Inotify:
    """One inotify instance, which watches one path at a time.

    It is kept for the next wait: closing one takes the kernel milliseconds, which
    would come right between a release and the acquire that waits for it.
    """

    def __init__(self) -> None:
        self.file = -1
        self._watch = -1
        if sys.platform.startswith("linux"):
            self.file = _libc().inotify_init1(_FLAGS)  # -1 at the user's limit of instances

    def begin(self, path: str) -> None:
        """Watch the path, if that can be."""
        if self.file >= 0:
            events = _CLOSE | _GONE
            self._watch = _libc().inotify_add_watch(self.file, os.fsencode(path), events)

    @property
    def blind(self) -> bool:
        """Whether nothing will be told."""
        return self._watch < 0

    def drain(self) -> None:
        """Forget what was told."""
        try:
            while len(os.read(self.file, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def end(self) -> None:
        """Watch no longer."""
        if self._watch >= 0:
            _libc().inotify_rm_watch(self.file, self._watch)
            self._watch = -1
            self.drain()

    def close(self) -> None:
        """Give the instance back to the system."""
        file, self.file = self.file, -1
        if file >= 0:
            os.close(file)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


class SyncFileChanges:
    """For threads: blocks in poll(2)."""

    def __init__(self) -> None:
        self._inotify = _Inotify()
        self._poll = select.poll()
        if self._inotify.file >= 0:
            self._poll.register(self._inotify.file, select.POLLIN)

    def begin(self, path: str) -> None:
        """Watch a file, from now on."""
        self._inotify.begin(path)

    async def wait(self, seconds: float) -> None:
        """Wait for a change of the file, at most for so many seconds."""
        if self._inotify.blind:
            seconds = min(seconds, POLL_SECONDS)
        if self._poll.poll(max(0.0, seconds) * 1000):
            self._inotify.drain()

    def end(self) -> None:
        """Watch no longer; the next `begin` may name another file."""
        self._inotify.end()

    def close(self) -> None:
        """Give back what it took from the system."""
        self._inotify.close()


class AsyncFileChanges:
    """For asyncio: a reader of the loop."""

    def __init__(self) -> None:
        self._inotify = _Inotify()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def begin(self, path: str) -> None:
        """Watch a file, from now on."""
        self._inotify.begin(path)
        self._changed.clear()
        if not self._inotify.blind:
            self._loop.add_reader(self._inotify.file, self._read)

    def _read(self) -> None:
        self._inotify.drain()
        self._changed.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a change of the file, at most for so many seconds."""
        if self._inotify.blind:
            await asyncio.sleep(min(seconds, POLL_SECONDS))
            return
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def end(self) -> None:
        """Watch no longer; the next `begin` may name another file."""
        if not self._inotify.blind:
            self._loop.remove_reader(self._inotify.file)
        self._inotify.end()

    def close(self) -> None:
        """Give back what it took from the system."""
        self._inotify.close()
