"""Sessions in files: one that its process keeps locked for as long as it lives.

The kernel unlocks the file when the process dies, however it dies, and not when it is
stopped. Only a session that enters a claim gets a file: nobody else can come across it,
and locks need none. Whoever finds a dead session's file removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection

from .._runtime.base import Runtime
from ..errors import SessionLost, StorageError, Unavailable
from ._file_names import (
    MAKE,
    NEW_SUFFIX,
    READ,
    check_fit,
    file_name,
    in_place,
    make_folder,
    remove,
    remove_old,
    storage_error,
)

SWEEP_MAX = 16
"""How many files of others one looks at when one makes a file of one's own."""

TRIES = 10
OWNER_BYTES_MAX = 400
"""Of the owner's name, in the file's first line."""

_KIND = "a session"
_without_file: set[str] = set()
"""The sessions of this process that live and have no file; only here can they be known."""


class Sessions:
    """The sessions of one namespace, and which of them are ours. Every method may block."""

    def __init__(self, folder: str, user: int, runtime: Runtime) -> None:
        self.folder = os.path.join(folder, "sessions")
        self._above = folder
        self._user = user
        self._runtime = runtime
        self._lock = runtime.lock()
        self._ours: dict[str, int] = {}
        """The locked file of each session of ours; -1 as long as it has none."""
        self._named: set[str] = set()
        """Those whose file others can find."""

    def __contains__(self, session: str) -> bool:
        return session in self._ours

    def shown(self, session: str) -> bool:
        """Say whether the session is ours and has a file that others can find."""
        return session in self._named

    def file(self, session: str) -> int:
        """The session's open file; negative if it has none, or is over."""
        return self._ours.get(session, -1)

    def begin(self, session: str) -> None:
        """The session is ours from now on."""
        self._ours[session] = -1
        _without_file.add(session)

    def show(self, session: str, owner: str) -> None:
        """Make the session's file, if it has none; `SessionLost` if the session is over."""
        with self._lock:
            if session not in self._ours:
                raise SessionLost("the session was ended")
            if self.shown(session):
                return
            self._make(session, owner)
        self._sweep()

    def _make(self, session: str, owner: str) -> None:
        path = self._path(session)
        try:
            for _ in range(TRIES):
                beside = f"{path}.{self._runtime.unique()}{NEW_SUFFIX}"
                # Known at once, so that the child of a fork closes its copy.
                self._ours[session] = file = self._open(beside)
                kept = False
                try:
                    # Locked before anybody can find it: a session's file that is not locked
                    # has lost its owner, for ever.
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    told = owner.encode(errors="replace")[:OWNER_BYTES_MAX]
                    os.pwrite(file, b"%d %b\n" % (self._runtime.wall(), told), 0)
                    os.rename(beside, path)
                    kept = True
                    self._named.add(session)
                    _without_file.discard(session)
                    return
                except FileNotFoundError:
                    continue  # it was swept away, or the whole folder was
                finally:
                    if not kept:
                        self._ours[session] = -1
                        os.close(file)
                        remove(beside)
        except StorageError:
            raise
        except OSError as error:
            raise storage_error(error, path, _KIND) from error
        raise Unavailable(f"{path}: removed as soon as it was made, {TRIES} times")

    def _open(self, path: str) -> int:
        try:
            return os.open(path, MAKE | os.O_EXCL, 0o600)
        except FileNotFoundError:
            make_folder(self._above)
            make_folder(self.folder)
        return os.open(path, MAKE | os.O_EXCL, 0o600)

    def _sweep(self) -> None:
        """Remove what dead sessions have left, a few at a time."""
        try:
            files = os.listdir(self.folder)
        except OSError:
            return
        first = int(self._runtime.random() * len(files))
        own = {file_name(session) for session in list(self._ours)}
        for file in (files[first:] + files[:first])[:SWEEP_MAX]:
            path = os.path.join(self.folder, file)
            if file.endswith(NEW_SUFFIX):
                remove_old(path, self._runtime.wall())
            elif file not in own:
                self._lives(path, told=False)

    def in_place(self, session: str) -> bool:
        """Say whether the session is ours and its file, if it has one, is where it was made."""
        path, file = self._path(session), self._ours.get(session)
        try:
            return file is not None and (file < 0 or in_place(path, file))
        except OSError as error:
            raise storage_error(error, path, _KIND) from error

    def living(self, sessions: Collection[str]) -> set[str]:
        """Those of the sessions, of whomever, that live; the files of the others are removed."""
        known = {each for each in sessions if each in self._ours or each in _without_file}
        return known | {each for each in {*sessions} - known if self._lives(self._path(each))}

    def _lives(self, path: str, told: bool = True) -> bool:
        """Say whether the file is locked; what cannot be found out is told, or counts as yes."""
        try:
            file = os.open(path, READ)
        except FileNotFoundError:
            return False
        except OSError as error:
            if told:
                raise storage_error(error, path, _KIND) from error
            return True
        try:
            check_fit(path, os.fstat(file), self._user, _KIND)
            # Shared, so that one who looks and is stopped there is not taken for the owner.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            remove(path)  # nobody will ever make a file of this name again
        except BlockingIOError:
            return True
        except OSError as error:
            if not told:
                return True
            if isinstance(error, StorageError):
                raise
            raise storage_error(error, path, _KIND) from error
        finally:
            os.close(file)
        return False

    def end(self, session: str) -> None:
        """The session is over, and its file goes."""
        with self._lock:
            file = self._ours.pop(session, -1)
            self._named.discard(session)
            _without_file.discard(session)
            if file < 0:
                return
            path = self._path(session)
            with contextlib.suppress(OSError):
                if in_place(path, file):
                    remove(path)
                fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)  # this is what others hear

    def abandon(self) -> None:
        """In the child of a fork: close the copies, and leave the parent's files locked."""
        self._named.clear()
        while self._ours:
            session, file = self._ours.popitem()
            _without_file.discard(session)
            if file >= 0:
                os.close(file)

    def _path(self, session: str) -> str:
        return os.path.join(self.folder, file_name(session))
