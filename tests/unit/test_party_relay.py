"""The relay into another network: what it leaves behind."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import warnings

import pytest

from tenure.testing.experiments._party_relay import Relay

LIMIT = 10.0


def nowhere() -> None:
    """Both sides are in this network."""


@pytest.mark.parametrize("turns", range(12))
def test_what_is_accepted_at_the_end_is_closed(turns: int) -> None:
    """A connection that comes while the relay is closed is ended, however far it has come."""
    with socket.create_server(("127.0.0.1", 0)) as far:
        relay = Relay(("127.0.0.1", 0), far.getsockname(), nowhere, nowhere)
        near, loop = relay._listener.getsockname(), relay._loop
        held, go = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            go.wait(LIMIT)
            later(turns)

        def later(left: int) -> None:
            if left:
                loop.call_soon(later, left - 1)
            else:
                relay._stop.set()

        loop.call_soon_threadsafe(hold)
        assert held.wait(LIMIT)
        clients = [socket.create_connection(near, LIMIT) for _ in range(2)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            go.set()
            relay.close()
            gc.collect()
        for client in clients:
            with client, contextlib.suppress(ConnectionResetError):  # it was not accepted
                assert client.recv(1) == b""
        assert [str(each.message) for each in caught] == []
