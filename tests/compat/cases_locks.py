"""Locks, and the life of a coordinator."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tenure.compat.tooz import ToozError, coordination
from tenure.compat.tooz.coordination import LockAcquireFailed
from tenure.compat.tooz.locking import LockLost

from .suite import TTL, Env, case, lose, until


def held(lock: Any) -> bool:
    """Whether a lock's object says that it is held."""
    return bool(lock.acquired)


def started(client: Any) -> bool:
    """Whether a coordinator says that it is started."""
    return bool(client.is_started)


@case("get_lock")
def a_lock_has_a_name(env: Env) -> None:
    """The same name is the same lock, as bytes, as text and for Tenure; others are others."""
    name = env.name()
    lock = env.a.get_lock(name.encode())
    assert lock.name == name.encode()
    assert env.b.get_lock(name).name == name
    odd = env.a.get_lock(name.encode() + b"\xff")
    with lock, odd:
        assert not env.b.get_lock(name).acquire(blocking=False)
        assert not env.b.get_lock(odd.name).acquire(blocking=False)
        assert env.tenure.lock(name).try_acquire() is None


@case("lock.acquire")
def a_lock_excludes(env: Env) -> None:
    """Clients of both kinds exclude each other, and wait for as long as they are told to."""
    name = env.name()
    mine, theirs, own = env.a.get_lock(name), env.b.get_lock(name), env.tenure.lock(name)
    assert mine.acquire()
    assert not mine.acquire(blocking=False)  # it contends like any other
    assert not theirs.acquire(blocking=False)
    began = time.monotonic()
    assert not theirs.acquire(timeout=0.2)
    assert not theirs.acquire(blocking=0.2)
    assert not theirs.acquire(timeout=-1)
    assert 0.3 < time.monotonic() - began < 10
    assert own.try_acquire() is None
    waiter = threading.Thread(target=theirs.acquire)
    waiter.start()
    mine.release()
    waiter.join(10)
    assert held(theirs)
    theirs.release()
    with own.acquire(timeout=10):
        assert not mine.acquire(blocking=False)
    assert mine.acquire(True, False, 10)
    assert mine.lease is not None
    assert mine.lease.token > 0
    mine.release()


@case("lock.acquire(shared)", needs="shared")
def a_lock_is_shared(env: Env) -> None:
    """Readers of both kinds hold it together, and keep a writer out."""
    name = env.name()
    mine, theirs = env.a.get_lock(name), env.b.get_lock(name)
    assert mine.acquire(shared=True)
    assert mine.acquire(shared=True)  # two leases of one object
    assert theirs.acquire(blocking=False, shared=True)
    with env.tenure.lock(name, shared=True).acquire(timeout=10):
        assert not theirs.acquire(blocking=False)
        assert mine.release()
        assert mine.release()
        assert not mine.release()
    assert not mine.acquire(blocking=False)
    assert theirs.release()
    assert mine.acquire(timeout=10)
    assert not theirs.acquire(blocking=False, shared=True)
    mine.release()


@case("lock.release", "lock.acquired")
def a_lock_is_released(env: Env) -> None:
    """Who holds it gives it back, once; who does not, cannot."""
    name = env.name()
    mine, theirs = env.a.get_lock(name), env.b.get_lock(name)
    assert not held(mine)
    assert not mine.release()
    assert mine.acquire()
    assert held(mine)
    assert not theirs.release()
    assert not held(theirs)
    assert mine.release()
    assert not held(mine)
    assert not mine.release()
    assert env.tenure.lock(name).holder() is None


@case("lock(…), with lock")
def a_lock_is_held_in_a_block(env: Env) -> None:
    """The block holds it, also with arguments, and is not entered without it."""
    name = env.name()
    mine, theirs = env.a.get_lock(name), env.b.get_lock(name)
    with mine as entered:
        assert entered is mine
        assert held(mine)
        with pytest.raises(LockAcquireFailed, match=name), theirs(blocking=False):
            pytest.fail("it is taken")
        with pytest.raises(LockAcquireFailed), theirs(timeout=0.1):
            pytest.fail("it is taken")
    with theirs(blocking=False) as entered:
        assert entered is theirs
    with pytest.raises(ZeroDivisionError), mine:
        raise ZeroDivisionError
    assert not held(mine)
    assert not held(theirs)


@case("lock.is_still_owner", "lock.heartbeat")
def a_loss_is_told(env: Env) -> None:
    """Who has lost its session holds no lock, says so, and leaves no block as if it had."""
    name = env.name()
    client = env.tooz(env.name())
    lock, other = client.get_lock(name), client.get_lock(env.name())
    assert not lock.is_still_owner()
    assert not lock.heartbeat()
    assert lock.acquire()
    assert lock.is_still_owner()
    assert lock.heartbeat()

    def lost_in_a_block(error: Exception | None) -> None:
        with other(timeout=10):
            lose(client)
            if error is not None:
                raise error

    with pytest.raises(LockLost, match="as the test wants it"):
        lost_in_a_block(None)
    assert not held(lock)
    assert not lock.heartbeat()
    assert not lock.is_still_owner()
    assert not lock.release()
    assert lock.acquire(timeout=10)  # the object is as good as new
    with pytest.raises(ZeroDivisionError) as caught:
        lost_in_a_block(ZeroDivisionError())
    assert "was lost" in caught.value.__notes__[0]
    env.tenure.lock(name).acquire(timeout=10).release()
    client.stop()


@case("lock.break_", needs="claims")
def a_lock_is_broken(env: Env) -> None:
    """It is taken away from whoever holds it, who is told when it asks; readers lose it, too."""
    name = env.name()
    mine, theirs = env.a.get_lock(name), env.b.get_lock(name)
    assert not theirs.break_()
    assert mine.acquire()
    assert theirs.break_()
    assert not mine.is_still_owner()
    assert theirs.acquire(timeout=10)
    mine.release()
    assert theirs.is_still_owner()  # a late release frees nothing of anybody else's
    theirs.release()
    lease = env.tenure.lock(name).acquire(timeout=10)
    assert mine.break_()
    assert mine.acquire(timeout=10)
    lease.release()
    assert mine.is_still_owner()
    mine.release()
    if env.traits.shared:
        assert mine.acquire(shared=True)
        assert theirs.acquire(shared=True)
        assert theirs.break_()
        with env.tenure.lock(name).acquire(timeout=10):
            assert not mine.is_still_owner()
        mine.release()
        theirs.release()


@case("heartbeat")
def a_coordinator_beats(env: Env) -> None:
    """A heartbeat says when the next one is due; what is held does not depend on it."""
    with env.a.get_lock(env.name()) as lock:
        assert 0 < env.a.heartbeat() <= TTL / 3
        assert held(lock)


@case("start, stop")
def a_coordinator_starts_and_stops(env: Env) -> None:
    """Stopping gives all back at once; what is stopped can be started again."""
    name = env.name()
    client = env.tooz(b"passing", start=False)
    with pytest.raises(ToozError, match="not started"):
        client.stop()
    lock = client.get_lock(name)
    with pytest.raises(ToozError, match="start"):
        lock.acquire()
    client.start(start_heart=True)
    assert started(client)
    with pytest.raises(ToozError, match="already"):
        client.start()
    until(lambda: client.heart.beats)
    assert lock.acquire()
    client.stop()
    assert not started(client)
    assert not client.heart.is_alive()
    assert not held(lock)
    with env.tenure.lock(name).acquire(timeout=1):
        pass
    client.start()
    assert lock.acquire(timeout=10)
    client.stop()


@case("get_coordinator(characteristics)")
def characteristics_are_those_of_the_driver(env: Env) -> None:
    """A driver is what was found of it, and is refused for what it is not."""
    kinds, traits = coordination.Characteristics, env.traits
    has = set(env.a.CHARACTERISTICS)
    assert kinds.DISTRIBUTED_ACROSS_THREADS in has
    assert (kinds.DISTRIBUTED_ACROSS_PROCESSES in has) == (traits.scope != "threads")
    assert (kinds.DISTRIBUTED_ACROSS_HOSTS in has) == (traits.scope == "hosts")
    assert (kinds.NON_TIMEOUT_BASED in has) == (traits.frees_on_death and traits.linger == 1)
    coordination.get_coordinator(env.url, b"c", has, timeout=5)
    with pytest.raises(coordination.ToozDriverChosenPoorly, match="SERIALIZABLE"):
        coordination.get_coordinator(env.url, b"c", [kinds.SERIALIZABLE], timeout=5)
