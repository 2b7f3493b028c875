"""The raw clients of Consul: a key is locked for a session, and unlocked again."""

from __future__ import annotations

import http.client
import json
from collections.abc import Awaitable, Callable
from typing import Any

from .contestants import AsyncContestant, Contestant
from .raw import load

_SESSION = {"TTL": "15s", "LockDelay": "0s", "Checks": [], "NodeChecks": []}


class Httpx(Contestant):
    """httpx2, with the connection that it keeps."""

    def cycle(self, name: str) -> Callable[[], object]:
        client = load("httpx2").Client(base_url=f"http://{self.host}:{self.port}/v1/")
        session = client.put("session/create", json=_SESSION).json()["ID"]
        take, give = (f"kv/raw-{name}?{what}={session}" for what in ("acquire", "release"))

        def once() -> None:
            client.put(take, content=b"")
            client.put(give, content=b"")

        return once


class HttpClient(Contestant):
    """The standard library's client: what HTTP and Consul cost without much of a client."""

    def cycle(self, name: str) -> Callable[[], object]:
        link = http.client.HTTPConnection(self.host, self.port)

        def put(path: str, body: bytes) -> bytes:
            link.request("PUT", f"/v1/{path}", body)
            return link.getresponse().read()

        session = json.loads(put("session/create", json.dumps(_SESSION).encode()))["ID"]
        take, give = (f"kv/raw-{name}?{what}={session}" for what in ("acquire", "release"))

        def once() -> None:
            put(take, b"")
            put(give, b"")

        return once


class PyConsul(Contestant):
    """py-consul, which has no lock of its own: its calls that one is made of."""

    def cycle(self, name: str) -> Callable[[], object]:
        client = load("consul").Consul(self.host, self.port)
        session = client.session.create(ttl=15, lock_delay=0, checks=[])
        key = f"py-consul-{name}"

        def once() -> None:
            client.kv.put(key, "", acquire=session)
            client.kv.put(key, "", release=session)

        return once


class HttpxAsyncio(AsyncContestant):
    """httpx2's asyncio client."""

    client: Any
    session: str

    async def start(self) -> None:
        url = f"http://{self.host}:{self.port}/v1/"
        self.client = load("httpx2").AsyncClient(base_url=url)
        self.session = (await self.client.put("session/create", json=_SESSION)).json()["ID"]

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        put = self.client.put
        take, give = (f"kv/raw-{name}?{what}={self.session}" for what in ("acquire", "release"))

        async def once() -> None:
            await put(take, content=b"")
            await put(give, content=b"")

        return once

    async def stop(self) -> None:
        await self.client.aclose()
