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

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import re
import stat
from fcntl import flock

from .._model import Grant, Holder, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import InvalidURL, SessionLost, StorageError, TenureError, Unavailable
from ..wires.changes import AsyncFileChanges, SyncFileChanges
from .base import Driver, Lost, Mutex

RECORD_BYTES_MAX = 512
WAITING_BYTES = 15
"""Behind the record stands a time in milliseconds: until then, somebody waits."""

WAITING_MS_MAX = 1000
"""A mark that lies farther ahead was made by another clock."""

MAKE_WAY_SECONDS = 0.002
"""How long a holder that was waited for keeps away. Waking a waiter takes a tenth of it."""

MAKE_WAY_MAX = 1024

DRAWS_MAX = 2000

_EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
_SHARED = fcntl.LOCK_SH | fcntl.LOCK_NB
_RECORD = re.compile(rb"(\d+) (\d+) ([^\n]*)\n")
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
    errno.EEXIST: "it is a file; the URL names a folder",
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
        self._inline = runtime.flavour != "asyncio"
        self._folder = os.path.join(url.path, file_name(namespace))
        self.owner = b""
        self.user = os.geteuid()
        self._sessions: set[str] = set()
        self._held: dict[str, _Attempt] = {}
        """By the id of the grant."""
        self._changes: list[SyncFileChanges | AsyncFileChanges] = []
        """Those that nobody waits with."""
        self._make_way: dict[str, float] = {}
        """Until when to keep away from a path that others wait for."""
        self._closed = False

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
        self._closed = True
        while self._held:
            self._held.popitem()[1].drop()
        self._forget_changes()

    def _forget_changes(self) -> None:
        while self._changes:
            self._changes.pop().close()

    def abandon(self) -> None:
        # Closing frees nothing as long as the parent has its copy; unlocking would.
        while self._held:
            os.close(self._held.popitem()[1].file)
        self._forget_changes()

    # -- the session is the process itself -------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        self.owner = owner.replace("\n", " ").encode()[: RECORD_BYTES_MAX - 64]
        session = self.runtime.unique()
        self._sessions.add(session)
        return session

    async def renew(self, session: str) -> None:
        for held in list(self._held.values()):
            if not await self.runtime.blocking(held.in_place):
                raise SessionLost(f"the lock file {held.path} was deleted or replaced")

    async def end(self, session: str) -> None:
        self._sessions.discard(session)
        for id, held in list(self._held.items()):
            if held.session == session and self._held.pop(id, None) is not None:
                held.drop()

    # -- the mutex ---------------------------------------------------------------------

    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        path = lock_path(self._folder, name)
        if path in self._make_way:
            # Our process is awake, and would win every race against those that must wake up.
            await self.runtime.sleep(self._make_way.pop(path, 0.0))
        attempt = _Attempt(self, session, path, shared)
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
        held = self._held.pop(grant.id, None)
        if held is not None:
            held.unlock()
            if held.waited_for:
                if len(self._make_way) >= MAKE_WAY_MAX:
                    self._make_way.clear()
                self._make_way[held.path] = self.runtime.now() + MAKE_WAY_SECONDS

    async def holder(self, name: str) -> Holder | None:
        path = lock_path(self._folder, name)
        return await self.runtime.blocking(lambda: _holder(path))

    # -- files ---------------------------------------------------------------------------

    def open_file(self, path: str) -> int:
        """Open the lock file, making it, and its folder, if there is none."""
        try:
            return os.open(path, _FLAGS, 0o600)
        except FileNotFoundError:
            self._make_folder()  # somebody cleaned up: the folder is ours to make again
        except OSError as error:
            raise _storage(error, path) from error
        try:
            return os.open(path, _FLAGS, 0o600)
        except OSError as error:
            raise _storage(error, path) from error


class _Attempt:
    """One acquire and what it locked: a file, until it is dropped or unlocked."""

    __slots__ = ("_driver", "_shared", "file", "path", "session", "waited_for")

    def __init__(self, driver: FileDriver, session: str, path: str, shared: bool) -> None:
        self._driver = driver
        self._shared = shared
        self.session = session
        self.path = path
        self.file = -1
        self.waited_for = False

    def lock(self) -> int | None:
        """Lock the file and draw a token; None if it is taken. Never waits."""
        while True:
            if self.file < 0:
                self.file = self._driver.open_file(self.path)
            try:
                flock(self.file, _SHARED if self._shared else _EXCLUSIVE)
                found = os.fstat(self.file)
                if found.st_uid != self._driver.user or not stat.S_ISREG(found.st_mode):
                    raise StorageError(self._unfit(found))
                if found.st_nlink:
                    return self._draw_shared() if self._shared else self._draw()
            except BlockingIOError:
                return None
            except OSError as error:
                raise _storage(error, self.path) from error
            self.drop()  # it was deleted or replaced before we had it: take the new one

    def _unfit(self, found: os.stat_result) -> str:
        if not stat.S_ISREG(found.st_mode):
            return f"{self.path}: not a plain file, so it cannot be a lock file"
        return (
            f"{self.path}: belongs to user {found.st_uid}, not to us (user {self._driver.user}); "
            "use a folder of your own"
        )

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
                raise _storage(error, self.path) from error
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
        waiting = found[RECORD_BYTES_MAX:]
        if waiting.isdigit():
            left = int(waiting) - self._driver.runtime.now() * 1000
            self.waited_for = 0 < left < WAITING_MS_MAX
        last, space, _ = found.partition(b" ")
        wall = self._driver.runtime.wall()
        # The clock's microseconds, so that tokens rise also if the file that had the last
        # one was deleted, damaged, or not yet on the disk when the machine crashed; or one
        # more than the last, so that they rise also if the clock was set back.
        token = int(wall * 1e6)
        if space and last.isdigit() and len(last) < 20:
            token = max(token, int(last) + 1)
        os.pwrite(self.file, b"%d %d %b\n" % (token, wall, self._driver.owner), 0)
        return token

    def _draw_shared(self) -> int:
        # Readers draw at the same time, so another lock puts them in order. Whoever has
        # it needs microseconds, unless it was stopped right there.
        guard = self._driver.open_file(self.path + ".draw")
        try:
            for _ in range(DRAWS_MAX):
                try:
                    flock(guard, _EXCLUSIVE)
                    return self._draw()
                except BlockingIOError:
                    os.sched_yield()
        finally:
            os.close(guard)
        raise Unavailable(f"{self.path}: a stopped process is drawing its token")

    def unlock(self) -> None:
        """Unlock the file, then close it: that is what wakes those who watch it."""
        flock(self.file, fcntl.LOCK_UN)
        self.drop()

    def drop(self) -> None:
        """Close the file, and so unlock it."""
        file, self.file = self.file, -1
        if file >= 0:
            os.close(file)


@functools.lru_cache(maxsize=1024)
def lock_path(folder: str, name: str) -> str:
    """The path of a name's lock file."""
    return os.path.join(folder, file_name(name) + ".lock")


def file_name(name: str) -> str:
    """A file name that is this name's alone, on any file system.

    A plain one stays as it is; any other gets a readable start and a hash.
    """
    if _PLAIN.fullmatch(name):
        return name
    start = re.sub(r"[^a-z0-9_-]+", "_", name[:40].lower(), flags=re.ASCII)
    return f"{start}~{hashlib.sha256(name.encode()).hexdigest()[:40]}"


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
