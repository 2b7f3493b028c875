"""Connecting and closing: identity, defaults, and the ways in which both can be written."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import tenure
import tenure.aio

URL = "memory://connect"


def test_the_owner_names_host_and_process() -> None:
    """Without an owner, host, process and a random part tell two clients apart."""
    with tenure.connect(URL) as a, tenure.connect(URL) as b:
        assert a.owner != b.owner
        for client in (a, b):
            host, pid, part = client.owner.rsplit(":", 2)
            assert (host, int(pid)) == (os.uname().nodename, os.getpid())
            assert len(part) == 6


def test_options_in_the_url_and_arguments() -> None:
    """TTL and namespace can stand in the URL; an argument goes before them."""
    with (
        tenure.connect(f"{URL}?ttl=7&namespace=here") as a,
        tenure.connect(f"{URL}?ttl=7&namespace=there", ttl=3, namespace="here") as b,
        tenure.connect(URL) as c,
    ):
        assert (a.ttl, b.ttl, c.ttl) == (7.0, 3.0, 15.0)
        with a.lock("name"):
            assert b.lock("name").try_acquire() is None
            with c.lock("name"):
                pass


def test_closing_twice_and_using_a_closed_one() -> None:
    """The second `close` does nothing, and a closed coordinator says so, whatever it is asked."""
    client = tenure.connect(URL)
    lease = client.lock("name").acquire()
    client.close()
    client.close()
    assert not lease.held()
    lease.release()
    for call in (client.lock("name").acquire, client.lock("name").try_acquire):
        with pytest.raises(tenure.ClosedError, match="closed"):
            call()
    with pytest.raises(tenure.ClosedError):
        client.lock("name").holder()


def test_asyncio_connects_in_two_ways() -> None:
    """`await connect()` and `async with connect()` give the same, and each call its own client."""

    async def main() -> None:
        client = await tenure.aio.connect(URL)
        async with client, tenure.aio.connect(URL, owner="other") as other:
            assert isinstance(client, tenure.aio.Coordinator)
            assert other.owner == "other"
            async with client.lock("name"):
                assert await other.lock("name").try_acquire() is None
        for each in (client, other):
            with pytest.raises(tenure.ClosedError):
                await each.lock("name").acquire()

    asyncio.run(main())


def test_both_apis_exclude_each_other(tmp_path: Path) -> None:
    """What a thread holds a task cannot get, and the other way round."""

    async def main(client: tenure.Coordinator, url: str) -> None:
        async with tenure.aio.connect(url) as other:
            lease = await other.lock("name").acquire()
            assert client.lock("name").try_acquire() is None
            await lease.release()
            with client.lock("name"):
                assert await other.lock("name").try_acquire() is None

    for url in (URL, f"file://{tmp_path}"):
        with tenure.connect(url) as client:
            asyncio.run(main(client, url))


def test_events_tell_a_story() -> None:
    """The hook hears of each acquire, wait and release with name, token and owner."""
    events: list[tenure.Event] = []
    with tenure.connect(URL, owner="me", on_event=events.append) as client:
        with client.lock("a") as lease:
            pass
        with client.lock("b"):
            assert client.lock("b").try_acquire() is None
    assert [(event.kind, event.name) for event in events if event.kind != "renewed"] == [
        ("acquired", "a"),
        ("released", "a"),
        ("acquired", "b"),
        ("released", "b"),
    ]
    assert {event.owner for event in events} == {"me"}
    assert events[0].token == lease.token
    assert all(event.seconds >= 0 for event in events)
