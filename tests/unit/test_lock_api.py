"""Locks as callers write them: `with`, decorators, and what cannot be decorated."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import tenure
import tenure.aio

URL = "memory://lock-api"


@pytest.fixture
def client() -> Iterator[tenure.Coordinator]:
    """A coordinator over a store in memory."""
    with tenure.connect(URL) as client:
        yield client


def free(client: tenure.Coordinator, name: str) -> bool:
    lease = client.lock(name).try_acquire()
    if lease is None:
        return False
    lease.release()
    return True


def test_a_block_holds_the_lock(client: tenure.Coordinator) -> None:
    """The lock is held inside of the block and free behind it, also if the block raises."""
    with client.lock("block") as lease:
        assert lease.held()
        assert not free(client, "block")
    assert free(client, "block")
    with pytest.raises(LookupError), client.lock("block"):
        raise LookupError
    assert free(client, "block")


def test_a_lease_is_a_block_of_its_own(client: tenure.Coordinator) -> None:
    """A lease from `acquire` can be entered; a released one cannot."""
    with client.lock("lease").acquire() as lease:
        lease.check()
    assert lease.state is tenure.State.RELEASED
    with pytest.raises(tenure.LeaseLost, match="it was released"), lease:
        pass


def test_a_loss_does_not_hide_the_error(client: tenure.Coordinator) -> None:
    """When the block raises and the lease is lost, the block's error stays, with a note."""

    def body() -> None:
        with client.lock("note") as lease:
            client._session.lose(lease._life, "an experiment")
            raise LookupError("my own")

    with pytest.raises(LookupError, match="my own") as caught:
        body()
    assert any("an experiment" in note for note in caught.value.__notes__)


def test_blocks_of_one_lock_nest_by_thread_and_task() -> None:
    """One lock object serves many tasks at a time; each leaves its own lease."""

    async def main() -> None:
        async with tenure.aio.connect(URL) as client:
            lock = client.lock("many")
            inside = 0
            tokens = []

            async def work() -> None:
                nonlocal inside
                async with lock as lease:
                    inside += 1
                    assert inside == 1
                    await asyncio.sleep(0)
                    tokens.append(lease.token)
                    inside -= 1

            await asyncio.gather(*(work() for _ in range(20)))
            assert tokens == sorted(set(tokens))
            assert not lock._entered

    asyncio.run(main())


def test_a_lock_has_a_default_timeout(client: tenure.Coordinator) -> None:
    """The lock's own timeout is for `with` and `acquire()`; one that is given goes before it."""
    lock = client.lock("taken", timeout=0)
    with lock:
        with pytest.raises(tenure.AcquireTimeout, match="'taken' was still taken after 0 s"):
            lock.acquire()
        with pytest.raises(TimeoutError), lock:
            pass
        with pytest.raises(tenure.AcquireTimeout, match=r"after 0.01 s"):
            lock.acquire(timeout=0.01)
    assert not lock._entered


def test_a_decorated_function_holds_the_lock(client: tenure.Coordinator) -> None:
    """Each call runs under the lock; name, docstring, signature and result are the function's."""

    @client.lock("decorated")
    def add(number: int, *, more: int = 1) -> int:
        """Add."""
        assert not free(client, "decorated")
        return number + more

    assert add(1, more=2) == 3
    assert add(1) == 2
    assert free(client, "decorated")
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert list(inspect.signature(add).parameters) == ["number", "more"]


def test_a_decorated_coroutine_function_holds_the_lock() -> None:
    """The asyncio API does the same, and what it returns is a coroutine function still."""

    async def main() -> None:
        async with tenure.aio.connect(URL) as client:

            @client.lock("decorated")
            async def add(number: int) -> int:
                assert await client.lock("decorated").try_acquire() is None
                return number + 1

            assert inspect.iscoroutinefunction(add)
            assert await asyncio.create_task(add(1)) == 2

    asyncio.run(main())


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


async def coroutine() -> int:
    return 1


def plain() -> int:
    return 1


@pytest.mark.parametrize(
    "function, says",
    [(generator, "with"), (async_generator, "with"), (coroutine, "tenure.aio")],
)
def test_what_would_outlive_the_lock_is_not_decorated(
    client: tenure.Coordinator, function: Any, says: str
) -> None:
    """A function that only begins in the call would run without the lock, so it is refused."""
    with pytest.raises(tenure.InvalidArgument, match=says) as caught:
        client.lock("name")(function)
    assert function.__name__ in str(caught.value)


@pytest.mark.parametrize("function", [generator, async_generator, plain])
def test_only_coroutine_functions_are_decorated_in_asyncio(function: Any) -> None:
    """The asyncio API refuses everything but coroutine functions."""

    async def main() -> None:
        async with tenure.aio.connect(URL) as client:
            with pytest.raises(tenure.InvalidArgument, match="not a coroutine function"):
                client.lock("name")(function)

    asyncio.run(main())


def test_reprs(client: tenure.Coordinator) -> None:
    """Every public object tells an operator what it is."""
    lease = client.lock("shown").acquire()
    shown = repr(lease)
    assert shown.startswith(f"<lease 'shown' token={lease.token} owner={client.owner!r} held, ")
    assert shown.endswith(" s left>")
    assert repr(lease.lost) == "<loss of 'shown': not lost>"
    client._session.lose(lease._life, "an experiment")
    assert "lost: an experiment" in repr(lease)
    assert repr(lease.lost) == "<loss of 'shown': an experiment>"
    assert repr(client.lock("shown")) == "<lock 'shown'>"
    assert repr(client) == f"<coordinator {client.owner!r} at memory://lock-api>"
