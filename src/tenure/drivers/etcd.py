"""The roster on etcd: a session is a lease, a claim a key tied to it.

Keys are `/tenure/<namespace>/<roster>/<claim id>`, each part percent-encoded, so that
no name reaches into another's. A roster's order and its tokens are the keys'
creation revisions. To claim is one transaction, which also reads the head of the
roster and one's predecessor; a waiter watches the key of that predecessor alone.

A session has a key too, `/tenure/<namespace>//<session>`, and a claim is entered only
if that key was not written since the driver last did. A claim whose answer stayed out
may still be on its way when it is withdrawn; such a withdrawal writes the session's
key anew, so that the claim comes to nothing whenever it arrives.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from .._model import Claim, Interest, Roll, Traits
from .._runtime.base import Runtime
from .._url import Host, Url
from ..errors import BackendError, InvalidURL, OutcomeUnknown, SessionLost, Unavailable
from ..wires._etcd_api import (
    Created,
    Delete,
    Entry,
    Found,
    Get,
    Operation,
    Put,
    Unchanged,
    Watch,
    Wire,
)
from ..wires.etcd import Settings, connection
from ._etcd_watches import Watches
from .base import Driver, Lost, Wake

_PORT = 2379
_KNOWN_RANGES = 1024
_RACES = 16
"""How often a conditional claim starts over because others claimed in between."""


class _Session(NamedTuple):
    """An own session: its owner, and the revision at which its key was last written."""

    owner: str
    epoch: int


class _Place(NamedTuple):
    """What is known of an own claim: its token, and the last revision that it was read at."""

    token: int
    revision: int


class EtcdDriver(Driver):
    """Tenure over etcd's gRPC API, version 3.4 or newer."""

    traits = Traits(
        scope="hosts",
        fair=True,
        frees_on_death=False,
        durable_tokens=True,
        durable_claims=True,
        push=True,
        poll=0.5,
        # By default etcd grants no lease shorter than one and a half election timeouts,
        # rounded up to seconds.
        min_ttl=2.0,
    )

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        url.check_options(("ca", "cert", "key"))
        if url.path.strip("/"):
            raise InvalidURL(f"{url.scheme}: the URL takes no path")
        if (url.username is None) != (url.password is None):
            raise InvalidURL(f"{url.scheme}: a user name and a password come together")
        if url.scheme != "etcds" and url.options:
            given = ", ".join(sorted(url.options))
            raise InvalidURL(f"{url.scheme}: {given}: for TLS the URL begins with etcds://")
        if ("cert" in url.options) != ("key" in url.options):
            raise InvalidURL(f"{url.scheme}: the options 'cert' and 'key' come together")
        self._root = f"/tenure/{quote(namespace, safe='')}/"
        self._ranges: dict[str, tuple[bytes, bytes]] = {}
        self._sessions: dict[str, _Session] = {}
        self._places: dict[str, _Place] = {}
        self._unsure: set[str] = set()
        self._unsure_lease = 0
        self._wire: Wire | None = None
        self._watches = Watches(runtime, self._connected, self.patience)

    # -- the connection ----------------------------------------------------

    async def open(self) -> None:
        settings = await self.runtime.blocking(self._settings)
        wire = connection(settings, self.runtime.flavour)
        try:
            await wire.open()
            await wire.get(Get(self._root.encode(), _after(self._root), 1, keys_only=True))
        except BaseException:
            await wire.close()
            raise
        self._wire = wire

    async def close(self) -> None:
        await self._watches.close()
        if self._wire is not None:
            await self._wire.close()

    def abandon(self) -> None:
        self._watches.abandon()
        if self._wire is not None:
            self._wire.abandon()

    def _connected(self) -> Wire:
        if self._wire is None:
            raise Unavailable(f"{self.url.scheme}: the driver is not open")
        return self._wire

    def _settings(self) -> Settings:
        url = self.url
        hosts = url.hosts or (Host("127.0.0.1"),)
        return Settings(
            tuple(f"dns:///{host.or_port(_PORT)}" for host in hosts),
            self.patience,
            None if url.username is None else (url.username, url.password or ""),
            url.scheme == "etcds",
            self._file("ca"),
            self._file("cert"),
            self._file("key"),
        )

    def _file(self, option: str) -> bytes | None:
        path = self.url.options.get(option)
        if path is None:
            return None
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise InvalidURL(
                f"{self.url.scheme}: the file of option {option!r} cannot be read: {error.strerror}"
            ) from error

    # -- the session -------------------------------------------------------

    async def start(self, owner: str, lost: Lost) -> str:
        # After a lost answer the same lease is asked for again, so that none is left over.
        lease, self._unsure_lease = self._unsure_lease or self._new_lease(), 0
        session = f"{lease:x}"
        wire = self._connected()
        try:
            if not await wire.lease_grant(lease, math.ceil(self.ttl)):
                await self.renew(session)
            key = self._session_key(session)
            outcome = await wire.txn((), (Put(key, owner.encode(), lease),))
        except OutcomeUnknown:
            self._unsure_lease = lease
            raise
        self._sessions[session] = _Session(owner, outcome.revision)
        return session

    async def renew(self, session: str) -> None:
        if await self._connected().lease_keepalive(int(session, 16)) <= 0:
            raise SessionLost(f"etcd: the lease {session} has expired or was revoked")

    async def end(self, session: str) -> None:
        await self._connected().lease_revoke(int(session, 16))
        self._sessions.pop(session, None)
        if not self._sessions:
            self._places.clear()
            self._unsure.clear()

    def _new_lease(self) -> int:
        high = int(self.runtime.random() * (1 << 31))
        low = int(self.runtime.random() * (1 << 32))
        return (high << 32 | low) or 1

    # -- the roster --------------------------------------------------------

    async def claim(self, session: str, roster: str, id: str, body: str, width: int | None) -> Roll:
        try:
            if width is None or width == 1:
                return await self._enter(session, roster, id, body, None if width is None else 0)
            return await self._enter_among(session, roster, id, body, width)
        except BaseException as error:
            if not isinstance(error, BackendError) or isinstance(error, OutcomeUnknown):
                self._unsure.add(id)
            raise

    async def _enter_among(self, session: str, roster: str, id: str, body: str, width: int) -> Roll:
        """Claim if fewer than `width` have; etcd compares no counts, so look first."""
        start, end = self._range(roster)
        newest = Get(start, end, 1, "newest", keys_only=True)
        for _ in range(_RACES):
            head = Get(start, end, 1, "oldest")
            outcome = await self._connected().txn((), (Get(self._key(roster, id)), head, newest))
            own, first, last = outcome.found
            if own:
                return await self._look(session, roster, id, own[0].created)
            if first.size >= width:
                return Roll(self._claims(roster, first), None, first.size)
            seen = last[0].created if last else 0
            roll = await self._enter(session, roster, id, body, seen)
            if roll.mine is not None or roll.rank >= width:
                return roll
        raise Unavailable("etcd: too many others claimed at the same time")

    async def _enter(
        self, session: str, roster: str, id: str, body: str, newest: int | None
    ) -> Roll:
        """Put the claim; with `newest`, only if none was created after that revision."""
        start, end = self._range(roster)
        key, session_key = self._key(roster, id), self._session_key(session)
        free = [] if newest == 0 else [Created(key)]
        if newest is not None:
            free.append(Created(start, end, newest))
        known = self._sessions.get(session)
        if known is None:
            raise SessionLost(f"etcd: the session {session} has ended")
        value = _value(known.owner, body, round(self.runtime.wall(), 3))
        head = Get(start, end, 1, "oldest")
        then: list[Operation] = [Put(key, value, int(session, 16))]
        if newest != 0:  # else the claim can only be the first
            then += (head, Get(start, end, 2, "newest", keys_only=True))
        otherwise = (Get(key), head, Get(session_key))
        wire = self._connected()
        for _ in range(_RACES):
            outcome = await wire.txn((Unchanged(session_key, known.epoch), *free), then, otherwise)
            if outcome.succeeded:
                break
            own, first, life = outcome.found
            if own:
                return await self._look(session, roster, id, own[0].created)
            if not life:
                raise SessionLost(f"etcd: the lease {session} has expired or was revoked")
            epoch = life[0].modified
            if epoch == known.epoch:
                return Roll(self._claims(roster, first), None, first.size)
            known = known._replace(epoch=epoch)  # a withdrawal has written it meanwhile
        else:
            raise Unavailable("etcd: too many others withdrew at the same time")
        mine = Claim(roster, id, session, outcome.revision, known.owner, body)
        self._places[id] = _Place(outcome.revision, outcome.revision)
        if newest == 0 or outcome.found[1].size == 1:
            return Roll((mine,), mine)
        _, first, last_two = outcome.found
        before = self._id(roster, last_two[1])
        return Roll(self._claims(roster, first), mine, first.size - 1, before)

    async def amend(self, claim: Claim, body: str) -> Claim:
        key = self._key(claim.roster, claim.id)
        wire = self._connected()
        found = await wire.get(Get(key))
        entry = found[0] if found else None
        if entry is None or entry.created != claim.token:
            raise SessionLost(f"etcd: the claim {claim.id} is gone")
        record = _record(entry.value)
        now = record.get("body")
        if now == body != claim.body:
            return claim._replace(body=body)  # an earlier attempt whose answer was lost
        if now != claim.body:
            raise SessionLost(f"etcd: the claim {claim.id} has another body by now")
        value = _value(str(record.get("owner", "")), body, record.get("since"))
        outcome = await wire.txn((Unchanged(key, entry.modified),), (Put(key, value, entry.lease),))
        if not outcome.succeeded:
            raise SessionLost(f"etcd: the claim {claim.id} was changed meanwhile")
        return claim._replace(body=body)

    async def withdraw(self, session: str, roster: str, id: str) -> None:
        key = self._key(roster, id)
        known = self._sessions.get(session)
        if id in self._unsure and known is not None:
            put = Put(self._session_key(session), known.owner.encode(), int(session, 16))
            # Without the lease, nothing that is still under way can be put.
            with suppress(SessionLost):
                outcome = await self._connected().txn((), (Delete(key), put))
                self._sessions[session] = known._replace(epoch=outcome.revision)
            self._unsure.discard(id)
        else:
            await self._connected().delete(key)
        self._places.pop(id, None)

    async def read(self, session: str, roster: str, id: str) -> Roll:
        place = self._places.get(id)
        return await self._look(session, roster, id, 0 if place is None else place.token)

    async def _look(self, session: str, roster: str, id: str, token: int) -> Roll:
        """Read the roll; a token that is not known costs a second look."""
        start, end = self._range(roster)
        gets = [Get(start, end, 1, "oldest")]
        if id:
            gets.append(Get(self._key(roster, id)))
        while True:
            # Every key before one's own: etcd cannot count them without sending them.
            before = Get(start, end, 0, "newest", token - 1, keys_only=True)
            outcome = await self._connected().txn((), (*gets, before) if token else gets)
            first = outcome.found[0]
            own = outcome.found[1] if id else ()
            if not own:
                self._places.pop(id, None)
                return Roll(self._claims(roster, first), None, first.size)
            if own[0].created == token:
                break
            token = own[0].created
        mine = self._claim(roster, own[0])
        if mine.session == session:
            self._places[id] = _Place(token, outcome.revision)
        ahead = outcome.found[2]
        if not ahead:
            return Roll((mine,), mine)
        return Roll(self._claims(roster, first), mine, len(ahead), self._id(roster, ahead[0]))

    async def rosters(self, prefix: str) -> Sequence[str]:
        start = self._root + quote(prefix, safe="")
        found = await self._connected().get(Get(start.encode(), _after(start), keys_only=True))
        skip = len(self._root)
        names = {entry.key[skip:].partition(b"/")[0].decode() for entry in found}
        return sorted(unquote(name) for name in names if name)

    # -- wake-ups ----------------------------------------------------------

    async def listen(self, interest: Interest, wake: Wake) -> None:
        place = self._places.get(interest.id)
        since = 0 if place is None else place.revision + 1
        if interest.before is None:
            start, end = self._range(interest.roster)
            request = Watch(0, start, end, since, False)
        else:
            request = Watch(0, self._key(interest.roster, interest.before), b"", since, True)
        self._watches.add(interest, request, wake)

    def unlisten(self, interest: Interest) -> None:
        self._watches.remove(interest)

    # -- keys and values ---------------------------------------------------

    def _range(self, roster: str) -> tuple[bytes, bytes]:
        found = self._ranges.get(roster)
        if found is None:
            if len(self._ranges) >= _KNOWN_RANGES:
                self._ranges.clear()
            start = f"{self._root}{quote(roster, safe='')}/"
            found = self._ranges[roster] = (start.encode(), _after(start))
        return found

    def _key(self, roster: str, id: str) -> bytes:
        return self._range(roster)[0] + quote(id, safe="").encode()

    def _session_key(self, session: str) -> bytes:
        return f"{self._root}/{session}".encode()

    def _id(self, roster: str, entry: Entry) -> str:
        return unquote(entry.key[len(self._range(roster)[0]) :].decode("ascii", "replace"))

    def _claims(self, roster: str, found: Found) -> tuple[Claim, ...]:
        return tuple(self._claim(roster, entry) for entry in found)

    def _claim(self, roster: str, entry: Entry) -> Claim:
        record = _record(entry.value)
        owner, body = str(record.get("owner", "")), str(record.get("body", ""))
        id, session = self._id(roster, entry), f"{entry.lease:x}"
        return Claim(roster, id, session, entry.created, owner, body)


def _value(owner: str, body: str, since: object) -> bytes:
    record = {"owner": owner, "body": body, "since": since}
    return json.dumps(record, separators=(",", ":")).encode()


def _record(value: bytes) -> dict[str, object]:
    """What a claim's value says; nothing, if somebody else wrote it."""
    try:
        record = json.loads(value)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _after(prefix: str) -> bytes:
    """The end of the range of all keys that begin with the prefix (which ends in ASCII)."""
    return (prefix[:-1] + chr(ord(prefix[-1]) + 1)).encode()
