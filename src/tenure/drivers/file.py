"""Coordination between the processes of one machine, on files: `file:///var/lock/app`.

A lock is the kernel's: `flock` on one file per name. It goes the moment that its
holder's process dies, needs no renewal, and survives a pause of any length. The file
stays; it holds the last token, the time and the holder, for the next holder and for
a curious operator. Rosters and records are documents, each in a file of its own, and
a claim is as alive as the process that keeps its session's file locked.

Facts that shape this file: the child of a fork shares its parent's lock, so the
child closes its copy at once, and never unlocks. A file that was deleted or replaced
lets two processes lock two different files, so the name is compared with what was
locked. A symbolic link, or a file of an unusual kind or owner, is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Sequence
from fcntl import flock

from .._model import Finding, Grant, Holder, Taken, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import InvalidURL, SessionLost, Unavailable
from ..wires.changes import AsyncFileChanges, SyncFileChanges
from ._file_holders import RECORD_BYTES_MAX, WAITING_BYTES, holder, taken, waited_for
from ._file_names import (
    MAKE,
    check_fit,
    file_name,
    lock_file,
    storage_error,
)
from ._file_rosters import FileRosters
from .base import Lost, Mutex

__all__ = ["FileDriver", "file_name"]

OWNER_BYTES_MAX = 200

MAKE_WAY_SECONDS = 0.002
"""How long a holder that was waited for keeps away. Waking a waiter takes a tenth of it."""

MAKE_WAY_MAX = 1024

DRAWS_MAX = 2000

_EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
_SHARED = fcntl.LOCK_SH | fcntl.LOCK_NB


class FileDriver(FileRosters, Mutex):
    """The native mutex over `flock`, and the document rung over files."""

    traits = Traits(
        scope="processes",
        shared=True,
        fair=False,
        frees_on_death=True,
        durable_claims=True,
        expires=False,
        poll=0.05,
        server=False,
    )

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        url.check_options(())
        if url.hosts or url.username is not None or not url.path.strip("/"):
            raise InvalidURL("file: the URL is file:///directory, with three slashes")
        self.mutex = self
        self._keep_in(os.path.join(url.path, file_name(namespace)))
        self.owner = b""
        self._held: dict[str, _Attempt] = {}
        """By the id of the grant."""
        self.attempts: set[_Attempt] = set()
        """Those that may have a file open: what is held, and what is being taken."""
        self._changes: list[SyncFileChanges | AsyncFileChanges] = []
        """Those that nobody waits with."""
        self._make_way: dict[str, float] = {}
        """Until when to keep away from a path that others wait for."""
        self._closed = False

    async def open(self) -> None:
        await self.runtime.blocking(self._make_folder)

    async def examine(self) -> Sequence[Finding]:
        # Imported by whoever asks: it brings in what starts processes.
        from ._file_examine import examine

        return await self.runtime.blocking(lambda: examine(self._folder, self.user, self.patience))

    async def close(self) -> None:
        self._closed = True
        while self._held:
            self._held.popitem()[1].drop()
        self._forget_changes()
        self._sessions.abandon()
        await self._ear.close()

    def _forget_changes(self) -> None:
        while self._changes:
            self._changes.pop().close()

    def abandon(self) -> None:
        # Closing frees nothing as long as the parent has its copy; unlocking would.
        # Also the copies of what other threads were just taking, which may be locked by now.
        self._held.clear()
        while self.attempts:
            self.attempts.pop().abandon()
        self._forget_changes()
        self._sessions.abandon()
        self._ear.abandon()

    async def start(self, owner: str, lost: Lost) -> str:
        session = await super().start(owner, lost)
        self.owner = self._owner.encode()[:OWNER_BYTES_MAX]
        return session

    async def renew(self, session: str) -> None:
        for held in list(self._held.values()):
            if not await self.runtime.blocking(held.in_place):
                raise SessionLost(f"the lock file {held.path} was deleted or replaced")
        await super().renew(session)

    def _free(self, session: str) -> None:
        for id, held in list(self._held.items()):
            if held.session == session and self._held.pop(id, None) is not None:
                held.drop()

    # -- the mutex ---------------------------------------------------------------------

    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        path, line = lock_file(self._folder, name)
        if path in self._make_way:
            # Our process is awake, and would win every race against those that must wake up.
            await self.runtime.sleep(self._make_way.pop(path, 0.0))
        attempt = _Attempt(self, session, path, line, shared)
        try:
            if until is None:
                token = attempt.lock() if self._inline else await self._elsewhere(attempt)
            else:
                token = await self._waited(attempt, until)
            if token is not None:
                self._held[id] = attempt
                return Grant(name, id, token, None)
        except BaseException:
            attempt.drop()
            raise
        attempt.drop()
        return None

    async def _elsewhere(self, attempt: _Attempt) -> int | None:
        """Lock on another thread, to the end even if we are cancelled meanwhile."""
        return await self.runtime.finish(self.runtime.blocking(attempt.lock))

    async def _waited(self, attempt: _Attempt, until: float) -> int | None:
        runtime = self.runtime
        try:
            changes = self._changes.pop()
        except IndexError:
            changes = SyncFileChanges() if self._inline else AsyncFileChanges()
        try:
            changes.begin(attempt.path)
            while True:
                # Once more when the watch stands, so that no release falls in between.
                token = attempt.lock() if self._inline else await self._elsewhere(attempt)
                if attempt.session not in self._sessions:
                    raise SessionLost("the session was ended while it waited")
                left = until - runtime.now()
                if token is not None or left <= 0:
                    return token
                nap = self.traits.poll * (0.75 + runtime.random() / 2)
                attempt.wait_until(runtime.now() + nap)
                await changes.wait(min(nap, left))
        finally:
            changes.end()
            self._changes.append(changes)
            if self._closed:
                self._forget_changes()

    async def unseize(self, grant: Grant) -> None:
        held = self._held.get(grant.id)
        if held is not None:
            held.unlock()  # before it is forgotten: Ctrl-C may come in between
            self._held.pop(grant.id, None)
            if held.waited_for:
                if len(self._make_way) >= MAKE_WAY_MAX:
                    self._make_way.clear()
                self._make_way[held.path] = self.runtime.now() + MAKE_WAY_SECONDS

    async def holder(self, name: str) -> Holder | None:
        return await self._do(holder, lock_file(self._folder, name)[0])

    async def taken(self) -> Sequence[Taken]:
        return await self._do(taken, self._folder, self.runtime.now())

    # -- files ---------------------------------------------------------------------------

    def open_file(self, path: str) -> int:
        """Open the lock file, making it, and its folder, if there is none."""
        try:
            return os.open(path, MAKE, 0o600)
        except FileNotFoundError:
            self._make_folder()  # somebody cleaned up: the folder is ours to make again
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            return os.open(path, MAKE, 0o600)
        except OSError as error:
            raise storage_error(error, path) from error


class _Attempt:
    """One acquire and what it locked: a file, until it is dropped or unlocked."""

    __slots__ = (
        *("_driver", "_guard", "_line", "_shared"),
        *("file", "path", "session", "waited_for"),
    )

    def __init__(
        self, driver: FileDriver, session: str, path: str, line: bytes, shared: bool
    ) -> None:
        self._driver = driver
        self._line = line
        self._shared = shared
        self.session = session
        self.path = path
        self.file = -1
        self._guard = -1
        self.waited_for = False

    def lock(self) -> int | None:
        """Lock the file and draw a token; None if it is taken. Never waits."""
        while True:
            if self.file < 0:
                # Known before it is open, so that the child of a fork closes its copy.
                self._driver.attempts.add(self)
                self.file = self._driver.open_file(self.path)
            try:
                flock(self.file, _SHARED if self._shared else _EXCLUSIVE)
                found = os.fstat(self.file)
                if found.st_uid != self._driver.user or not stat.S_ISREG(found.st_mode):
                    check_fit(self.path, found, self._driver.user, "a lock file")
                if found.st_nlink:
                    return self._draw_shared() if self._shared else self._draw()
            except BlockingIOError:
                return None
            except OSError as error:
                raise storage_error(error, self.path) from error
            self.drop()  # it was deleted or replaced before we had it: take the new one

    def in_place(self) -> bool:
        """Say whether the path still names the file that is locked."""
        file = self.file
        try:
            there = os.stat(self.path, follow_symlinks=False)
            same = file < 0 or os.path.samestat(there, os.fstat(file))
        except (FileNotFoundError, NotADirectoryError):
            same = False
        except OSError as error:
            if self.file >= 0:
                raise storage_error(error, self.path) from error
            same = True
        # Released meanwhile on another thread: then the descriptor may be another file's.
        return same or self.file < 0

    def wait_until(self, time: float) -> None:
        """Tell the holders that somebody waits. A hint: whatever fails here costs nothing."""
        with contextlib.suppress(OSError):
            os.pwrite(self.file, b"%0*d" % (WAITING_BYTES, time * 1000), RECORD_BYTES_MAX)

    def _draw(self) -> int:
        """The next token, on record in the file before anybody sees it."""
        found = os.pread(self.file, RECORD_BYTES_MAX + WAITING_BYTES, 0)
        if len(found) > RECORD_BYTES_MAX:
            self.waited_for = waited_for(found, self._driver.runtime.now())
        last, space, _ = found.partition(b" ")
        wall = self._driver.runtime.wall()
        # The clock's microseconds, so that tokens rise also if the file that had the last
        # one was deleted, damaged, or not yet on the disk when the machine crashed; or one
        # more than the last, so that they rise also if the clock was set back.
        token = int(wall * 1e6)
        if space and last.isdigit() and len(last) < 20:
            token = max(token, int(last) + 1)
        record = b"%d %d %b\n%b" % (token, wall, self._driver.owner, self._line)
        os.pwrite(self.file, record, 0)
        return token

    def _draw_shared(self) -> int:
        # Readers draw at the same time, so another lock puts them in order. Whoever has
        # it needs microseconds, unless it was stopped right there.
        self._guard = guard = self._driver.open_file(self.path + ".draw")
        try:
            for _ in range(DRAWS_MAX):
                try:
                    flock(guard, _EXCLUSIVE)
                    return self._draw()
                except BlockingIOError:
                    os.sched_yield()
        finally:
            guard, self._guard = self._guard, -1
            if guard >= 0:
                # Not by closing alone: a child that is forked right now keeps a copy.
                flock(guard, fcntl.LOCK_UN)
                os.close(guard)
        raise Unavailable(f"{self.path}: a stopped process is drawing its token")

    def unlock(self) -> None:
        """Unlock the file, then close it: that is what wakes those who watch it."""
        if self.file >= 0:
            flock(self.file, fcntl.LOCK_UN)
        self.drop()

    def drop(self) -> None:
        """Close the file, and so unlock it."""
        file, self.file = self.file, -1
        self._driver.attempts.discard(self)
        if file >= 0:
            os.close(file)

    def abandon(self) -> None:
        """In the child of a fork: close the copies, and unlock nothing."""
        self.drop()
        guard, self._guard = self._guard, -1
        if guard >= 0:
            os.close(guard)
