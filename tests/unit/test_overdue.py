"""Blocking calls that the kernel bounds: they end in time, also under signals that never cease."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tenure._runtime.thread import drive
from tenure.errors import OutcomeUnknown
from tenure.wires import _memcached_blocking, _overdue, _redis_blocking

PATIENCE = 0.3
TICK = 0.05
SECONDS = 10.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel bounds none elsewhere")


@pytest.fixture
def ticking() -> Iterator[None]:
    """Signals with a handler that come much more often than the kernel's limit, for a while."""
    done = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: None)

    def tick() -> None:
        give_up = time.monotonic() + SECONDS
        while not done.wait(TICK) and time.monotonic() < give_up:
            os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=tick)
    thread.start()
    yield
    done.set()
    thread.join()
    signal.signal(signal.SIGUSR1, before)


def redis_link(raw: socket.socket) -> Any:
    return _redis_blocking.BlockingLink(raw, PATIENCE, "redis")


def memcached_link(raw: socket.socket) -> Any:
    return _memcached_blocking.BlockingLink(raw, PATIENCE, "memcached")


def redis_call(link: Any) -> Any:
    return drive(link.call(b"*1\r\n$4\r\nPING\r\n"))


def memcached_call(link: Any) -> Any:
    return drive(link.call(b"mn\r\n", 1, PATIENCE))


WIRES = pytest.mark.parametrize(
    ("make", "call", "reply"),
    [
        pytest.param(redis_link, redis_call, b"+PONG\r\n", id="redis"),
        pytest.param(memcached_link, memcached_call, b"HD\r\n", id="memcached"),
    ],
)


@WIRES
def test_signals_do_not_prolong_a_call(
    ticking: None, make: Callable[..., Any], call: Callable[[Any], Any], reply: bytes
) -> None:
    """A server that is silent is given up after the patience, whatever signals come meanwhile."""
    raw, server = socket.socketpair()
    with raw, server:
        link = make(raw)
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown, match=r"none within 0\.3 s"):
            call(link)
        assert time.monotonic() - began < SECONDS / 2


@WIRES
def test_a_connection_between_two_calls_is_left_alone(
    make: Callable[..., Any], call: Callable[[Any], Any], reply: bytes
) -> None:
    """However long ago its last call began, an idle connection is not hung up."""
    raw, server = socket.socketpair()
    with raw, server:
        link = make(raw)
        for _ in range(2):
            server.sendall(reply)
            call(link)
            assert link.since == 0.0
            (watch,) = _overdue._watches
            with watch._changed:
                watch._look(time.monotonic() + 3600)
        assert link.usable()


@WIRES
def test_a_connection_that_nobody_has_is_forgotten(
    make: Callable[..., Any], call: Callable[[Any], Any], reply: bytes
) -> None:
    """Watching a connection does not keep it."""
    raw, server = socket.socketpair()
    with raw, server:
        link = make(raw)
        kept = weakref.ref(link)
        del link
        assert kept() is None


def test_a_child_of_a_fork_has_a_watch_of_its_own() -> None:
    """A thread that the fork left behind is not counted on."""
    raw, server = socket.socketpair()
    with raw, server:
        link = redis_link(raw)
        assert link.limit > PATIENCE
        child = os.fork()
        if not child:
            os._exit(len(_overdue._watches))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
