"""The native mutex of the MySQL driver: user locks, which `GET_LOCK` gives to connections.

A lock is two of the server's: its own, and a second one, `…r`, that says whether there are
readers. Who wants the lock for itself takes the first one, and then waits for the second to
be free. A reader takes the first one only for as long as it takes to enter: it then has
the second, or stands in the server's queue for it, on a connection of its own. So when the
reader that has it goes or dies, the server hands it to the next reader at once, and
nobody can come between; a writer comes after the last of those who were in when it got
the first lock, and new readers wait at the first lock, in turn, like writers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from .._model import Grant, Holder, Taken
from .._runtime.base import Runtime
from ..errors import OutcomeUnknown, TenureError, Unavailable
from ..wires import links
from ..wires.mysql import Link
from . import _serverlocks
from ._mysql_notes import Notes
from ._serverlocks import Hold, ServerLocks, Session, Values

YEAR = b"31536000"
_DOOR = b"-1"
"""The reply to a reader that has the first lock, but not the second."""

_ENTER = b"IF(GET_LOCK('?r',0),IF(RELEASE_LOCK('?'),UUID_SHORT(),NULL),-1)"
_SHARE = b"SELECT IF(GET_LOCK('?',0)," + _ENTER + b",NULL)"
_PASS = b"SELECT IF(GET_LOCK('?',0),IF(RELEASE_LOCK('?'),UUID_SHORT(),NULL),NULL)"
_LEAVE_DOOR = b"SELECT IF(RELEASE_LOCK('?'),UUID_SHORT(),NULL)"
_STAND = b"SELECT IF(GET_LOCK('?r'," + YEAR + b"),1,NULL)"
_STEP_OUT = b"SELECT RELEASE_LOCK('?r')"
_SHOW = b"SELECT GET_LOCK(CONCAT('?q',CONNECTION_ID()),0)"
_HIDE = b"SELECT RELEASE_LOCK(CONCAT('?q',CONNECTION_ID()))"
_FIRST_LOCK = re.compile(rb"SELECT IF\(GET_LOCK\('(\w{50})'")
"""How a statement begins that waits for a first lock, and none that waits for the second."""


def digest(*parts: str, size: int = 16) -> str:
    """A hash of several texts, as hexadecimal digits in lower case."""
    hash = blake2b(digest_size=size)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hash.update(b"%d:%b" % (len(data), data))
    return hash.hexdigest()


def session_lock(session: str) -> str:
    """The lock that a session's main connection has for as long as it lives."""
    return f"tns{digest(session)}"


class Reading:
    """The readers of one lock in one session, which the server sees as one."""

    def __init__(self, runtime: Runtime, name: str, values: Values) -> None:
        self.name = name
        self.values = values
        self.count = 0
        self.hold: Hold | None = None
        """Where the second lock is, or is queued for."""
        self.standing = False
        """Whether it is queued for, as far as is known."""
        self.turn = runtime.mutex()


class UserSession(Session[Link]):
    """A session on user locks."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._readings: dict[Values, Reading] = {}

    def reading(self, runtime: Runtime, name: str, values: Values) -> Reading:
        """The readers of a lock."""
        found = self._readings.get(values)
        if found is None:
            found = self._readings.setdefault(values, Reading(runtime, name, values))
        return found

    def standing(self) -> list[Reading]:
        """Those whose place in the server's queue is on a connection of its own."""
        return [each for each in list(self._readings.values()) if each.standing]


class Connections(_serverlocks.Connections, Protocol):
    """What the locks need of the driver."""

    namespace: str
    notes: Notes

    async def questions(self) -> Link: ...


class UserLocks(ServerLocks):
    """The native mutex: `GET_LOCK` on a hash of the name."""

    SEIZE = (
        b"SELECT IF(GET_LOCK('?',0),"
        b"IF(IS_FREE_LOCK('?r'),UUID_SHORT(),NULLIF(RELEASE_LOCK('?'),1)),NULL)"
    )
    QUEUE = (
        b"SELECT IF(GET_LOCK('?'," + YEAR + b"),IF(IS_FREE_LOCK('?r'),UUID_SHORT(),"
        b"IF(GET_LOCK('?r'," + YEAR + b"),IF(RELEASE_LOCK('?r'),UUID_SHORT(),NULL),"
        b"NULLIF(RELEASE_LOCK('?'),1))),NULL)"
    )
    QUEUE_SHARED = b"SELECT IF(GET_LOCK('?'," + YEAR + b")," + _ENTER + b",NULL)"
    FREE, FREE_SHARED, FREED = b"SELECT RELEASE_LOCK('?')", _STEP_OUT, b"1"
    RESET = b"SELECT RELEASE_ALL_LOCKS()"

    def __init__(self, driver: Connections, runtime: Runtime, space: str) -> None:
        super().__init__(driver, runtime)
        self._driver = driver
        self.prefix = f"tn{digest(space, driver.namespace, size=8)}"

    def _values(self, name: str) -> Values:
        return (f"{self.prefix}{digest(name)}".encode(),)

    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        if not shared:
            return await super().seize(session, name, id, shared=False, until=until)
        current = self._driver.current(session)
        assert isinstance(current, UserSession)
        values = self._keys.get(name) or self._key(name)
        reading = current.reading(self._runtime, name, values)
        try:
            token = await self._entered(self._try(current, reading), current, reading)
            if token is None and until is not None and until > self._runtime.now():
                token = await self._wait_to_share(current, reading, until)
        except TenureError as error:
            current.check(error)
            raise
        if token is None:
            return None
        hold = Hold(current, current.main, name, values, True, self.FREE_SHARED)
        return Grant(name, id, int(token), hold)

    # -- readers ---------------------------------------------------------------

    async def _entered(self, entry: _Entry, session: UserSession, reading: Reading) -> bytes | None:
        """Carry an entry through, also for a caller that is cancelled, who then leaves."""
        try:
            await self._runtime.finish(entry.run())
        except BaseException:
            if entry.token is not None:
                await self._runtime.finish(self._leave(session, reading))
            raise
        return entry.token

    def _try(self, session: UserSession, reading: Reading) -> _Entry:
        return _Entry(self._runtime, session, reading, None, b"")

    async def _wait_to_share(
        self, session: UserSession, reading: Reading, until: float
    ) -> bytes | None:
        link = await session.borrow()
        hold = Hold(session, link, reading.name, reading.values, True, self.FREE_SHARED)
        try:
            reply = await self._queued(hold, until)
            session.check()
        except BaseException:
            await self._runtime.finish(self._let_go(session, link))
            raise
        if reply is None:
            session.give_back(link)
            return None
        return await self._entered(
            _Entry(self._runtime, session, reading, hold, reply), session, reading
        )

    async def _let_go(self, session: UserSession, link: links.Link) -> None:
        if link.asking:
            await link.withdraw()
        link.end("a reader's wait was given up")
        session.give_back(link)

    async def unseize(self, grant: Grant) -> None:
        hold: Hold = grant.handle
        if not hold.shared:
            await super().unseize(grant)
            return
        session = hold.session
        if hold.freed or session.ended is not None:
            return
        hold.freed = True
        assert isinstance(session, UserSession)
        reading = session.reading(self._runtime, hold.name, hold.values)
        try:
            await self._runtime.finish(self._leave(session, reading))
        except TenureError as error:
            session.check(error)
            raise

    async def _leave(self, session: UserSession, reading: Reading) -> None:
        """One reader goes; after the last one, nothing is left at the server."""
        async with reading.turn:
            reading.count -= 1
            if reading.count or session.ended is not None:
                return
            hold, reading.hold = reading.hold, None
            session.keys.pop(reading.values, None)
            assert hold is not None
            link = hold.link
            standing, reading.standing = reading.standing, False
            try:
                if not standing or await link.withdraw() is not None:
                    await link.call(_STEP_OUT, reading.values, b"")
                await session.main.call(_HIDE, reading.values, b"")
            except TenureError as error:
                link.end(f"a shared lock could not be freed ({error})")
                raise
            finally:
                if link is not session.main:
                    session.give_back(link)

    async def keep(self, session: UserSession) -> None:
        """See which readers were called up by the server meanwhile."""
        for reading in session.standing():
            async with reading.turn:
                hold = reading.hold
                if hold is None or not reading.standing or not await hold.link.ready(0):
                    continue
                reading.standing = False
                if await hold.link.take() is None:
                    hold.link.end("a reader's place in the queue was taken away")

    # -- who holds what ----------------------------------------------------------

    async def holder(self, name: str) -> Holder | None:
        (key,) = self._keys.get(name) or self._key(name)
        link = await self._driver.questions()
        question = b"SELECT COALESCE(IS_USED_LOCK('?r'),IS_USED_LOCK('?'))".replace(b"?", key)
        ((number,),) = await link.rows(question)
        if number is None:
            return None
        owners = await self._driver.notes.owners([int(number)])
        return Holder(owners[int(number)])

    async def taken(self) -> Sequence[Taken]:
        """All locks of the namespace that are held, as far as the server tells."""
        held: dict[str, list[int]] = {}
        readers: dict[str, list[int]] = {}
        notes, session = self._driver.notes, self._driver.session
        own = b"" if session is None else str(session.alive).encode()
        link = await self._driver.questions()
        for text, number in await notes.locks(link, self.prefix, own):
            name = (text or b"").decode()
            key, kind = name[:50], name[50:51]
            if kind == "q":
                readers.setdefault(key, []).append(int(number or 0))
            elif not kind:
                held.setdefault(key, []).append(int(number or 0))
        numbers = {number for each in (*held.values(), *readers.values()) for number in each}
        owners = await notes.owners(sorted(numbers))
        names = await notes.names(self.prefix)
        waiting = await _waiting(link)
        found = [
            Taken(names.get(key), _holders(owners, by), waiting[key], shared)
            for locks, shared in ((held, False), (readers, True))
            for key, by in locks.items()
            if shared or key not in readers
        ]
        return sorted(found, key=lambda each: (each.name is None, each.name or ""))


def _holders(owners: Mapping[int, str], numbers: Iterable[int]) -> tuple[Holder, ...]:
    return tuple(Holder(owners[each]) for each in sorted(numbers))


class _Entry:
    """One reader enters: at once if it can, or by a reply that it has waited for."""

    def __init__(
        self,
        runtime: Runtime,
        session: UserSession,
        reading: Reading,
        hold: Hold | None,
        reply: bytes,
    ) -> None:
        self._runtime = runtime
        self._session = session
        self._reading = reading
        self._hold = hold
        self._reply = reply
        self.token: bytes | None = None
        """Once it is in."""

    async def run(self) -> None:
        """Enter, or leave nothing behind."""
        session, reading, hold = self._session, self._reading, self._hold
        async with reading.turn:
            session.check()
            link = session.main if hold is None else hold.link
            try:
                if hold is not None:
                    token = await self._after_wait(hold)
                else:
                    token = await self._at_once()
            except BaseException as error:
                # What the connection has by now is not known for certain.
                link.end(f"a reader could not enter ({error})")
                if hold is not None:
                    session.give_back(link)
                if reading.hold is not None and not reading.count:
                    reading.hold.link.end("a reader could not enter")
                    reading.hold = None
                    session.keys.pop(reading.values, None)
                raise
            if token is not None:
                reading.count += 1
                self.token = token

    async def _at_once(self) -> bytes | None:
        session, reading, values = self._session, self._reading, self._reading.values
        main = session.main
        if reading.count:
            return await main.call(_PASS, values, b"")
        if session.keys.setdefault(values, reading) is not reading:
            return None
        token: bytes | None = None
        try:
            token = await main.call(_SHARE, values, b"")
            if token == _DOOR:
                await self._stand()
                token = await main.call(_LEAVE_DOOR, values, b"")
            elif token is not None:
                reading.hold = Hold(session, main, reading.name, values, True, _STEP_OUT)
            if token is not None:
                await main.call(_SHOW, values, b"")
        finally:
            if token is None:
                session.keys.pop(values, None)
        return token

    async def _after_wait(self, hold: Hold) -> bytes | None:
        session, reading, values = self._session, self._reading, self._reading.values
        link, token = hold.link, self._reply
        if self._reply != _DOOR:
            if reading.count:
                raise OutcomeUnknown("mysql: a lock was free that this session shares")
            reading.hold = hold
            session.granted(hold)
        else:
            if not reading.count:
                await self._stand()
            left = await link.call(_LEAVE_DOOR, values, b"")
            if left is None:
                raise OutcomeUnknown("mysql: the server did not hold a lock any more")
            token = left
            session.give_back(link)
        if not reading.count:
            session.keys.setdefault(values, reading)
            await session.main.call(_SHOW, values, b"")
        return token

    async def _stand(self) -> None:
        """Queue up for the second lock. The caller has the first one, so no writer can."""
        session, reading, now = self._session, self._reading, self._runtime.now
        link = await session.borrow()
        assert isinstance(link, Link)
        hold = Hold(session, link, reading.name, reading.values, True, _STEP_OUT)
        give_up = now() + 5
        try:
            await link.ask(_STAND, reading.values)
            # It counts once it stands there, which only the list of connections shows.
            while not await link.ready(0.001):
                if await _waits(session.main, link.number):
                    reading.standing = True
                    break
                if now() > give_up:
                    raise Unavailable("mysql: a reader was not let into the queue in time")
            else:
                if await link.take() is None:
                    raise Unavailable("mysql: a reader's wait was called off")
            reading.hold = hold
            session.granted(hold)
        except BaseException:
            reading.hold, reading.standing = None, False
            link.end("a reader could not queue up")
            session.give_back(link)
            raise


async def _waits(link: Link, number: int) -> bool:
    """Whether that connection stands in the queue for a user lock."""
    return any(each == b"%d" % number for each, _ in await _queued(link))


async def _waiting(link: Link) -> Counter[str]:
    """How many connections of this user wait for each lock; of any user, with PROCESS."""
    # Readers that stand in the queue for the second lock are in, and ask for no first one.
    asked = (_FIRST_LOCK.match(statement) for _, statement in await _queued(link))
    return Counter(each[1].decode() for each in asked if each)


async def _queued(link: Link) -> list[tuple[bytes | None, bytes]]:
    """The connections that stand in a queue for a user lock, with what they have asked."""
    rows = await link.rows(b"SHOW PROCESSLIST")
    return [(row[0], row[7] or b"") for row in rows if row[6] == b"User lock"]
