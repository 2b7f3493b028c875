"""Drivers that lie, one for each experiment on exclusion, which must refute it.

An experiment that refutes nobody proves nothing. To import this module registers them; each
is an honest driver with one thing wrong, and claims as if it were right.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os

from .._model import Grant, Roll
from .._runtime.base import Runtime
from .._url import Url
from ..drivers import registry
from ..drivers.base import Driver, Lost
from ..drivers.file import FileDriver, file_name
from ..drivers.memory import MemoryDriver
from ..drivers.redis import RedisDriver
from ..drivers.sqlite import SqliteDriver
from ..errors import SessionLost

__all__ = [
    "LIARS",
    "DoubleGrants",
    "EarlyExpiry",
    "FirstInEachProcess",
    "HeldByChildren",
    "HostWide",
    "LateNews",
    "NamedAfterTheHost",
    "SlowDeath",
    "TokensOfTheSecond",
]


class DoubleGrants(MemoryDriver):
    """Tells every fifth of those who must wait that it is first in line."""

    _asked = 0

    def _told(self, roll: Roll) -> Roll:
        if roll.mine is None or not roll.rank:
            return roll
        self._asked += 1
        return roll if self._asked % 5 else roll._replace(rank=0, before=None)

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        return self._told(await super().claim(session, roster, id, body, width, shared))

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        return self._told(await super().read(session, roster, id, width))


class FirstInEachProcess(FileDriver):
    """Keeps its files in a folder for each process, which excludes no other process."""

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._keep_in(os.path.join(url.path, file_name(f"{namespace}-{os.getpid()}")))


class HeldByChildren(FileDriver):
    """Keeps its files open in a forked child, and with them the locks of a dead parent."""

    def abandon(self) -> None:
        """Forget nothing."""


class HostWide(FileDriver):
    """Says that it excludes other hosts, and locks files in a folder that they do not have."""

    traits = FileDriver.traits._replace(scope="hosts")


class NamedAfterTheHost(RedisDriver):
    """Takes the host's name, the process id and a count for unique; two hosts may have the same."""

    _count = itertools.count()

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        me = f"{os.uname().nodename}:{os.getpid()}:{next(self._count)}"
        self._mailbox = hashlib.sha256(me.encode()).hexdigest()[: len(self._mailbox)]


class SlowDeath(FileDriver):
    """Leaves a mark beside each lock that is held, and respects that of a dead holder for a TTL."""

    def _mark(self, name: str) -> str:
        return os.path.join(self._folder, f"{file_name(name)}.mark")

    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        while True:
            grant = await super().seize(session, name, id, shared=shared, until=until)
            if grant is None or not self._mourned(name):
                break
            await super().unseize(grant)
            if until is None or self.runtime.now() >= until:
                return None
            await self.runtime.sleep(min(until, self.runtime.now() + self.traits.poll))
        if grant is not None:
            self._marked.add(name)
            self._touch(name)
        return grant

    async def unseize(self, grant: Grant) -> None:
        self._marked.discard(grant.name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._mark(grant.name))
        await super().unseize(grant)

    async def renew(self, session: str) -> None:
        for name in list(self._marked):
            self._touch(name)
        await super().renew(session)

    @property
    def _marked(self) -> set[str]:
        names: set[str] = vars(self).setdefault("_names_held", set())
        return names

    def _touch(self, name: str) -> None:
        with open(self._mark(name), "w", encoding="ascii") as mark:
            mark.write(str(self.runtime.now() + self.ttl))

    def _mourned(self, name: str) -> bool:
        try:
            with open(self._mark(name), encoding="ascii") as mark:
                return float(mark.read() or 0) > self.runtime.now()
        except FileNotFoundError:
            return False


class TokensOfTheSecond(FileDriver):
    """Gives out the second in which a lock was acquired as its token."""

    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        grant = await super().seize(session, name, id, shared=shared, until=until)
        return None if grant is None else grant._replace(token=grant.token // 1_000_000)


class EarlyExpiry(SqliteDriver):
    """Lets others bury a session long before its holder counts on that."""

    async def start(self, owner: str, lost: Lost) -> str:
        ttl, self.ttl = self.ttl, self.ttl / 2
        try:
            return await super().start(owner, lost)
        finally:
            self.ttl = ttl


class LateNews(SqliteDriver):
    """Says that its sessions never expire, so that a holder has no deadline to look at."""

    traits = SqliteDriver.traits._replace(expires=False)


class LateTruth(SqliteDriver):
    """Grants to every second who must wait; who releases then learns that it had nothing."""

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._asked = 0
        self._wrong: set[str] = set()

    def _told(self, roll: Roll, id: str) -> Roll:
        if roll.mine is None or not roll.rank:
            return roll
        self._asked += 1
        if self._asked % 2:
            return roll
        self._wrong.add(id)
        return roll._replace(rank=0, before=None)

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        return self._told(await super().claim(session, roster, id, body, width, shared), id)

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        return self._told(await super().read(session, roster, id, width), id)

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        await super().withdraw(session, roster, id, width)
        if id in self._wrong:
            raise SessionLost("the lock is another's")


LIARS: dict[str, type[Driver]] = {
    "liar-threads": DoubleGrants,
    "liar-processes": FirstInEachProcess,
    "liar-children": HeldByChildren,
    "liar-hosts": HostWide,
    "liar-owners": NamedAfterTheHost,
    "liar-death": SlowDeath,
    "liar-tokens": TokensOfTheSecond,
    "liar-expiry": EarlyExpiry,
    "liar-news": LateNews,
    "liar-release": LateTruth,
}
"""By the scheme of their URLs."""

for _scheme, _driver in LIARS.items():
    registry.register(_scheme, _driver)
