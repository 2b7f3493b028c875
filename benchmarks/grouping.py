"""Groups and elections as one client sees them: Tenure's, and tooz's."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

from .raw import load

POLL_SECONDS = 0.1
"""How often tooz's watchers, and its candidates, are run: it leaves that to the program."""
CLIENTS_MAX = 100
"""A member of tooz's is a client, with a connection and a thread: no more than so many."""


class Grouping:
    """What a contestant can do with groups and elections."""

    def fill(self, group: str, count: int) -> None:
        """Have that many more members."""
        raise NotImplementedError

    def turn(self, group: str) -> Callable[[], object]:
        """What joins and leaves once."""
        raise NotImplementedError

    def join(self, group: str) -> None:
        """Join, as one member that `leave` takes away."""
        raise NotImplementedError

    def leave(self, group: str) -> None:
        """Leave."""
        raise NotImplementedError

    def census(self, group: str) -> int:
        """Read all members, and what they have published; how many there are."""
        raise NotImplementedError

    def watch(self, group: str, told: Callable[[], None], own: bool) -> None:
        """Call `told` at each change until `close`; with a client of its own, if `own`."""
        raise NotImplementedError

    def lead(self, name: str) -> None:
        """Wait until it leads."""
        raise NotImplementedError

    def resign(self, name: str) -> None:
        """Lead no more."""
        raise NotImplementedError

    def close(self) -> None:
        """End what was begun."""


class TenureGrouping(Grouping):
    """Any number of members and watchers on one coordinator."""

    def __init__(self, coordinator: Any, url: str, options: dict[str, Any]) -> None:
        self._coordinator = coordinator
        self._url = url
        self._options = options
        self._filled = 0
        self._member: Any = None
        self._term: Any = None
        self._others: list[Any] = []
        self._watches: list[Any] = []

    def fill(self, group: str, count: int) -> None:
        found = self._coordinator.group(group)
        for _ in range(count):
            self._filled += 1
            found.join({"number": self._filled}, member=f"{os.getpid()}-{self._filled}")

    def turn(self, group: str) -> Callable[[], object]:
        join = self._coordinator.group(group).join
        return lambda: join({"number": 0}, member="turn").leave()

    def join(self, group: str) -> None:
        self._member = self._coordinator.group(group).join(member="change")

    def leave(self, group: str) -> None:
        self._member.leave()

    def census(self, group: str) -> int:
        return len(self._coordinator.group(group).members())

    def watch(self, group: str, told: Callable[[], None], own: bool) -> None:
        coordinator = self._coordinator
        if own:
            import tenure

            coordinator = tenure.connect(self._url, **self._options)
            self._others.append(coordinator)
        watch = coordinator.group(group).watch()
        watch.__enter__()
        self._watches.append(watch)

        def run() -> None:
            for _ in watch:
                told()

        threading.Thread(target=run, daemon=True).start()

    def lead(self, name: str) -> None:
        self._term = self._coordinator.election(name).campaign()

    def resign(self, name: str) -> None:
        self._term.resign()

    def close(self) -> None:
        for watch in self._watches:
            watch.close()
        for other in self._others:
            other.close()


class ToozGrouping(Grouping):
    """One client for each member of a group, each watcher and each candidate."""

    module = "tooz"

    def __init__(self, connect: Callable[[bytes], Any]) -> None:
        self._connect = connect
        self._clients: list[Any] = []
        self._members: list[Any] = []
        self._present: dict[str, int] = {}
        self._one: Any = None
        self._over = threading.Event()
        self._leads = threading.Event()

    def _client(self) -> Any:
        if len(self._clients) >= CLIENTS_MAX:
            raise NotImplementedError(f"not tried with more than {CLIENTS_MAX} clients")
        client = self._connect(b"%d-%d" % (os.getpid(), len(self._clients)))
        client.start(start_heart=True)
        self._clients.append(client)
        return client

    def _only(self, group: str) -> Any:
        if self._one is None:
            self._one = self._client()
        self._created(self._one, group)
        return self._one

    def _created(self, client: Any, group: str) -> None:
        exists = load(f"{self.module}.coordination").GroupAlreadyExist
        with contextlib.suppress(exists):
            client.create_group(group.encode()).get()

    def fill(self, group: str, count: int) -> None:
        present = self._present.get(group, 0)
        for at in range(present, present + count):
            client = self._members[at] if at < len(self._members) else self._client()
            self._members[at : at + 1] = [client]
            self._created(client, group)
            client.join_group(group.encode(), {"number": at}).get()
        self._present[group] = present + count

    def turn(self, group: str) -> Callable[[], object]:
        client, name = self._only(group), group.encode()

        def once() -> None:
            client.join_group(name, {"number": 0}).get()
            client.leave_group(name).get()

        return once

    def join(self, group: str) -> None:
        self._only(group).join_group(group.encode()).get()

    def leave(self, group: str) -> None:
        self._one.leave_group(group.encode()).get()

    def census(self, group: str) -> int:
        return len(self._only(group).get_members_with_capabilities(group.encode()).get())

    def watch(self, group: str, told: Callable[[], None], own: bool) -> None:
        if not own:
            raise NotImplementedError("every watcher has a client of its own")
        client, name = self._client(), group.encode()
        self._created(client, group)
        client.watch_join_group(name, lambda event: told())
        client.watch_leave_group(name, lambda event: told())
        client.run_watchers()
        self._background(client.run_watchers)

    def _background(self, call: Callable[[], object]) -> None:
        over = self._over

        def run() -> None:
            while not over.wait(POLL_SECONDS):
                call()

        threading.Thread(target=run, daemon=True).start()

    def lead(self, name: str) -> None:
        self._leads.clear()
        self._over = threading.Event()
        client = self._only(name)
        client.watch_elected_as_leader(name.encode(), lambda event: self._leads.set())
        self._background(client.run_watchers)
        self._leads.wait()

    def resign(self, name: str) -> None:
        # Its stand_down_group_leader is there for ZooKeeper alone: elsewhere, one stops.
        self._over.set()
        self._clients.remove(self._one)
        self._one.stop()
        self._one = None

    def close(self) -> None:
        self._over.set()
        for client in self._clients:
            client.stop()
