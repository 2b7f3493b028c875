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


def _inotify(path: str) -> int:
    """An inotify descriptor that watches the path, or -1."""
    if not sys.platform.startswith("linux"):
        return -1
    file: int = _libc().inotify_init1(_FLAGS)
    if file < 0:
        return -1  # the user's limit of instances is reached
    if _libc().inotify_add_watch(file, os.fsencode(path), _CLOSE | _GONE) < 0:
        os.close(file)
        return -1
    return file


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _drain(file: int) -> None:
    try:
        while len(os.read(file, 4096)) == 4096:
            pass
    except BlockingIOError:
        pass


class SyncFileChanges:
    """For threads: blocks in poll(2)."""

    def __init__(self, path: str) -> None:
        self._file = _inotify(path)
        self._poll = select.poll()
        if self._file >= 0:
            self._poll.register(self._file, select.POLLIN)

    async def wait(self, seconds: float) -> None:
        """Wait for a change of the file, at most for so many seconds."""
        if self._file < 0:
            seconds = min(seconds, POLL_SECONDS)
        if self._poll.poll(max(0.0, seconds) * 1000):
            _drain(self._file)

    def close(self) -> None:
        """Stop watching."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class AsyncFileChanges:
    """For asyncio: a reader of the loop."""

    def __init__(self, path: str) -> None:
        self._file = _inotify(path)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        if self._file >= 0:
            self._loop.add_reader(self._file, self._read)

    def _read(self) -> None:
        _drain(self._file)
        self._changed.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a change of the file, at most for so many seconds."""
        if self._file < 0:
            await asyncio.sleep(min(seconds, POLL_SECONDS))
            return
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def close(self) -> None:
        """Stop watching."""
        file, self._file = self._file, -1
        if file >= 0:
            self._loop.remove_reader(file)
            os.close(file)
