"""No driver holds up the event loop: a whole life of a lock, with every blocking call forbidden."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator

import pytest
from blockbuster import BlockingError, blockbuster_ctx

import tenure
import tenure.aio
from tenure.testing.backends import BACKENDS, Backend

TTL = 2.0
SILENT_TTL = 4.0
"""Longer, so that a third of it is not what a busy machine may hold up a loop for."""
SECONDS_MAX = 30.0


@pytest.fixture(params=BACKENDS, ids=lambda kind: str(kind.name))
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend in turn, up and running."""
    backend: Backend = request.param()
    backend.start()
    yield backend
    backend.stop()


async def a_life(backend: Backend) -> None:
    """Acquire, contend, wait, time out, be cancelled, renew, lose, release and close."""
    async with (
        tenure.aio.connect(backend.url, ttl=TTL) as a,
        tenure.aio.connect(backend.url, ttl=TTL) as b,
    ):
        lease = await a.lock("name").acquire()
        assert await b.lock("name").try_acquire() is None
        assert (await b.lock("name").holder()) is not None
        with pytest.raises(tenure.AcquireTimeout):
            await b.lock("name").acquire(timeout=0.1)
        given_up = asyncio.ensure_future(b.lock("name").acquire())
        waiter = asyncio.ensure_future(b.lock("name").acquire(timeout=10))
        await asyncio.sleep(TTL / 2)  # long enough for a renewal of both
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        await lease.release()
        other = await waiter
        assert other.token > lease.token
        a._session.lose(b._session._life or other._life, "an experiment")
        assert await other.lost.wait(5)
        with pytest.raises(tenure.LeaseLost):
            await other.release()
        again = await a.lock("another").acquire(timeout=10)
        again.check()


def test_the_loop_is_never_held_up(backend: Backend) -> None:
    """From connect to close nothing that the library does on the loop's thread blocks."""

    async def main() -> None:
        async with asyncio.timeout(SECONDS_MAX):
            await a_life(backend)

    # Whatever is imported lazily is imported now: that reads files, once in a process.
    asyncio.run(main())
    with blockbuster_ctx("tenure") as busters:
        for name in ("os.stat", "os.read", "os.write", "os.unlink", "io.BufferedReader.read"):
            assert name in busters.functions
        if backend.name == "etcd":
            # When its last channel is collected, which may be at any moment, gRPC itself joins a
            # thread that it has just told to end.
            for name in ("threading.Lock.acquire", "threading.Lock.acquire_lock"):
                busters.functions[name].can_block_in("threading.py", "_wait_for_tstate_lock")
        asyncio.run(main())


def test_a_silent_server_holds_up_nothing(backend: Backend) -> None:
    """While a server is stopped, calls wait for it and the loop goes on, also in C code."""
    server = backend.server
    if server is None:
        return  # nothing to stop

    async def main() -> None:
        lags: list[float] = []

        async def beat() -> None:
            while True:
                began = tenure.now()
                await asyncio.sleep(0.01)
                lags.append(tenure.now() - began)

        async with asyncio.timeout(SECONDS_MAX):
            async with tenure.aio.connect(backend.url, ttl=SILENT_TTL) as client:
                await (await client.lock("name").acquire()).release()
                server.pause()
                heart = asyncio.ensure_future(beat())
                with pytest.raises((tenure.BackendError, tenure.SessionLost)):
                    await client.lock("name").try_acquire()
                with pytest.raises(tenure.BackendError):
                    await tenure.aio.connect(backend.url, ttl=SILENT_TTL)
            heart.cancel()
        # A call that blocked would do so for its patience, a third of the TTL.
        assert max(lags) < SILENT_TTL / 3 * 0.9
        assert len(lags) > 10

    try:
        asyncio.run(main())
    finally:
        server.resume()


def test_a_server_that_is_not_there_holds_up_nothing() -> None:
    """Connecting in vain does not block the loop either."""

    async def main() -> None:
        for scheme in ("redis", "memcached", "postgresql", "mysql", "etcd"):
            url = f"{scheme}://127.0.0.1:1/{'db' if scheme == 'postgresql' else ''}"
            with pytest.raises(tenure.BackendError):
                await tenure.aio.connect(url, ttl=TTL)

    asyncio.run(main())
    with blockbuster_ctx("tenure"):
        asyncio.run(main())


def test_a_blocking_call_would_be_noticed(tmp_path: object) -> None:
    """The watch itself works: a library that slept, or read a file, would be found out."""

    async def main() -> None:
        with pytest.raises(BlockingError):
            time.sleep(0.001)  # noqa: ASYNC251
        with pytest.raises(BlockingError):
            os.stat("/")

    with blockbuster_ctx():
        asyncio.run(main())
