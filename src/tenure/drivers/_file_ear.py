"""Wake-ups from folders of files: one job for each driver, begun when somebody first listens."""

from __future__ import annotations

import functools
import os

from .._model import Interest
from .._runtime.base import Job, Runtime
from ..errors import TenureError, Unavailable
from ..wires.changes import AsyncFolderChanges, SyncFolderChanges
from ._file_documents import document_path, kind_folder
from ._file_names import make_folder
from .base import Wake

_KINDS = ("roster", "record")
_SLICE_SECONDS = 60.0


class Ear:
    """Hears of new rosters and records, and of sessions that ended, and calls the wakes.

    Where the system tells nothing, it looks every `poll` seconds.
    """

    def __init__(self, runtime: Runtime, folder: str, poll: float) -> None:
        self._runtime = runtime
        self._folder = folder
        self._poll = poll
        self._wakes: dict[str, dict[str, Wake]] = {}
        """By the name of the document's file, and by the id of the interest."""
        self._lock = runtime.lock()
        self._starting = runtime.mutex()
        self._changes: SyncFolderChanges | AsyncFolderChanges | None = None
        self._job: Job | None = None
        self._closed = False
        self._looked: dict[str, tuple[object, ...]] = {}

    async def listen(self, interest: Interest, wake: Wake) -> None:
        """Call `wake` for what changes from now on."""
        with self._lock:
            self._wakes.setdefault(self._file(interest), {})[interest.id] = wake
        try:
            if self._job is None:
                await self._runtime.finish(self._start())
        except BaseException:
            self.unlisten(interest)
            raise

    def unlisten(self, interest: Interest) -> None:
        file = self._file(interest)
        with self._lock:
            wakes = self._wakes.get(file, {})
            wakes.pop(interest.id, None)
            if not wakes:
                self._wakes.pop(file, None)

    async def close(self) -> None:
        self._closed = True
        async with self._starting:  # one that is being started is ended, too
            changes, job = self._changes, self._job
        if changes is None:
            return
        changes.stop()
        if job is not None:
            job.cancel()
            if not await job.join(self._runtime.now() + self._poll + 1.0):
                return  # it still uses them
        changes.close()

    def abandon(self) -> None:
        """In the child of a fork: close the copies, and let the parent's go on."""
        if self._changes is not None:
            self._changes.abandon()

    def _file(self, interest: Interest) -> str:
        return os.path.basename(document_path(self._folder, "roster", interest.roster))

    async def _start(self) -> None:
        async with self._starting:
            if self._job is not None or self._closed:
                return
            inline = self._runtime.flavour != "asyncio"
            try:
                changes = SyncFolderChanges() if inline else AsyncFolderChanges()
            except OSError as error:
                raise Unavailable(f"{self._folder}: cannot be watched: {error}") from error
            self._changes = changes
            await self._runtime.blocking(functools.partial(self._watch, changes))
            self._job = self._runtime.spawn(functools.partial(self._run, changes), "file-listener")

    def _watch(self, changes: SyncFolderChanges | AsyncFolderChanges) -> None:
        if changes.inotify < 0:
            return
        try:
            make_folder(self._folder)
            for kind in (*_KINDS, "session"):
                make_folder(kind_folder(self._folder, kind))
        except TenureError:
            pass  # then nothing is told, and looking will do
        folders = [kind_folder(self._folder, kind) for kind in _KINDS]
        changes.begin(folders, kind_folder(self._folder, "session"))

    async def _run(self, changes: SyncFolderChanges | AsyncFolderChanges) -> None:
        while True:
            files = await changes.wait(self._poll if changes.blind else _SLICE_SECONDS)
            if self._closed:
                return
            if changes.blind:
                await self._runtime.blocking(functools.partial(self._watch, changes))
                self._wake(await self._runtime.blocking(self._look))
            self._wake(files)

    def _wake(self, files: set[str] | None) -> None:
        with self._lock:
            heard = self._wakes.keys() if files is None else files & self._wakes.keys()
            wakes = [wake for file in heard for wake in self._wakes[file].values()]
        for wake in wakes:
            wake()

    def _look(self) -> set[str]:
        """The files that are others than at the last look."""
        with self._lock:
            files = list(self._wakes)
        looked = {file: self._signature(file) for file in files}
        changed = {file for file in files if looked[file] != self._looked.get(file)}
        self._looked = looked
        return changed

    def _signature(self, file: str) -> tuple[object, ...]:
        signature: list[object] = []
        for kind in _KINDS:
            try:
                found = os.stat(os.path.join(kind_folder(self._folder, kind), file))
                signature += found.st_ino, found.st_mtime_ns
            except OSError:
                signature.append(None)
        return tuple(signature)
