"""The raw clients: the fewest calls that take a free lock and give it back, and no more.

No token, no renewal, no loss signal, no check of errors beyond the client's own. What
can wait on the server does; where that is another call, `lock` makes it and `cycle`
does not.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from zlib import crc32

from .contestants import AsyncContestant, AsyncLock, Contestant, Lock

TTL_MS = 15_000
DELETE_IF_MINE = (
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0"
)
MINE = b"0123456789abcdef"


def load(name: str) -> Any:
    """A third-party module; untyped, since it need not be installed where types are checked."""
    return importlib.import_module(name)


class _Calls:
    """Two functions as a lock."""

    def __init__(self, acquire: Callable[[], object], release: Callable[[], object]) -> None:
        self.acquire = acquire
        self.release = release


# -- in this process ---------------------------------------------------------


class ThreadLock(Contestant):
    """The lock of the standard library, one for each name."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._locks: dict[str, threading.Lock] = {}

    def lock(self, name: str) -> Lock:
        return self._locks.setdefault(name, threading.Lock())


class TaskLock(AsyncContestant):
    """asyncio's lock."""

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        lock = asyncio.Lock()

        async def once() -> None:
            await lock.acquire()
            lock.release()

        return once


# -- files -------------------------------------------------------------------


class Flock(Contestant):
    """`flock` on a file that is opened for it."""

    def _file(self, name: str) -> str:
        return os.path.join(self.path, f"raw-{name}")

    def lock(self, name: str) -> Lock:
        path = self._file(name)
        held: list[int] = []

        def acquire() -> None:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            held.append(file)

        return _Calls(acquire, lambda: os.close(held.pop()))

    def cycle(self, name: str) -> Callable[[], object]:
        path, flags = self._file(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC

        def once() -> None:
            file = os.open(path, flags, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            os.close(file)

        return once


class TaskFlock(AsyncContestant):
    """The same calls, made by a coroutine on the loop's own thread."""

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        once = Flock(self.url).cycle(name)

        async def task() -> None:
            once()

        return task


# -- Redis -------------------------------------------------------------------


class RedisClient(Contestant):
    """redis-py with hiredis, in its fastest mode: one connection, no pool."""

    def cycle(self, name: str) -> Callable[[], object]:
        client = load("redis").Redis(self.host, self.port, single_connection_client=True)
        sha = client.script_load(DELETE_IF_MINE)

        def once() -> None:
            client.set(name, MINE, nx=True, px=TTL_MS)
            client.evalsha(sha, 1, name, MINE)

        return once


class RedisConnection(Contestant):
    """redis-py one layer below its client."""

    def cycle(self, name: str) -> Callable[[], object]:
        client = load("redis").Redis(self.host, self.port)
        sha = client.script_load(DELETE_IF_MINE)
        connection = client.connection_pool.get_connection()

        def once() -> None:
            connection.send_command("SET", name, MINE, "NX", "PX", TTL_MS)
            connection.read_response()
            connection.send_command("EVALSHA", sha, 1, name, MINE)
            connection.read_response()

        return once


class RedisSocket(Contestant):
    """The same two commands with no client at all: what Python's sockets and Redis cost."""

    def cycle(self, name: str) -> Callable[[], object]:
        link = socket.create_connection((self.host, self.port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(_packed("SCRIPT", "LOAD", DELETE_IF_MINE))
        sha = link.recv(4096).split(b"\r\n")[1]
        take = _packed("SET", name, MINE, "NX", "PX", TTL_MS)
        give = _packed("EVALSHA", sha, 1, name, MINE)

        def once() -> None:
            link.sendall(take)
            assert link.recv(4096) == b"+OK\r\n"
            link.sendall(give)
            assert link.recv(4096) == b":1\r\n"

        return once


def _packed(*words: str | bytes | int) -> bytes:
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


class RedisAsyncio(AsyncContestant):
    """redis-py's asyncio client, likewise."""

    async def start(self) -> None:
        asyncio_redis = load("redis.asyncio")
        self.client = asyncio_redis.Redis(
            host=self.host, port=self.port, single_connection_client=True
        )
        self.sha = await self.client.script_load(DELETE_IF_MINE)

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        client, sha = self.client, self.sha

        async def once() -> None:
            await client.set(name, MINE, nx=True, px=TTL_MS)
            await client.evalsha(sha, 1, name, MINE)

        return once

    async def stop(self) -> None:
        await self.client.aclose()


# -- PostgreSQL --------------------------------------------------------------


class PostgresqlPrepared(Contestant):
    """libpq's prepared statements through psycopg's thin binding."""

    def _statements(self) -> Any:
        pgconn = load("psycopg").connect(self.url, autocommit=True).pgconn
        pgconn.prepare(b"try", b"select pg_try_advisory_lock($1)", [20])
        pgconn.prepare(b"wait", b"select pg_advisory_lock($1)", [20])
        pgconn.prepare(b"free", b"select pg_advisory_unlock($1)", [20])
        return pgconn

    def lock(self, name: str) -> Lock:
        pgconn, values = self._statements(), [b"%d" % crc32(name.encode())]
        return _Calls(
            lambda: pgconn.exec_prepared(b"wait", values),
            lambda: pgconn.exec_prepared(b"free", values),
        )

    def cycle(self, name: str) -> Callable[[], object]:
        run, values = self._statements().exec_prepared, [b"%d" % crc32(name.encode())]

        def once() -> None:
            assert run(b"try", values).get_value(0, 0) == b"t"
            assert run(b"free", values).get_value(0, 0) == b"t"

        return once


class PostgresqlCursor(Contestant):
    """psycopg as its manual shows it, with prepared statements."""

    def lock(self, name: str) -> Lock:
        cursor = load("psycopg").connect(self.url, autocommit=True).cursor()
        values = (crc32(name.encode()),)
        return _Calls(
            lambda: cursor.execute("select pg_advisory_lock(%s)", values, prepare=True),
            lambda: cursor.execute("select pg_advisory_unlock(%s)", values, prepare=True),
        )

    def cycle(self, name: str) -> Callable[[], object]:
        cursor = load("psycopg").connect(self.url, autocommit=True).cursor()
        values = (crc32(name.encode()),)

        def once() -> None:
            cursor.execute("select pg_try_advisory_lock(%s)", values, prepare=True)
            assert cursor.fetchone()[0]
            cursor.execute("select pg_advisory_unlock(%s)", values, prepare=True)
            assert cursor.fetchone()[0]

        return once


class PostgresqlAsyncio(AsyncContestant):
    """psycopg's asyncio connection."""

    async def start(self) -> None:
        connection = load("psycopg").AsyncConnection
        self.connection = await connection.connect(self.url, autocommit=True)

    def task_lock(self, name: str) -> AsyncLock:
        values, execute = (crc32(name.encode()),), self.connection.execute
        return _Calls(
            lambda: execute("select pg_advisory_lock(%s)", values, prepare=True),
            lambda: execute("select pg_advisory_unlock(%s)", values, prepare=True),
        )  # type: ignore[return-value]

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        values, cursor = (crc32(name.encode()),), self.connection.cursor()

        async def once() -> None:
            await cursor.execute("select pg_try_advisory_lock(%s)", values, prepare=True)
            assert (await cursor.fetchone())[0]
            await cursor.execute("select pg_advisory_unlock(%s)", values, prepare=True)
            assert (await cursor.fetchone())[0]

        return once

    async def stop(self) -> None:
        await self.connection.close()


# -- etcd --------------------------------------------------------------------

_TXN, _DELETE = "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/DeleteRange"


class EtcdTxn(Contestant):
    """gRPC stubs with messages that were serialised beforehand; the key is tied to a lease."""

    def cycle(self, name: str) -> Callable[[], object]:
        channel = load("grpc").insecure_channel(f"{self.host}:{self.port}")
        lease = _lease_id()
        channel.unary_unary("/etcdserverpb.Lease/LeaseGrant")(_grant(lease))
        txn, delete = channel.unary_unary(_TXN), channel.unary_unary(_DELETE)
        take, give = _put_if_absent(name.encode(), lease), _message((1, name.encode()))

        def once() -> None:
            txn(take)
            delete(give)

        return once


class EtcdLock(Contestant):
    """The server's own lock service: a queue of keys, on the server's side."""

    def lock(self, name: str) -> Lock:
        channel = load("grpc").insecure_channel(f"{self.host}:{self.port}")
        lease = _lease_id()
        channel.unary_unary("/etcdserverpb.Lease/LeaseGrant")(_grant(lease))
        take = channel.unary_unary("/v3lockpb.Lock/Lock")
        give = channel.unary_unary("/v3lockpb.Lock/Unlock")
        request, held = _message((1, name.encode()), (2, lease)), list[bytes]()

        def acquire() -> None:
            reply: bytes = take(request)
            header = reply[1]  # its length: the header is a short first field
            held.append(reply[4 + header :])

        return _Calls(acquire, lambda: give(_message((1, held.pop()))))


class EtcdAsyncio(AsyncContestant):
    """gRPC's asyncio stubs, likewise."""

    async def start(self) -> None:
        self.channel = load("grpc.aio").insecure_channel(f"{self.host}:{self.port}")
        self.lease = _lease_id()
        await self.channel.unary_unary("/etcdserverpb.Lease/LeaseGrant")(_grant(self.lease))

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        txn, delete = self.channel.unary_unary(_TXN), self.channel.unary_unary(_DELETE)
        take, give = _put_if_absent(name.encode(), self.lease), _message((1, name.encode()))

        async def once() -> None:
            await txn(take)
            await delete(give)

        return once

    async def stop(self) -> None:
        await self.channel.close()


def _lease_id() -> int:
    return int.from_bytes(os.urandom(7), "big") or 1


def _grant(lease: int) -> bytes:
    return _message((1, 3600), (2, lease))


def _put_if_absent(key: bytes, lease: int) -> bytes:
    absent = _message((2, 1), (3, key))  # creation revision equal to zero
    put = _message((1, key), (2, MINE), (3, lease))
    return _message((1, absent), (2, _message((2, put))))


def _message(*fields: tuple[int, bytes | int]) -> bytes:
    """A protobuf message of numbers and texts."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            out += _varint(number << 3 | 2) + _varint(len(value)) + value
    return out


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
