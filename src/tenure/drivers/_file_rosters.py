"""Rosters, records and sessions in a folder: what the drivers of one machine have in common.

Their documents are files, and a claim is as alive as the process that keeps its session's
file locked. The locks themselves are the drivers' own.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any, ParamSpec, TypeVar

from .._model import Interest, Roll, Server
from .._runtime.base import Runtime
from .._url import Url
from ..errors import SessionLost, StorageError, Unavailable
from ._file_documents import Documents, document_path
from ._file_ear import Ear
from ._file_mounts import kind_of
from ._file_names import make_folder
from ._file_sessions import Sessions
from .base import Lost, Wake
from .document import Document, DocumentDriver

SAVE_PAUSE_SECONDS = 0.001
"""How long to keep away from a document that somebody else is saving."""

P = ParamSpec("P")
T = TypeVar("T")


class FileRosters(DocumentDriver):
    """The document rung over files. Who derives from it calls `_keep_in` when it is made."""

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self.user = os.geteuid()
        self._inline = runtime.flavour != "asyncio"
        self._owner = ""

    def _keep_in(self, folder: str) -> None:
        self._folder = folder
        self._sessions = Sessions(folder, self.user, self.runtime)
        self._documents = Documents(folder, self.user, self.runtime)
        self._ear = Ear(self.runtime, folder, self.traits.poll)

    def _make_folder(self) -> None:
        make_folder(self._folder)
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise StorageError(f"{self._folder}: not writable; name another folder in the URL")

    async def server(self) -> Server:
        """The kernel, whose locks these are; and the type of the folder's file system."""
        kernel = os.uname()
        kind = await self._do(kind_of, self._folder)
        return Server(kernel.sysname.lower(), kernel.release, kind)

    # -- the session is the process itself -------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        self._owner = owner.replace("\n", " ")
        session = self.runtime.unique()
        self._sessions.begin(session)
        return session

    async def renew(self, session: str) -> None:
        if not await self._do(self._sessions.in_place, session):
            raise SessionLost("the session was ended, or its file was deleted or replaced")

    async def end(self, session: str) -> None:
        try:
            await self.runtime.finish(self._do(self._sessions.end, session))
        finally:
            self._free(session)
        for roster in sorted(self._public.pop(session, ())):
            await self.census(roster)  # buries its claims there, and tells the watchers

    def _free(self, session: str) -> None:
        """Free what a session that has ended still had locked."""

    async def last_seen(self, session: str) -> float | None:
        return 0.0 if await self.living((session,)) else None

    async def living(self, sessions: Collection[str]) -> set[str]:
        if all(session in self._sessions for session in sessions):
            return set(sessions)
        return await self._do(self._sessions.living, sessions)

    # -- documents -------------------------------------------------------------------

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        if not self._sessions.shown(session):
            # To the end even if we are cancelled meanwhile: a file has to be closed again.
            await self.runtime.finish(self._do(self._sessions.show, session, self._owner))
        return await super().claim(session, roster, id, body, width, shared)

    async def load(self, kind: str, name: str) -> tuple[Document | None, Any]:
        if kind == "session":
            lives = name in self._sessions or await self.living((name,))
            return ({"owner": self._owner} if lives else None), None
        document, version = await self._do(self._documents.load, kind, name)
        if document is None and kind == "roster":
            # Tokens go on from the clock's microseconds, as those of the locks do.
            document = {"token": int(self.runtime.wall() * 1e6), "claims": []}
        return document, version

    async def save(self, kind: str, name: str, document: Document | None, version: Any) -> Any:
        give_up = self.runtime.now() + self.patience
        while True:
            try:
                return await self._do(self._documents.save, kind, name, document, version)
            except BlockingIOError:
                now = self.runtime.now()
                if now >= give_up:
                    path = document_path(self._folder, kind, name)
                    raise Unavailable(f"{path}: a stopped process is saving it") from None
            await self.runtime.sleep(now + SAVE_PAUSE_SECONDS * (0.5 + self.runtime.random()))

    async def names(self, kind: str) -> Sequence[str]:
        return await self._do(self._documents.names, kind)

    async def listen(self, interest: Interest, wake: Wake) -> None:
        await self._ear.listen(interest, wake)

    def unlisten(self, interest: Interest) -> None:
        self._ear.unlisten(interest)

    async def _do(self, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        return await self.runtime.blocking(functools.partial(work, *args, **more))
