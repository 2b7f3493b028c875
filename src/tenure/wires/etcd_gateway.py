"""etcd over its HTTP gateway: the same verbs as over gRPC, in JSON.

Every server has the gateway built in, on the port of its clients. What it cannot do is
to take further requests on a stream that has begun to answer; a watch that is wanted
later therefore has a connection of its own.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from .._runtime.base import Runtime
from ..errors import (
    BackendError,
    OutcomeUnknown,
    ProtocolError,
    SessionLost,
    Unavailable,
    Unsupported,
)
from . import _etcd_api as api
from . import _etcd_json as messages
from . import _etcd_upkeep as upkeep
from .http import Reply, Settings, Wire, wire

_PATHS = {
    "Range": "/kv/range",
    "DeleteRange": "/kv/deleterange",
    "Txn": "/kv/txn",
    "LeaseGrant": "/lease/grant",
    "LeaseRevoke": "/lease/revoke",
    "LeaseKeepAlive": "/lease/keepalive",
    "LeaseTimeToLive": "/lease/timetolive",
    "Authenticate": "/auth/authenticate",
    "Status": "/maintenance/status",
    "Alarm": "/maintenance/alarm",
    "MemberList": "/cluster/member/list",
    "Watch": "/watch",
}
# Where etcd 3.3 had them.
_FORMER_PATHS = {"LeaseRevoke": "/kv/lease/revoke", "LeaseTimeToLive": "/kv/lease/timetolive"}

# A member without a leader must refuse, not serve what it last knew.
_LEADER = {"Content-Type": "application/json", "Grpc-Metadata-hasleader": "true"}
_LEAST_VERSION = (3, 3)
_VERSION = re.compile(r"(\d+)\.(\d+)\.")


class Watches(api.Stream, Protocol):
    """What the two flavours offer to the wire, beyond what they do for the driver."""

    async def ended(self) -> None:
        """Wait until nothing of a closed stream is left."""

    def abandon(self) -> None:
        """In a forked child: let go of what is not a link of the HTTP wire."""


class GatewayWire:
    """The verbs over HTTP; `http` is the wire of one flavour, with `_LEADER` for headers."""

    client = ("", "")

    def __init__(
        self, http: Wire[Any], runtime: Runtime, credentials: tuple[str, str] | None
    ) -> None:
        self.http = http
        self._runtime = runtime
        self._credentials = credentials
        self._paths = {name: f"/v3{path}" for name, path in _PATHS.items()}
        self._stream: Watches | None = None
        self._version = ""
        self._watches: Callable[[Any, str], Watches]
        if runtime.flavour == "asyncio":
            from ._etcd_gateway_asyncio import AsyncioWatches

            self._watches = AsyncioWatches
        else:
            from ._etcd_gateway_blocking import BlockingWatches

            self._watches = BlockingWatches

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.http!r}>"

    # -- the verbs ---------------------------------------------------------

    async def open(self) -> None:
        """Find out where the gateway is; authenticate, if there are credentials."""
        await self.http.open(self._runtime)
        await self._discover()
        if self._credentials is not None:
            await self._login(time.monotonic() + self.http.settings.patience)

    async def close(self) -> None:
        """Close the connections; calls under way end as `OutcomeUnknown`."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
            await stream.ended()
        await self.http.close()

    def abandon(self) -> None:
        """Let go of what a forked child inherited."""
        self.http.abandon()
        if self._stream is not None:
            self._stream.abandon()

    async def get(self, get: api.Get) -> api.Found:
        """Read a key or a range, linearizably."""
        return messages.range_reply(await self._call("Range", messages.range_request(get)))

    async def delete(self, key: bytes) -> None:
        """Remove a key."""
        await self._call("DeleteRange", messages.delete_request(key))

    async def txn(
        self,
        guards: Sequence[api.Guard],
        then: Sequence[api.Operation],
        otherwise: Sequence[api.Operation] = (),
    ) -> api.Outcome:
        """Carry out one of two lists of operations at once."""
        request = messages.txn_request(guards, then, otherwise)
        return messages.txn_reply(await self._call("Txn", request))

    async def lease_grant(self, lease: int, ttl: int) -> bool:
        """Grant a lease under a given number; False if there is one with that number."""
        try:
            await self._call("LeaseGrant", messages.lease_grant_request(lease, ttl))
        except BackendError as error:
            if "lease already exists" in str(error):
                return False
            raise
        return True

    async def lease_revoke(self, lease: int) -> bool:
        """End a lease and remove its keys; False if there was none."""
        try:
            await self._call("LeaseRevoke", messages.lease_request(lease))
        except SessionLost:
            return False
        return True

    async def lease_keepalive(self, lease: int) -> int:
        """Restart a lease's time; return the seconds it has, 0 if there is no such lease."""
        reply = await self._call("LeaseKeepAlive", messages.lease_request(lease))
        return messages.number(reply.get("result", {}), "TTL")

    async def lease_age(self, lease: int) -> float | None:
        """Whole seconds since a lease was kept alive last; None if there is no such lease."""
        reply = await self._call("LeaseTimeToLive", messages.lease_request(lease))
        left = messages.number(reply, "TTL")
        # etcd leaves out the fraction of the time that is left.
        age = float(max(0, messages.number(reply, "grantedTTL") - left - 1))
        return None if left < 0 else age

    async def version(self) -> str:
        """The version of the member at the other end; for nothing just after `open`, which asks."""
        told, self._version = self._version, ""
        return told or (await self.status()).version

    async def status(self) -> api.Status:
        """What the member at the other end says of itself."""
        return upkeep.status_json(await self._call("Status", {}))

    async def alarms(self) -> Sequence[str]:
        """The alarms that are raised, of any member."""
        return upkeep.alarm_json(await self._call("Alarm", {"action": "GET"}))

    async def members(self) -> Sequence[api.Member]:
        """The members of the cluster."""
        return upkeep.members_json(await self._call("MemberList", {}))

    async def watch(self, *, fresh: bool) -> api.Stream:
        """Open a stream of watches; `fresh`: with a new token, since the old one was refused."""
        if fresh and self._credentials is not None:
            await self._login(time.monotonic() + self.http.settings.patience)
        self._stream = self._watches(self.http, self._paths["Watch"])
        return self._stream

    # -- calls, servers, tokens --------------------------------------------

    async def _call(self, name: str, request: messages.Json) -> messages.Json:
        body = messages.packed(request)
        reply = await self.http.request("POST", self._paths[name], body)
        if reply.status == 200:
            message = messages.parsed(reply.body)
            if "error" not in message:  # a stream's error comes after its status
                return message
        return await self._again(name, body, reply)

    async def _again(self, name: str, body: bytes, reply: Reply) -> messages.Json:
        """Call again what was certainly not carried out: elsewhere, or with a new token."""
        until = time.monotonic() + self.http.settings.patience
        fresh = name == "Authenticate" or self._credentials is None
        untried = len(self.http.settings.hosts) - 1
        while True:
            refusal, text = messages.refused(reply.status, reply.body, self.http.settings.name)
            if isinstance(refusal, Unavailable):
                self.http.move_on()
                if isinstance(refusal, OutcomeUnknown) or not untried:
                    raise refusal
                untried -= 1
            elif not fresh and api.is_stale(text):
                fresh = True
                await self._login(until)
            else:
                raise refusal
            left = until - time.monotonic()
            if left <= 0:
                raise Unavailable(f"{refusal}; no time was left to try again") from refusal
            reply = await self.http.request("POST", self._paths[name], body, left)
            if reply.status == 200:
                message = messages.parsed(reply.body)
                if "error" not in message:
                    return message

    async def _login(self, until: float) -> None:
        """Exchange the password for a token."""
        assert self._credentials is not None
        name, password = self._credentials
        body = messages.packed({"name": name, "password": password})
        self.http.authorize(_LEADER)  # with an old token, even a login would be refused
        left = max(0.001, until - time.monotonic())
        reply = await self.http.request("POST", self._paths["Authenticate"], body, left)
        if reply.status == 200:
            message = messages.parsed(reply.body)
        elif "authentication is not enabled" in messages.refused(reply.status, reply.body, "")[1]:
            return  # as etcd's own client has it: credentials may come before their need
        else:
            message = await self._again("Authenticate", body, reply)
        token = message.get("token")
        if not isinstance(token, str):
            raise ProtocolError("etcd: an answer to the authentication has no token in it")
        self.http.authorize({**_LEADER, "Authorization": token})

    async def _discover(self) -> None:
        """Set the paths to what this version of etcd calls them."""
        reply = await self.http.request("GET", "/version")
        found = None
        if reply.status == 200:
            self._version = str(messages.parsed(reply.body).get("etcdserver", ""))
            found = _VERSION.match(self._version)
        if found is not None:
            version = int(found[1]), int(found[2])
            if version < _LEAST_VERSION:
                raise Unsupported(
                    f"{self.http.settings.name}: this is etcd {version[0]}.{version[1]}, which "
                    "cannot compare a whole range of keys; 3.3 and later can"
                )
            self._set_paths("/v3beta" if version == (3, 3) else "/v3")
            return
        self._version = ""
        # Something in between hides the version: look where the gateway answers.
        body = messages.packed(messages.range_request(api.Get(b"\0", limit=1)))
        for prefix in ("/v3", "/v3beta"):
            reply = await self.http.request("POST", f"{prefix}/kv/range", body)
            if reply.status != 404:
                self._set_paths(prefix)
                return
        raise ProtocolError(
            f"{self.http.settings.name}: no gateway of etcd 3.3 or later answers there"
        )

    def _set_paths(self, prefix: str) -> None:
        former: Mapping[str, str] = _FORMER_PATHS if prefix == "/v3beta" else {}
        self._paths = {name: prefix + path for name, path in {**_PATHS, **former}.items()}


def connection(
    settings: Settings, runtime: Runtime, credentials: tuple[str, str] | None
) -> GatewayWire:
    """A wire of the runtime's flavour."""
    http = wire(dataclasses.replace(settings, headers=_LEADER), runtime.flavour)
    return GatewayWire(http, runtime, credentials)
