"""The raw clients of etcd's HTTP gateway: a key is put if it is not there, and removed again."""

from __future__ import annotations

import http.client
import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

from .contestants import AsyncContestant, Contestant
from .raw import load

_LEASE = {"TTL": "15"}


def _bodies(name: str, lease: str) -> tuple[bytes, bytes]:
    """What takes a free lock, and what gives it back."""
    key = b64encode(f"raw-{name}".encode()).decode()
    free = {"key": key, "result": "EQUAL", "target": "CREATE", "create_revision": "0"}
    put = {"request_put": {"key": key, "value": "", "lease": lease}}
    take = {"compare": [free], "success": [put]}
    return json.dumps(take).encode(), json.dumps({"key": key}).encode()


class Httpx(Contestant):
    """httpx2, with the connection that it keeps."""

    def cycle(self, name: str) -> Callable[[], object]:
        client = load("httpx2").Client(base_url=f"http://{self.host}:{self.port}/v3/")
        lease = client.post("lease/grant", json=_LEASE).json()["ID"]
        take, give = _bodies(name, lease)

        def once() -> None:
            client.post("kv/txn", content=take)
            client.post("kv/deleterange", content=give)

        return once


class HttpClient(Contestant):
    """The standard library's client: what HTTP and etcd cost without much of a client."""

    def cycle(self, name: str) -> Callable[[], object]:
        link = http.client.HTTPConnection(self.host, self.port)

        def post(path: str, body: bytes) -> bytes:
            link.request("POST", f"/v3/{path}", body)
            return link.getresponse().read()

        lease = json.loads(post("lease/grant", json.dumps(_LEASE).encode()))["ID"]
        take, give = _bodies(name, lease)

        def once() -> None:
            post("kv/txn", take)
            post("kv/deleterange", give)

        return once


class HttpxAsyncio(AsyncContestant):
    """httpx2's asyncio client."""

    client: Any
    lease: str

    async def start(self) -> None:
        self.client = load("httpx2").AsyncClient(base_url=f"http://{self.host}:{self.port}/v3/")
        self.lease = (await self.client.post("lease/grant", json=_LEASE)).json()["ID"]

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        post = self.client.post
        take, give = _bodies(name, self.lease)

        async def once() -> None:
            await post("kv/txn", content=take)
            await post("kv/deleterange", content=give)

        return once

    async def stop(self) -> None:
        await self.client.aclose()
