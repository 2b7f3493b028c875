"""etcd over gRPC for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from ..errors import OutcomeUnknown, Unavailable
from . import _etcd_api as api
from . import _etcd_proto as proto
from .etcd import EtcdWire, Link, Metadata


class AsyncioEtcdWire(EtcdWire):
    """The wire for asyncio."""

    def _dial(self, target: str) -> Link:
        if self._settings.tls:
            credentials = self._settings.channel_credentials()
            return Link(grpc.aio.secure_channel(target, credentials, self._options), target)
        return Link(grpc.aio.insecure_channel(target, self._options), target)

    async def _unary(self, link: Link, name: str, request: bytes, timeout: float) -> bytes:
        try:
            reply: bytes = await link.calls[name](
                request, timeout=timeout, metadata=self._headers(name)
            )
        except asyncio.CancelledError as error:
            # gRPC also cancels what was under way on a channel that another task closed.
            if not link.closed or _is_cancelled():
                raise
            raise OutcomeUnknown(f"{link.target}: the channel was closed") from error
        except grpc.aio.UsageError as error:
            raise Unavailable(f"{link.target}: the channel was closed") from error
        return reply

    async def _shut(self, link: Link) -> None:
        await link.channel.close()

    def _stream(self, link: Link) -> AsyncioStream:
        return AsyncioStream(self, link, self._metadata)


class AsyncioStream:
    """A stream of watches on an event loop."""

    def __init__(self, wire: AsyncioEtcdWire, link: Link, metadata: Metadata) -> None:
        self._wire = wire
        self._link = link
        self._closed = False
        self._requests = _Requests()
        try:
            self._call = link.watch(self._requests, metadata=metadata)
        except grpc.aio.UsageError as error:
            raise Unavailable(f"{link.target}: the channel was closed") from error

    def send(self, request: api.Watch | api.Unwatch) -> None:
        self._requests.queue.put_nowait(proto.watch_request(request))

    async def receive(self) -> api.News:
        try:
            message = await self._call.read()
        except asyncio.CancelledError as error:
            if not (self._closed or self._link.closed) or _is_cancelled():
                raise
            raise Unavailable(f"{self._link.target}: the stream of watches was closed") from error
        except grpc.RpcError as error:
            self.close()
            raise await self._wire.ended(self._link, error) from error
        if not isinstance(message, bytes):  # the end of the stream
            self.close()
            raise Unavailable(f"{self._link.target}: the stream of watches ended")
        return proto.watch_reply(message)

    def close(self) -> None:
        self._closed = True
        self._call.cancel()
        self._requests.queue.put_nowait(None)


class _Requests(AsyncIterator[bytes]):
    """The requests of a stream, as gRPC reads them: until a None."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def __anext__(self) -> bytes:
        request = await self.queue.get()
        if request is None:
            raise StopAsyncIteration
        return request


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
