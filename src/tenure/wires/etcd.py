"""etcd over gRPC: the same verbs for threads that block and for asyncio.

One channel to one endpoint at a time; gRPC's own balancing and retries stay off, so
that whether a request was sent is known here. A call that found nobody to talk to
goes on to the next endpoint; one whose answer stays out is given up as
`OutcomeUnknown`, and its channel is dropped, since the connection may be dead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc

from .._runtime.base import Flavour
from ..errors import BackendError, OutcomeUnknown, SessionLost, Unavailable
from . import _etcd_api as api
from . import _etcd_proto as proto
from . import _etcd_upkeep as upkeep

_KV = "/etcdserverpb.KV/"
_LEASE = "/etcdserverpb.Lease/"
_UNARY = {
    "Range": _KV,
    "DeleteRange": _KV,
    "Txn": _KV,
    "LeaseGrant": _LEASE,
    "LeaseRevoke": _LEASE,
    # A stream in etcd's terms; one request, a half-close and one reply are a unary call.
    "LeaseKeepAlive": _LEASE,
    "LeaseTimeToLive": _LEASE,
    "Authenticate": "/etcdserverpb.Auth/",
    "Status": "/etcdserverpb.Maintenance/",
    "Alarm": "/etcdserverpb.Maintenance/",
    "MemberList": "/etcdserverpb.Cluster/",
}
# What grpc's generated stubs pass as well: the method's name is then prepared only once.
_REGISTERED: dict[str, Any] = {"_registered_method": True}
_WATCH = "/etcdserverpb.Watch/Watch"
# A member without a leader must refuse, not serve what it last knew.
_LEADER = ("hasleader", "true")

_abandoned: list[object] = []
"""What a forked child inherited: a channel's destructor would talk on the parent's sockets."""

Metadata = tuple[tuple[str, str], ...]


class Settings(NamedTuple):
    """How to reach the cluster. The credentials show in no `repr`."""

    targets: tuple[str, ...]
    patience: float
    credentials: tuple[str, str] | None = None
    tls: bool = False
    authority: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None

    def __repr__(self) -> str:
        return f"Settings({', '.join(self.targets)})"

    def options(self) -> list[tuple[str, Any]]:
        """gRPC's channel options."""
        connect = self.patience / min(len(self.targets), 3)
        return [
            ("grpc.primary_user_agent", "tenure"),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.use_local_subchannel_pool", 1),
            # In spite of its name the least back-off is how long one attempt may take.
            ("grpc.min_reconnect_backoff_ms", max(200, int(connect * 1000))),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # etcd ends connections that ping more often than every 5 s.
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ]

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """The certificates, as gRPC wants them."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


class Link:
    """A channel to one endpoint, and the calls bound to it."""

    __slots__ = ("calls", "channel", "closed", "target", "watch")

    def __init__(self, channel: Any, target: str) -> None:
        self.channel = channel
        self.target = target
        self.closed = False
        self.calls: dict[str, Callable[..., Any]] = {
            name: channel.unary_unary(service + name, **_REGISTERED)
            for name, service in _UNARY.items()
        }
        self.watch: Callable[..., Any] = channel.stream_stream(_WATCH)


class EtcdWire:
    """What the two flavours share; it never suspends but in `_unary` and `_shut`."""

    client = ("grpcio", grpc.__version__)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = 0
        self._closed = False
        self._link: Link | None = None
        self._lock = threading.Lock()
        self._metadata: Metadata = (_LEADER,)
        self._options = settings.options()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._settings!r}>"

    # -- what the flavours differ in ---------------------------------------

    def _dial(self, target: str) -> Link:
        raise NotImplementedError

    async def _unary(self, link: Link, name: str, request: bytes, timeout: float) -> bytes:
        raise NotImplementedError

    async def _shut(self, link: Link) -> None:
        raise NotImplementedError

    def _stream(self, link: Link) -> api.Stream:
        raise NotImplementedError

    def _headers(self, name: str) -> Metadata:
        """What goes with a call; with an old token, even a login would be refused."""
        return (_LEADER,) if name == "Authenticate" else self._metadata

    # -- the verbs ---------------------------------------------------------

    async def open(self) -> None:
        """Authenticate, if there are credentials."""
        if self._settings.credentials is not None:
            await self._login(time.monotonic() + self._settings.patience)

    async def close(self) -> None:
        """Close the channel; calls under way end as `OutcomeUnknown`."""
        self._closed = True
        await self._drop(self._link)

    def abandon(self) -> None:
        """Forget the channel without closing it, and keep its destructor from running."""
        self._closed = True
        _abandoned.append(self._link)
        self._link = None
        self._lock = threading.Lock()

    async def get(self, get: api.Get) -> api.Found:
        """Read a key or a range, linearizably."""
        return proto.range_reply(await self._call("Range", proto.range_request(get)))

    async def delete(self, key: bytes) -> None:
        """Remove a key."""
        await self._call("DeleteRange", proto.delete_request(key))

    async def txn(
        self,
        guards: Sequence[api.Guard],
        then: Sequence[api.Operation],
        otherwise: Sequence[api.Operation] = (),
    ) -> api.Outcome:
        """Carry out one of two lists of operations at once."""
        request = proto.txn_request(guards, then, otherwise)
        return proto.txn_reply(await self._call("Txn", request))

    async def lease_grant(self, lease: int, ttl: int) -> bool:
        """Grant a lease under a given number; False if there is one with that number."""
        try:
            await self._call("LeaseGrant", proto.lease_grant_request(lease, ttl))
        except BackendError as error:
            if "lease already exists" in str(error):
                return False
            raise
        return True

    async def lease_revoke(self, lease: int) -> bool:
        """End a lease and remove its keys; False if there was none."""
        try:
            await self._call("LeaseRevoke", proto.lease_request(lease))
        except SessionLost:
            return False
        return True

    async def lease_keepalive(self, lease: int) -> int:
        """Restart a lease's time; return the seconds it has, 0 if there is no such lease."""
        reply = await self._call("LeaseKeepAlive", proto.lease_request(lease))
        return proto.lease_keepalive_reply(reply)

    async def lease_age(self, lease: int) -> float | None:
        """Whole seconds since a lease was kept alive last; None if there is no such lease."""
        reply = await self._call("LeaseTimeToLive", proto.lease_request(lease))
        left, granted = proto.lease_time_to_live_reply(reply)
        # etcd leaves out the fraction of the time that is left.
        return None if left < 0 else float(max(0, granted - left - 1))

    async def version(self) -> str:
        """The version of the member at the other end."""
        return (await self.status()).version

    async def status(self) -> api.Status:
        """What the member at the other end says of itself."""
        return upkeep.status_reply(await self._call("Status", b""))

    async def alarms(self) -> Sequence[str]:
        """The alarms that are raised, of any member."""
        return upkeep.alarm_reply(await self._call("Alarm", upkeep.ALARM_REQUEST))

    async def members(self) -> Sequence[api.Member]:
        """The members of the cluster."""
        return upkeep.members_reply(await self._call("MemberList", b""))

    async def watch(self, *, fresh: bool) -> api.Stream:
        """Open a stream of watches; `fresh`: with a new token, since the old one was refused."""
        if fresh and self._settings.credentials is not None:
            await self._login(time.monotonic() + self._settings.patience)
        return self._stream(self._link or self._connect())

    async def ended(self, link: Link, error: grpc.RpcError) -> BackendError | SessionLost:
        """Why a stream ended; what may have broken the connection drops the channel."""
        refusal = api.refusal(*status(error), link.target)
        if isinstance(refusal, Unavailable):
            await self._drop(link)
        return refusal

    # -- calls, endpoints, tokens ------------------------------------------

    async def _call(self, name: str, request: bytes) -> bytes:
        until = time.monotonic() + self._settings.patience
        link = self._link or self._connect()
        try:
            return await self._unary(link, name, request, self._settings.patience)
        except grpc.RpcError as error:
            return await self._again(link, name, request, until, error)

    async def _again(
        self, link: Link, name: str, request: bytes, until: float, error: grpc.RpcError
    ) -> bytes:
        """Call again what was certainly not carried out: elsewhere, or with a new token."""
        fresh = name == "Authenticate" or self._settings.credentials is None
        untried = len(self._settings.targets) - 1
        while True:
            code, text = status(error)
            refusal = api.refusal(code, text, link.target)
            if isinstance(refusal, Unavailable):
                # A channel that merely waits to connect again keeps its back-off.
                if untried or isinstance(refusal, OutcomeUnknown):
                    await self._drop(link)
                if isinstance(refusal, OutcomeUnknown) or not untried:
                    raise refusal from error
                untried -= 1
            elif not fresh and api.is_stale(text):
                fresh = True
                await self._login(until)
            else:
                raise refusal from error
            left = until - time.monotonic()
            if left <= 0:
                raise Unavailable(f"{refusal}; no time was left to try again") from error
            link = self._link or self._connect()
            try:
                return await self._unary(link, name, request, left)
            except grpc.RpcError as again:
                error = again

    async def _login(self, until: float) -> None:
        """Exchange the password for a token."""
        credentials = self._settings.credentials
        assert credentials is not None
        link = self._link or self._connect()
        request = proto.authenticate_request(*credentials)
        left = max(0.001, until - time.monotonic())
        try:
            reply = await self._unary(link, "Authenticate", request, left)
        except grpc.RpcError as error:
            if "authentication is not enabled" in status(error)[1]:
                # As etcd's own client has it: credentials may come before their need.
                self._metadata = (_LEADER,)
                return
            reply = await self._again(link, "Authenticate", request, until, error)
        self._metadata = (_LEADER, ("token", proto.authenticate_reply(reply)))

    def _connect(self) -> Link:
        with self._lock:
            if self._closed:
                raise Unavailable("etcd: the connection is closed")
            if self._link is None:
                targets = self._settings.targets
                self._link = self._dial(targets[self._turn % len(targets)])
            return self._link

    async def _drop(self, link: Link | None) -> None:
        """Close the channel; the next call dials the next endpoint."""
        with self._lock:
            if link is None or link.closed:
                return
            link.closed = True
            if self._link is link:
                self._link = None
                self._turn += 1
        await self._shut(link)


def connection(settings: Settings, flavour: Flavour) -> EtcdWire:
    """A wire of the flavour; each loads only its own half of grpc."""
    if flavour == "asyncio":
        from ._etcd_asyncio import AsyncioEtcdWire

        return AsyncioEtcdWire(settings)
    from ._etcd_blocking import BlockingEtcdWire

    return BlockingEtcdWire(settings)


def status(error: grpc.RpcError) -> tuple[int, str]:
    """The number and the text of gRPC's status."""
    code: grpc.StatusCode = error.code()
    number: int = code.value[0]
    return number, error.details() or ""
