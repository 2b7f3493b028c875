"""Waiting for a change of a file, or in a folder: inotify where there is one, else a short poll.

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
import struct
import sys

POLL_SECONDS = 0.002
"""Where inotify cannot be had: a hand-over within two milliseconds for about 1 % of a core."""

# <sys/inotify.h>
_CLOSE = 0x08 | 0x10
_GONE = 0x04 | 0x400 | 0x800  # attributes (a link removed), deleted, moved
_RENAMED = 0x80 | 0x200  # moved to here, deleted
_CLOSE_WRITTEN = 0x08
_ONLY_A_FOLDER = 0x01000000 | 0x02000000  # and no symbolic link to one
_ENDED = 0x8000  # the folder itself went
_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK


def _instance() -> int:
    """A new inotify instance; -1 where there is none, and at the user's limit of instances."""
    return _libc().inotify_init1(_FLAGS) if sys.platform.startswith("linux") else -1


class _Inotify:
    """One inotify instance, which watches one path at a time.

    It is kept for the next wait: closing one takes the kernel milliseconds, which
    would come right between a release and the acquire that waits for it.
    """

    def __init__(self) -> None:
        self.file = _instance()
        self._watch = -1

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


class _Folders:
    """An inotify instance that watches several folders, for good."""

    def __init__(self) -> None:
        self.inotify = _instance()
        self.blind = True
        """Whether not everything will be told."""
        self._all = -1

    def begin(self, named: list[str], all: str) -> None:
        """Watch what is renamed and deleted in some folders, and what is closed in another.

        May be called again, when folders went and were made anew. This one blocks.
        """
        if self.inotify < 0:
            return
        wanted = [*((folder, _RENAMED) for folder in named), (all, _CLOSE_WRITTEN)]
        watches = [
            _libc().inotify_add_watch(self.inotify, os.fsencode(folder), mask | _ONLY_A_FOLDER)
            for folder, mask in wanted
        ]
        self._all = watches[-1]
        self.blind = min(watches) < 0

    def read(self) -> set[str] | None:
        """The names of the files that were told of; None if it could be any."""
        names: set[str] | None = set()
        while True:
            try:
                told = os.read(self.inotify, 1 << 16)
            except BlockingIOError:
                return names
            at = 0
            while at < len(told):
                watch, mask, _, size = _EVENT.unpack_from(told, at)
                at += _EVENT.size + size
                if mask & _ENDED:
                    self.blind = True
                if watch == self._all or mask & (_ENDED | _OVERFLOW):
                    names = None
                elif names is not None:
                    names.add(os.fsdecode(told[at - size : at].rstrip(b"\0")))

    def close(self) -> None:
        """Give the instance back to the system."""
        inotify, self.inotify = self.inotify, -1
        if inotify >= 0:
            os.close(inotify)


class SyncFolderChanges(_Folders):
    """For a thread of its own, which `stop` lets go on from any other."""

    def __init__(self) -> None:
        super().__init__()
        self._stopped, self._stop = os.pipe()
        self._poll = select.poll()
        for file in (self.inotify, self._stopped):
            if file >= 0:
                self._poll.register(file, select.POLLIN)

    async def wait(self, seconds: float) -> set[str] | None:
        """Wait for a change, at most so many seconds; the names of the files, None for any."""
        ready = self._poll.poll(seconds * 1000)
        return self.read() if any(file == self.inotify for file, _ in ready) else set()

    def stop(self) -> None:
        """End the wait that is under way, and any other."""
        os.write(self._stop, b".")

    def close(self) -> None:
        """Give back what it took from the system."""
        super().close()
        files = self._stopped, self._stop
        self._stopped = self._stop = -1
        for file in files:
            if file >= 0:
                os.close(file)

    abandon = close


class AsyncFolderChanges(_Folders):
    """For a task, which is cancelled to stop it."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        if self.inotify >= 0:
            self._loop.add_reader(self.inotify, self._ready)

    def _ready(self) -> None:
        # Read by who waits; until then, there is no need to be told again.
        self._loop.remove_reader(self.inotify)
        self._changed.set()

    async def wait(self, seconds: float) -> set[str] | None:
        """Wait for a change, at most so many seconds; the names of the files, None for any."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return set()
        self._changed.clear()
        names = self.read()
        self._loop.add_reader(self.inotify, self._ready)
        return names

    def stop(self) -> None:
        """Its task is cancelled instead."""

    def close(self) -> None:
        """Give back what it took from the system."""
        if self.inotify >= 0:
            self._loop.remove_reader(self.inotify)
        super().close()

    def abandon(self) -> None:
        """In the child of a fork, which shares the loop's selector: close the copy alone."""
        super().close()
