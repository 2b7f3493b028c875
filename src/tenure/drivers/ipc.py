"""Coordination between the processes of one machine, in memory: `ipc://app`.

A lock is a System V semaphore. Whoever waits for it sleeps in the kernel, and is handed the
lock by the release itself; when a holder's process dies, the kernel takes back what it did
(`SEM_UNDO`). Rosters, records and sessions are the file driver's, in a folder in /dev/shm.

Facts that shape this driver: the kernel takes back what a *process* did, so nothing depends on
threads; the child of a fork inherits nothing of that, and an `exec` keeps it. A wait in
the kernel cannot be cancelled, so it is cut into slices. With asyncio each waiter sleeps on a
thread of its own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Sequence

from .._model import Finding, Grant, Holder, Taken, Traits
from .._runtime.base import Runtime
from .._url import Url
from ..errors import InvalidURL, SessionLost, StorageError
from ..wires import sysv
from ..wires.sysv import Call, SetGone
from . import _ipc_holdings
from ._file_names import NEW_SUFFIX, READ, file_name, make_folder, remove, storage_error
from ._file_rosters import FileRosters
from ._ipc_attempt import Attempt
from ._ipc_holdings import Holding, Holdings
from ._ipc_sets import SWEEP_BYTES, Sets
from .base import Mutex

__all__ = ["IpcDriver"]

MEMORY = "/dev/shm"  # noqa: S108 - the folder in it is the user's own, which is made sure of


class IpcDriver(FileRosters, Mutex):
    """The native mutex over semaphores, and the document rung over files in memory."""

    traits = Traits(
        scope="processes",
        shared=True,
        fair=False,
        frees_on_death=True,
        durable_tokens=False,
        expires=False,
        poll=0.05,
        server=False,
    )

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        url.check_options(())
        named = len(url.hosts) == 1 and not url.hosts[0].port
        if not named or url.username is not None or url.path.strip("/"):
            raise InvalidURL("ipc: the URL is ipc://name, where the name is one of your choice")
        self.mutex = self
        self._top = own_folder(self.user)
        app = os.path.join(self._top, file_name(url.hosts[0].name))
        self._keep_in(os.path.join(app, file_name(namespace)))
        self._sets = Sets(self._folder, self.user, runtime)
        self._held: dict[str, Attempt] = {}
        """By the id of the grant."""
        self._holdings: dict[str, Holdings] = {}
        """By the session."""
        self._calls: list[Call] = []
        """Those that nobody uses now."""
        self._zero = 0
        self._mapping = runtime.lock()
        self._wait = sysv.here if self._inline else sysv.elsewhere

    async def open(self) -> None:
        await self._do(self._open)

    def _open(self) -> None:
        if not os.path.isdir(MEMORY):
            raise StorageError(f"{MEMORY}: there is no such folder; the ipc driver is for Linux")
        make_folder(self._top)
        found = os.stat(self._top, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self.user or found.st_mode & 0o077:
            raise StorageError(
                f"{self._top}: not a folder that we alone (user {self.user}) can enter; "
                "remove it, or ask its owner to"
            )
        self._make_folder()
        self._zero = zero(self._folder, self.runtime)
        self._sets.sweep(SWEEP_BYTES)

    async def close(self) -> None:
        while self._held:
            self._held.popitem()[1].drop()
        self._sets.close()
        self._unmap()
        self._sessions.abandon()
        await self._ear.close()

    def abandon(self) -> None:
        # What the kernel would take back is the parent's: here, there is nothing to undo.
        self._held.clear()
        self._sets.abandon()
        self._unmap()
        self._sessions.abandon()
        self._ear.abandon()

    def _unmap(self) -> None:
        while self._holdings:
            self._holdings.popitem()[1].close()

    async def examine(self) -> Sequence[Finding]:
        from ._ipc_examine import examine

        return await self._do(examine, self._top, self.user)

    async def renew(self, session: str) -> None:
        for id, held in list(self._held.items()):
            if not held.in_place() and self._held.get(id) is held:  # else it was released now
                raise SessionLost(f"the semaphores of {held.place.name} were removed or changed")
        await super().renew(session)

    def _free(self, session: str) -> None:
        for id, held in list(self._held.items()):
            if held.session == session and self._held.pop(id, None) is not None:
                self._calls.append(held.drop())
        holdings = self._holdings.pop(session, None)
        if holdings is not None:
            holdings.close()

    # -- the mutex ---------------------------------------------------------------------

    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        if session not in self._holdings:
            await self.runtime.finish(self._do(self._show, session))
        attempt = Attempt(
            self._sets,
            self._calls.pop() if self._calls else Call(),
            self._clock,
            self.runtime,
            self._sets.enter(name),
            session,
            shared,
            self._sessions.__contains__,
        )
        try:
            if until is None:
                done = attempt.now()
            else:
                done = await self._wait(functools.partial(attempt.wait, until), attempt.stop)
            if done:
                self._record(attempt)
                self._held[id] = attempt
                if session not in self._sessions:  # whoever ended it may have looked too early
                    raise SessionLost("the session was ended meanwhile")
                return Grant(name, id, attempt.token, None)
        except BaseException:
            if self._held.pop(id, attempt) is attempt:
                attempt.drop()
            raise
        self._calls.append(attempt.drop())
        return None

    def _record(self, attempt: Attempt) -> None:
        holdings = self._holdings.get(attempt.session)
        if holdings is not None:
            tail, token, wall = attempt.place.tail, attempt.token, self.runtime.wall()
            attempt.record = holdings.add(tail, token, wall, attempt.shared)

    async def unseize(self, grant: Grant) -> None:
        held = self._held.pop(grant.id, None)
        if held is not None:
            holdings = self._holdings.get(held.session)
            if holdings is not None:
                holdings.clear(held.record)
            self._calls.append(held.drop())

    def _show(self, session: str) -> None:
        """Make the session's file, and map it for the records of what it holds."""
        self._sessions.show(session, self._owner)
        with self._mapping:
            if session not in self._holdings:
                file = self._sessions.file(session)
                if file < 0:
                    raise SessionLost("the session was ended")
                try:
                    self._holdings[session] = Holdings(file)
                except OSError as error:
                    raise storage_error(error, self._sessions.folder, "a session") from error

    def _clock(self) -> int:
        return self._zero + sysv.microseconds()

    async def holder(self, name: str) -> Holder | None:
        return await self._do(self._holder, name)

    def _holder(self, name: str) -> Holder | None:
        place = self._sets.look(name)
        try:
            if place is None or not (place.held(False) or place.held(True)):
                return None
        except SetGone:
            return None
        sign = _ipc_holdings.mark(name)
        for each in self._recorded():
            if each.mark == sign:
                return Holder(each.owner, each.token, each.since)
        return Holder("unknown")

    async def taken(self) -> Sequence[Taken]:
        return await self._do(self._taken)

    def _taken(self) -> Sequence[Taken]:
        found: dict[bytes, list[Holding]] = {}
        for each in self._recorded():
            found.setdefault(each.mark, []).append(each)
        taken = []
        for all in found.values():
            name = all[0].name
            holders = tuple(Holder(each.owner, each.token, each.since) for each in all)
            place = self._sets.look(name)  # of a shortened name there is none
            try:
                waiters = None if place is None else place.waiters()
            except SetGone:
                continue
            taken.append(Taken(name, holders, waiters, all[0].shared))
        return tuple(sorted(taken, key=lambda each: each.name or ""))

    def _recorded(self) -> list[Holding]:
        """What the sessions that live have written down."""
        folder = self._sessions.folder
        try:
            files = [each for each in os.listdir(folder) if not each.endswith(NEW_SUFFIX)]
        except OSError:
            return []
        living = self._sessions.living(files)
        return [
            each
            for file in sorted(living)
            for each in _ipc_holdings.read(os.path.join(folder, file))
        ]


def own_folder(user: int) -> str:
    """The user's folder in memory, one for each IPC namespace: those see other semaphores."""
    return f"{MEMORY}/tenure-{user}-{_space(os.getpid()):x}"


@functools.lru_cache(maxsize=1)
def _space(process: int) -> int:
    try:
        return os.stat("/proc/self/ns/ipc").st_ino
    except OSError:
        return 0


def zero(folder: str, runtime: Runtime) -> int:
    """What the clock showed, in microseconds, when the machine was started.

    Found out once and kept, so that tokens go on rising when the clock is set back.
    """
    path = os.path.join(folder, "clock")
    beside = f"{path}.{runtime.unique()}{NEW_SUFFIX}"
    try:
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):
                file = os.open(path, READ)
                try:
                    return int(os.read(file, 32))
                finally:
                    os.close(file)
            with open(beside, "x", encoding="ascii") as new:
                new.write(f"{int(runtime.wall() * 1e6) - sysv.microseconds()}\n")
            with contextlib.suppress(FileExistsError):  # somebody was faster, and is right
                os.link(beside, path)
            remove(beside)
    except ValueError as error:
        raise StorageError(f"{path}: damaged; delete it while nothing runs") from error
    except OSError as error:
        raise storage_error(error, path, "the clock's file") from error
    raise StorageError(f"{path}: removed as soon as it was made")
