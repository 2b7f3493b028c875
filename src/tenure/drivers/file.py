"""Locks between the processes of one machine, on files: `file:///var/lock/app`.

The lock is the kernel's: `flock` on one file per name. It goes the moment that its
holder's process dies, needs no renewal, and survives a pause of any length. The file
stays; it holds the last token, the time and the holder, for the next holder and for
a curious operator.

Facts that shape this file: the child of a fork shares its parent's lock, so the
child closes its copy at once, and never unlocks. A file that was deleted or replaced
lets two processes lock two different files, so the name is compared with what was
locked. A symbolic link, or a file of an unusual kind or owner, is refused.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat

from .._model import Grant, Holder, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import InvalidURL, SessionLost, StorageError, TenureError, Unavailable
from ..wires.changes import AsyncFileChanges, SyncFileChanges
from .base import Driver, Lost, Mutex

IDLE_FILES_MAX = 64
"""How many unlocked files are kept open for the next acquire of the same name."""

RECORD_BYTES_MAX = 512
DRAWS_MAX = 2000

_RECORD = re.compile(rb"(\d{1,19}) (\d{1,12}\.\d{3}) ([^\n]*)\n")
_PLAIN = re.compile(r"[a-z0-9_-](?:[a-z0-9_.-]{0,98}[a-z0-9_-])?", re.ASCII)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_HINTS = {
    errno.ELOOP: "it is a symbolic link; a lock file must be a plain file",
    errno.EACCES: "it belongs to another user, or its folder does; use a folder of your own",
    errno.EPERM: "it belongs to another user, or its folder does; use a folder of your own",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only; name another folder in the URL",
    errno.EMFILE: "too many open files: each held lock needs one; raise `ulimit -n`",
    errno.ENFILE: "the system has too many open files",
    errno.ENOLCK: "the file system has no working locks (NFS?); use a local folder",
    errno.EISDIR: "it is a directory; a lock file must be a plain file",
    errno.ENOTDIR: "a part of the path is not a directory",
}


class FileDriver(Driver, Mutex):
    """The native mutex over `flock`."""

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
        self._folder = os.path.join(url.path, file_name(namespace))
        self._owner = b""
        self._held: dict[str, _Attempt] = {}
        """By the id of the grant."""
        self._idle: dict[str, int] = {}
        """Open, unlocked files by path."""

    async def open(self) -> None:
        await self.runtime.blocking(self._make_folder)

    def _make_folder(self) -> None:
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise _storage(error, self._folder) from error
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise StorageError(f"{self._folder}: not writable; name another folder in the URL")

    async def close(self) -> None:
        while self._held:
            self._held.popitem()[1].drop()
        while self._idle:
            os.close(self._idle.popitem()[1])

    def abandon(self) -> None:
        # Closing frees nothing as long as the parent has its copy; unlocking would.
        for file in [*(held.file for held in self._held.values()), *self._idle.values()]:
            os.close(file)
        self._held.clear()
        self._idle.clear()

    # -- the session is the process itself -------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        self._owner = owner.replace("\n", " ").encode()[: RECORD_BYTES_MAX - 64]
        return self.runtime.unique()

    async def renew(self, session: str) -> None:
        for held in list(self._held.values()):
            if not await self.runtime.blocking(held.in_place):
                raise SessionLost(f"the lock file {held.path} was deleted or replaced")

    async def end(self, session: str) -> None:
        for id, held in list(self._held.items()):
            if held.session == session and self._held.pop(id, None) is not None:
                held.drop()

    # -- the mutex ---------------------------------------------------------------------

    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        path = os.path.join(self._folder, file_name(name) + ".lock")
        attempt = _Attempt(self, session, path, shared)
        try:
            token = await self._tried(attempt)
            if token is None and until is not None:
                token = await self._waited(attempt, until)
        except BaseException:
            attempt.drop()
            raise
        if token is None:
            attempt.drop()
            return None
        self._held[id] = attempt
        return Grant(name, id, token, attempt)

    async def _tried(self, attempt: _Attempt) -> int | None:
        if self.runtime.flavour == "thread":
            return attempt.lock()
        return await self.runtime.finish(self.runtime.blocking(attempt.lock))

    async def _waited(self, attempt: _Attempt, until: float) -> int | None:
        runtime = self.runtime
        changes = (AsyncFileChanges if runtime.flavour == "asyncio" else SyncFileChanges)(
            attempt.path
        )
        try:
            while True:
                # Tried again once the watch stands, so that no release falls in between.
                token = await self._tried(attempt)
                left = until - runtime.now()
                if token is not None or left <= 0:
                    return token
                nap = self.traits.poll * (0.75 + runtime.random() / 2)
                await changes.wait(min(nap, left))
        finally:
            changes.close()

    async def unseize(self, grant: Grant) -> None:
        held = self._held.pop(grant.id, None)
        if held is not None:
            held.unlock()

    async def holder(self, name: str) -> Holder | None:
        path = os.path.join(self._folder, file_name(name) + ".lock")
        return await self.runtime.blocking(lambda: _holder(path))

    # -- files ---------------------------------------------------------------------------

    def take_file(self, path: str) -> int:
        """An open file for the path; one that was kept, if there is one."""
        file = self._idle.pop(path, -1)
        if file >= 0:
            return file
        try:
            return _open(path)
        except FileNotFoundError:
            self._make_folder()  # somebody cleaned up: the folder is ours to make again
        except OSError as error:
            raise _storage(error, path) from error
        try:
            return _open(path)
        except OSError as error:
            raise _storage(error, path) from error

    def keep_file(self, path: str, file: int) -> None:
        """Keep an unlocked file for the next acquire, or close it."""
        if len(self._idle) >= IDLE_FILES_MAX or self._idle.setdefault(path, file) != file:
            os.close(file)

    def record(self, token: int | None) -> bytes:
        """What the holder writes into its file: token, time, owner."""
        wall = self.runtime.wall()
        # A new or damaged file begins at the clock's microseconds, so that tokens rise
        # even if somebody deleted the file that had the last one.
        number = int(wall * 1e6) if token is None else token
        return b"%d %.3f %b\n" % (number, wall, self._owner)


class _Attempt:
    """One acquire and what it locked: a file, until it is dropped or unlocked."""

    __slots__ = ("_driver", "_shared", "file", "path", "session")

    def __init__(self, driver: FileDriver, session: str, path: str, shared: bool) -> None:
        self._driver = driver
        self._shared = shared
        self.session = session
        self.path = path
        self.file = -1

    def lock(self) -> int | None:
        """Lock the file and draw a token; None if it is taken. Never waits."""
        mode = (fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
        while True:
            if self.file < 0:
                self.file = self._driver.take_file(self.path)
            try:
                fcntl.flock(self.file, mode)
                if self.in_place():
                    return self._draw_shared() if self._shared else self._draw()
            except BlockingIOError:
                return None
            except OSError as error:
                raise _storage(error, self.path) from error
            self.drop()  # it was deleted or replaced before we had it: take the new one

    def in_place(self) -> bool:
        """Say whether the path still names the file that is locked."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self.file))

    def _draw(self) -> int:
        """The next token, on record in the file before anybody sees it."""
        last = _RECORD.match(os.pread(self.file, RECORD_BYTES_MAX, 0))
        record = self._driver.record(int(last[1]) + 1 if last else None)
        os.pwrite(self.file, record, 0)
        return int(record[: record.index(b" ")])

    def _draw_shared(self) -> int:
        # Readers draw at the same time, so another lock puts them in order. Whoever has
        # it needs microseconds, unless it was stopped right there.
        guard = self._driver.take_file(self.path + ".draw")
        try:
            for _ in range(DRAWS_MAX):
                try:
                    fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return self._draw()
                except BlockingIOError:
                    os.sched_yield()
        finally:
            os.close(guard)
        raise Unavailable(f"{self.path}: a stopped process is drawing its token")

    def unlock(self) -> None:
        """Unlock the file, and let those who watch it know."""
        fcntl.flock(self.file, fcntl.LOCK_UN)
        os.pread(self.file, 1, 0)
        self._driver.keep_file(self.path, self.file)

    def drop(self) -> None:
        """Close the file, and so unlock it."""
        file, self.file = self.file, -1
        if file >= 0:
            os.close(file)


def file_name(name: str) -> str:
    """A file name that is this name's alone, on any file system.

    A plain one stays as it is; any other gets a readable start and a hash.
    """
    if _PLAIN.fullmatch(name):
        return name
    start = re.sub(r"[^a-z0-9_-]+", "_", name[:40].lower(), flags=re.ASCII)
    return f"{start}~{hashlib.sha256(name.encode()).hexdigest()[:40]}"


def _open(path: str) -> int:
    file = os.open(path, _FLAGS, 0o600)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(f"{path}: not a plain file, so it cannot be a lock file")
        if found.st_uid != os.geteuid():
            raise StorageError(
                f"{path}: belongs to user {found.st_uid}, not to us (user {os.geteuid()}); "
                "use a folder of your own"
            )
    except BaseException:
        os.close(file)
        raise
    return file


def _holder(path: str) -> Holder | None:
    """Read who holds the lock, without touching it: a probe could turn others away."""
    try:
        with open(path, "rb") as file:
            record = _RECORD.match(file.read(RECORD_BYTES_MAX))
            inode = os.fstat(file.fileno()).st_ino
    except OSError:
        return None
    try:
        with open("/proc/locks", encoding="ascii") as table:
            if not any(f":{inode} " in line and "FLOCK" in line for line in table):
                return None
    except OSError:
        pass  # no such table here: the record is all there is
    if record is None:
        return Holder("unknown")
    return Holder(record[3].decode(errors="replace"), int(record[1]), float(record[2]))


def _storage(error: OSError, path: str) -> TenureError:
    if isinstance(error, TenureError):
        return error
    hint = _HINTS.get(error.errno or 0, os.strerror(error.errno or 0))
    return StorageError(f"{path}: {hint}")
