"""kazoo's own recipes: a party, its watch, and the lock that its election is made of."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .grouping import Grouping


class KazooGrouping(Grouping):
    """Any number of members and watchers on one client, which has one session."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._client = connect()
        self._others: list[Any] = []
        self._members: list[Any] = []
        self._one: Any = None
        self._lock: Any = None

    def _party(self, group: str, member: str) -> Any:
        # Its party keeps what a member publishes in the member's node.
        return self._client.Party(f"/kazoo-{group}", member)

    def fill(self, group: str, count: int) -> None:
        for _ in range(count):
            member = self._party(group, f"{os.getpid()}-{len(self._members)}")
            member.join()
            self._members.append(member)

    def turn(self, group: str) -> Callable[[], object]:
        def once() -> None:
            member = self._party(group, "turn")
            member.join()
            member.leave()

        return once

    def join(self, group: str) -> None:
        self._one = self._party(group, "change")
        self._one.join()

    def leave(self, group: str) -> None:
        self._one.leave()

    def census(self, group: str) -> int:
        return len(list(self._party(group, "reader")))

    def watch(self, group: str, told: Callable[[], None], own: bool) -> None:
        client = self._client
        if own:
            client = self._connect()
            self._others.append(client)
        client.ensure_path(f"/kazoo-{group}")
        client.ChildrenWatch(f"/kazoo-{group}", lambda children: told())

    def lead(self, name: str) -> None:
        self._lock = self._client.Lock(f"/kazoo-election-{name}", f"{os.getpid()}")
        self._lock.acquire()

    def resign(self, name: str) -> None:
        self._lock.release()

    def close(self) -> None:
        for client in (*self._others, self._client):
            client.stop()
            client.close()
