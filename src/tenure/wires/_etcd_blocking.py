"""etcd over gRPC for threads: the calls block, and the coroutines never suspend."""

from __future__ import annotations

import queue

import grpc

from ..errors import Unavailable
from . import _etcd_api as api
from . import _etcd_proto as proto
from .etcd import EtcdWire, Link, Metadata


class BlockingEtcdWire(EtcdWire):
    """The wire for threads: its coroutines block and never suspend."""

    def _dial(self, target: str) -> Link:
        if self._settings.tls:
            credentials = self._settings.channel_credentials()
            return Link(grpc.secure_channel(target, credentials, self._options), target)
        return Link(grpc.insecure_channel(target, self._options), target)

    async def _unary(self, link: Link, name: str, request: bytes, timeout: float) -> bytes:
        try:
            reply: bytes = link.calls[name](request, timeout, self._headers(name))
        except ValueError as error:  # what gRPC raises on a channel that was closed meanwhile
            raise Unavailable(f"{link.target}: the channel was closed") from error
        return reply

    async def _shut(self, link: Link) -> None:
        link.channel.close()

    def _stream(self, link: Link) -> BlockingStream:
        return BlockingStream(self, link, self._metadata)


class BlockingStream:
    """A stream of watches that one thread reads and any may write to."""

    def __init__(self, wire: BlockingEtcdWire, link: Link, metadata: Metadata) -> None:
        self._wire = wire
        self._link = link
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        try:
            self._call = link.watch(iter(self._requests.get, None), metadata=metadata)
        except ValueError as error:
            raise Unavailable(f"{link.target}: the channel was closed") from error

    def send(self, request: api.Watch | api.Unwatch) -> None:
        self._requests.put(proto.watch_request(request))

    async def receive(self) -> api.News:
        try:
            for message in self._call:
                return proto.watch_reply(message)
        except grpc.RpcError as error:
            self.close()
            raise await self._wire.ended(self._link, error) from error
        self.close()
        raise Unavailable(f"{self._link.target}: the stream of watches ended")

    def close(self) -> None:
        self._call.cancel()
        self._requests.put(None)
