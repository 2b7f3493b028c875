"""What a worker understands of groups and elections."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from itertools import repeat

from .contestants import Contestant
from .grouping import Grouping

TOLD_SECONDS = 60.0


class GroupDesk:
    """The commands of the scenarios with groups, for a contestant that has some."""

    contestant: Contestant

    def __init__(self) -> None:
        self._grouping: Grouping | None = None
        self._turns: dict[str, Callable[[], object]] = {}
        self._told: list[int] = []
        self._watchers: list[threading.Event] = []

    def _groups(self) -> Grouping:
        if self._grouping is None:
            self._grouping = self.contestant.grouping()
        return self._grouping

    def fill(self, group: str, count: int, groups: int = 1) -> dict[str, float]:
        """Have so many members more, or so many in each of many groups."""
        grouping, began = self._groups(), time.perf_counter_ns()
        for number in range(groups):
            grouping.fill(group if groups == 1 else f"{group}-{number}", count)
        return {"ns": (time.perf_counter_ns() - began) / max(1, count * groups)}

    def turns(self, group: str, count: int) -> dict[str, float]:
        """Join and leave so often; how long both took together."""
        if group not in self._turns:
            self._turns[group] = self._groups().turn(group)
        return _timed(self._turns[group], count)

    def census(self, group: str, count: int) -> dict[str, float]:
        """Read all the members so often; how long that took."""
        groups = self._groups()
        return {"members": groups.census(group), **_timed(lambda: groups.census(group), count)}

    def audience(self, group: str, watchers: int, own: bool) -> dict[str, int]:
        """Have so many watch."""
        groups = self._groups()
        for _ in range(watchers):
            told = threading.Event()
            self._watchers.append(told)

            def tell(told: threading.Event = told) -> None:
                if not told.is_set():
                    self._told.append(time.monotonic_ns())
                    told.set()

            groups.watch(group, tell, own)
        return {"watchers": watchers}

    def arm(self) -> dict[str, int]:
        """Forget what was told so far."""
        for told in self._watchers:
            told.clear()
        self._told.clear()
        return {}

    def told(self) -> dict[str, list[int]]:
        """When each of the watchers was told of the change; waits for the last."""
        until = time.monotonic() + TOLD_SECONDS
        for told in self._watchers:
            if not told.wait(max(0.0, until - time.monotonic())):
                raise TimeoutError(f"{len(self._told)} of {len(self._watchers)} were told")
        return {"at": sorted(self._told)}

    def join(self, group: str) -> dict[str, int]:
        """Join; when that began."""
        began = time.monotonic_ns()
        self._groups().join(group)
        return {"at": began}

    def leave(self, group: str) -> dict[str, int]:
        """Leave; when that began."""
        began = time.monotonic_ns()
        self._groups().leave(group)
        return {"at": began}

    def lead(self, name: str) -> dict[str, int]:
        """Campaign until elected; when that was."""
        self._groups().lead(name)
        return {"at": time.monotonic_ns()}

    def resign(self, name: str) -> dict[str, int]:
        """Resign; when that began."""
        began = time.monotonic_ns()
        self._groups().resign(name)
        return {"at": began}

    def end_groups(self) -> None:
        """Leave nothing of it."""
        if self._grouping is not None:
            self._grouping.close()


def _timed(once: Callable[[], object], count: int) -> dict[str, float]:
    gc.collect()
    began = time.perf_counter_ns()
    for _ in repeat(None, count):
        once()
    return {"ns": (time.perf_counter_ns() - began) / count}
