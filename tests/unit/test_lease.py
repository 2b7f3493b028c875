"""The lease as its holder sees it: states, callbacks, the signal, and its release."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

import tenure
import tenure.aio
from tenure import State

URL = "memory://lease"


@pytest.fixture
def client() -> Iterator[tenure.Coordinator]:
    """A coordinator over a store in memory."""
    with tenure.connect(URL) as client:
        yield client


def lose(lease: tenure.Lease | tenure.aio.Lease, reason: str = "an experiment") -> None:
    lease._session.lose(lease._life, reason)


def test_states(client: tenure.Coordinator) -> None:
    """A lease is held, in doubt, held again, and at the end released; doubt is not loss."""
    lease = client.lock("states").acquire()
    states = [lease.state]
    lease._life.doubt = "no route"
    states.append(lease.state)
    lease.check()
    lease._life.doubt = None
    states.append(lease.state)
    lease.release()
    states.append(lease.state)
    assert states == [State.HELD, State.IN_DOUBT, State.HELD, State.RELEASED]
    assert lease.reason is None
    with pytest.raises(tenure.LeaseLost, match="it was released"):
        lease.check()


def test_a_release_after_the_loss_raises(client: tenure.Coordinator) -> None:
    """Releasing a lost lease says so, each time, with the lease and the reason."""
    lease = client.lock("lost").acquire()
    lose(lease)
    for _ in range(2):
        with pytest.raises(tenure.LeaseLost, match="an experiment") as caught:
            lease.release()
        assert caught.value.lease is lease
        assert caught.value.reason == lease.reason == "an experiment"


def test_a_loss_after_the_release_is_none(client: tenure.Coordinator) -> None:
    """A lease that was released stays released, whatever becomes of the session."""
    lease = client.lock("released").acquire()
    calls: list[tenure.Lease] = []
    lease.on_lost(calls.append)
    lease.release()
    lose(lease)
    assert lease.state is State.RELEASED
    assert not lease.lost
    assert lease.reason is None
    assert calls == []
    lease.release()


def test_callbacks_come_in_order_and_their_errors_harm_nothing(
    client: tenure.Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    """Callbacks are called in the order of registration; one that raises is logged."""
    lease = client.lock("callbacks").acquire()
    calls: list[int] = []

    def broken(lease: tenure.Lease) -> None:
        calls.append(2)
        raise LookupError("my own mistake")

    lease.on_lost(lambda lease: calls.append(1))
    lease.on_lost(broken)
    lease.on_lost(lambda lease: calls.append(3))
    lose(lease)
    lease.on_lost(lambda lease: calls.append(4))
    assert calls == [1, 2, 3, 4]
    assert "my own mistake" in caplog.text


def test_a_callback_may_close_the_coordinator(client: tenure.Coordinator) -> None:
    """A callback on one of Tenure's threads may ask, release and even close without a deadlock."""
    lease = client.lock("close").acquire()
    done = threading.Event()

    def close(lease: tenure.Lease) -> None:
        assert not lease.held()
        client.close()
        done.set()

    lease.on_lost(close)
    threading.Thread(target=lose, args=(lease,)).start()
    assert done.wait(10)


def test_waiting_for_the_loss(client: tenure.Coordinator) -> None:
    """`lost.wait` ends with the loss, or says at the time-out that there was none."""
    lease = client.lock("wait").acquire()
    assert lease.lost.wait(0) is False
    assert lease.lost.wait(0.01) is False
    results: list[bool] = []
    waiters = [
        threading.Thread(target=lambda: results.append(lease.lost.wait(10))) for _ in range(3)
    ]
    for waiter in waiters:
        waiter.start()
    lose(lease)
    for waiter in waiters:
        waiter.join(10)
    assert results == [True, True, True]
    assert lease.lost.is_set()
    assert lease.lost.wait() is True


def test_waiting_for_the_loss_ends_with_the_release(client: tenure.Coordinator) -> None:
    """Whoever waits for a loss without a time-out is not left waiting when there can be none."""
    lease = client.lock("name").acquire()
    results: list[bool] = []
    waiter = threading.Thread(target=lambda: results.append(lease.lost.wait()))
    waiter.start()
    lease.release()
    waiter.join(10)
    assert results == [False]
    assert lease.lost.wait() is False


def test_a_loss_from_another_thread_cancels_the_body() -> None:
    """In asyncio a loss that another thread tells of cancels the body at once."""

    async def main() -> None:
        async with tenure.aio.connect(URL) as client:
            lease = await client.lock("cancelled").acquire()

            async def body() -> None:
                async with asyncio.timeout(10), lease.cancel_on_loss():
                    threading.Thread(target=lose, args=(lease,)).start()
                    await asyncio.Event().wait()

            for _ in range(2):  # and the body of a lost lease does not even begin
                with pytest.raises(tenure.LeaseLost, match="an experiment"):
                    await body()

    asyncio.run(main())


def test_a_loss_behind_the_block_cancels_nothing() -> None:
    """When the block of `cancel_on_loss` is over, a loss no longer cancels the task."""

    async def main() -> None:
        async with tenure.aio.connect(URL) as client:
            lease = await client.lock("behind").acquire()
            async with lease.cancel_on_loss():
                pass
            lose(lease)
            for _ in range(3):
                await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            assert not task.cancelling()

    asyncio.run(main())
