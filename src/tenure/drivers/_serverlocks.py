"""Locks of a server's own, which belong to connections: advisory locks and the like.

What `postgresql` and `mysql` have in common. A session is its connections: a main one,
which carries every lock that was free when it was asked for, and one for each lock that
was waited for. They live and die together.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from .._model import Grant
from .._runtime.base import Runtime
from ..errors import ProtocolError, SessionLost, TenureError
from ..wires.links import Link, NotSent
from .base import Lost, Mutex

SLICE = 1.0  # seconds between two looks at the session while a lock is waited for
_SPARE = 4  # idle connections kept for the next wait
_KEYS = 4096  # names whose keys are remembered

Values = tuple[bytes, ...]
L = TypeVar("L", bound=Link)


class Connections(Protocol):
    """What the locks need of the driver."""

    @property
    def session(self) -> Session[Any] | None: ...

    def current(self, session: str) -> Session[Any]: ...

    async def another(self, session: Session[Any]) -> Link: ...


class Kept(Protocol):
    """What the main connection has of one name."""

    name: str
    values: Values


class Hold:
    """Where a lock lives: the handle of a grant."""

    __slots__ = ("free", "freed", "link", "name", "session", "shared", "values")

    def __init__(
        self,
        session: Session[Any],
        link: Link,
        name: str,
        values: Values,
        shared: bool,
        free: bytes,
    ) -> None:
        self.session = session
        self.link = link
        self.name = name
        self.values = values
        self.shared = shared
        self.free = free  # the statement that frees it
        self.freed = False


class _Readers:
    """How many shared locks of one key live on the main connection."""

    __slots__ = ("count", "name", "values")

    def __init__(self, name: str, values: Values) -> None:
        self.count = 1
        self.name = name
        self.values = values


class ServerLocks(Mutex):
    """The native mutex. A driver gives the statements, and what a name is to the server.

    A statement that takes a lock returns the token, or nothing if the lock is taken.
    """

    SEIZE: ClassVar[bytes]
    SHARE: ClassVar[bytes]
    SHARE_AGAIN: ClassVar[bytes]
    """Where the connection has the lock already, and might be given it past whoever waits."""
    QUEUE: ClassVar[bytes]
    QUEUE_SHARED: ClassVar[bytes]
    FREE: ClassVar[bytes]
    FREE_SHARED: ClassVar[bytes]
    FREED: ClassVar[bytes]
    """What these two return if there was something to free."""
    RESET: ClassVar[bytes] = b""
    """Frees what a wait that was called off may have left behind, where it may."""

    def __init__(self, driver: Connections, runtime: Runtime) -> None:
        self._sessions = driver
        self._runtime = runtime
        self._keys: dict[str, Values] = {}

    @abstractmethod
    def _values(self, name: str) -> Values:
        """What a statement is given to know the lock by."""

    def _key(self, name: str) -> Values:
        values = self._values(name)
        if len(self._keys) >= _KEYS:
            self._keys.clear()
        self._keys[name] = values
        return values

    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        current = self._sessions.session
        if current is None or current.id != session or current.ended is not None:
            current = self._sessions.current(session)
        values = self._keys.get(name) or self._key(name)
        free = self.FREE_SHARED if shared else self.FREE
        hold = Hold(current, current.main, name, values, shared, free)
        # To the server the whole connection is one holder, which it grants any lock that
        # it already has: what is held or tried there is not tried there once more.
        if shared:
            statement = current.share(name, values, self.SHARE, self.SHARE_AGAIN)
        else:
            statement = self.SEIZE if current.keys.setdefault(values, hold) is hold else b""
        if statement:
            try:
                token = await current.main.call(statement, values, hold.free)
            except BaseException as error:
                await self._failed(hold, error)
                raise
            if token is not None:
                return Grant(name, id, int(token), hold)
            current.leave(hold)
        if until is None or until <= self._runtime.now():
            return None
        return await self._wait(current, name, id, values, shared, until)

    async def _failed(self, hold: Hold, error: BaseException) -> None:
        """A try failed: free what it may have taken, and say so if the session is lost."""
        session = hold.session
        try:
            if isinstance(error, TenureError):
                if not isinstance(error, NotSent):
                    await self._runtime.finish(self._clear(hold))
                session.check(error)
        finally:
            session.leave(hold)

    async def _clear(self, hold: Hold) -> None:
        # The server keeps a lock although the token, in the same statement, failed.
        main = hold.link
        if main.reason is not None:
            return
        if not hold.session.alone(hold):
            main.end("a shared lock failed halfway")
            return
        try:
            await main.call(hold.free, hold.values, b"")
        except TenureError as error:
            main.end(f"a lock that failed halfway could not be freed ({error})")

    async def _wait(
        self, session: Session[Any], name: str, id: str, values: Values, shared: bool, until: float
    ) -> Grant | None:
        """Ask on another connection, where the statement blocks until it is our turn."""
        link = await session.borrow()
        hold = Hold(session, link, name, values, shared, self.FREE_SHARED if shared else self.FREE)
        try:
            token = await self._queued(hold, until)
            session.check()
            if token is not None:
                session.granted(hold)
                return Grant(name, id, int(token), hold)
        except BaseException as error:
            await self._runtime.finish(self._forsake(hold))
            if isinstance(error, TenureError):
                session.check(error)
            raise
        session.give_back(link)
        return None

    async def _queued(self, hold: Hold, until: float) -> bytes | None:
        session, link, now = hold.session, hold.link, self._runtime.now
        token: bytes | None = None
        while token is None and now() < until:  # asked again if an operator called it off
            await link.ask(self.QUEUE_SHARED if hold.shared else self.QUEUE, hold.values)
            while not await link.ready(max(0.0, min(SLICE, until - now()))):
                session.check()
                if now() >= until:
                    return await self._runtime.finish(link.withdraw())
            token = await link.take()
            if token is None and self.RESET:
                await link.call(self.RESET, hold.values, b"")
        return token

    async def _forsake(self, hold: Hold) -> None:
        """Leave neither a lock nor a place in the queue."""
        link = hold.link
        if not link.asking:
            link.end("what it holds is not known")
        elif await link.withdraw() is not None:
            try:
                await link.call(hold.free, hold.values, b"")
            except TenureError as error:
                link.end(f"a lock could not be freed ({error})")
        hold.session.give_back(link)

    async def unseize(self, grant: Grant) -> None:
        hold: Hold = grant.handle
        if hold.freed or hold.session.ended is not None:
            return
        hold.freed = True
        if hold.link.busy:
            # A task that is cancelled while it queues up must free the lock all the same.
            await self._runtime.finish(self._free(hold))
        else:
            await self._free(hold)

    async def _free(self, hold: Hold) -> None:
        session, link = hold.session, hold.link
        try:
            freed = await link.call(hold.free, hold.values, b"")
            if freed != self.FREED:
                link.end("the server did not hold a lock any more that it had granted")
                session.check()
                raise ProtocolError(f"{link.service}: the server did not hold the lock any more")
        except TenureError as error:
            # Only the end of its connection frees it for certain.
            link.end(f"a lock could not be freed ({error})")
            session.check(error)
            raise
        except BaseException:
            # Interrupted, perhaps before anything was sent: nobody would free it a second time.
            link.end("a release was interrupted")
            raise
        finally:
            if link is session.main:
                session.leave(hold)
            else:
                session.give_back(link)


class Session(Generic[L]):
    """The connections that live and die together, and what is held on them."""

    def __init__(
        self,
        driver: Connections,
        runtime: Runtime,
        id: str,
        alive: Any,
        owner: str,
        main: L,
        lost: Lost,
    ) -> None:
        self.id = id
        self.alive = alive  # the lock that main holds for as long as it lives
        self.owner = owner
        self.main = main
        self.ended: str | None = None
        self.holding: dict[Link, Hold] = {}  # beside the main one
        self.keys: dict[Values, Kept] = {}  # what the main connection has, or tries
        self._before: set[Kept] = set()  # what was held at the last renewal
        self._noted: set[str] = set()
        self._driver = driver
        self._lost = lost
        self._lock = runtime.lock()
        self._waiting: set[Link] = set()
        self._idle: list[Link] = []

    def check(self, cause: BaseException | None = None) -> None:
        """Raise `SessionLost` if the session is over."""
        if self.ended is not None:
            raise SessionLost(f"{self.main.service}: {self.ended}") from cause

    def long_held(self) -> dict[bytes, str]:
        """The keys and names that were held at the last renewal, too, and are not noted yet."""
        with self._lock:
            held: set[Kept] = {*self.keys.values(), *self.holding.values()}
        before, self._before = self._before, held
        return {each.values[0]: each.name for each in held & before if each.name not in self._noted}

    def noted(self, names: Iterable[str]) -> None:
        """The names are known to whoever asks; only what is held still need be remembered."""
        self._noted = {*names, *(each.name for each in self._before if each.name in self._noted)}

    # -- on the main connection ------------------------------------------------

    def share(self, name: str, values: Values, first: bytes, again: bytes) -> bytes:
        """The statement with which to try a shared lock there; empty if it must not be tried."""
        with self._lock:
            mine = _Readers(name, values)
            found = self.keys.setdefault(values, mine)
            if found is mine:
                return first
            if isinstance(found, _Readers):
                found.count += 1
                return again
            return b""

    def leave(self, hold: Hold) -> None:
        """Forget one holder or attempt."""
        with self._lock:
            readers = self.keys[hold.values]
            if hold.shared and isinstance(readers, _Readers) and readers.count > 1:
                readers.count -= 1
            else:
                del self.keys[hold.values]

    def alone(self, hold: Hold) -> bool:
        found = self.keys[hold.values]
        return found is hold or (isinstance(found, _Readers) and found.count == 1)

    # -- on the others ---------------------------------------------------------

    async def borrow(self) -> Link:
        """A connection to wait on."""
        link: Link | None = None
        with self._lock:
            while self._idle and (link is None or link.reason is not None):
                link = self._idle.pop()
        if link is None or link.reason is not None:
            link = await self._driver.another(self)
        with self._lock:
            if self.ended is None:
                self._waiting.add(link)
        if self.ended is not None:
            link.end(self.ended)
            self.check()
        return link

    def granted(self, hold: Hold) -> None:
        """The lock that was waited for is held: from now on the session depends on it."""
        link = hold.link
        with self._lock:
            self._waiting.discard(link)
            if self.ended is None:
                self.holding[link] = hold
        if link.reason is not None:
            self.link_ended(link, link.reason)
        self.check()

    def give_back(self, link: Link) -> None:
        """The connection holds nothing any more."""
        with self._lock:
            self._waiting.discard(link)
            self.holding.pop(link, None)
            keep = self.ended is None and link.reason is None and len(self._idle) < _SPARE
            if keep:
                self._idle.append(link)
        if not keep:
            link.end("it is not needed any more")

    # -- the end ---------------------------------------------------------------

    def link_ended(self, link: Link, reason: str) -> None:
        """A connection ended; whatever was held on it is free."""
        if link is self.main or link in self.holding:
            self.lose(reason)

    def lose(self, reason: str) -> None:
        """The session is lost. Its holders are told first, then all locks are freed."""
        with self._lock:
            if self.ended is not None:
                return
            self.ended = reason
        self._lost(f"{self.main.service}: {reason}")
        self._end_links(reason)

    def finish(self, reason: str) -> None:
        """The session is over because its owner says so."""
        with self._lock:
            if self.ended is None:
                self.ended = reason
        self._end_links(reason)

    def _end_links(self, reason: str) -> None:
        with self._lock:
            links: list[Link] = [self.main, *self.holding, *self._waiting, *self._idle]
            self.holding.clear()
            self._waiting.clear()
            self._idle.clear()
        for link in links:
            link.end(reason)
