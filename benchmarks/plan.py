"""How much of everything one run does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .contestants import ENTRIES, Entry

Row = dict[str, Any]
Scenario = Callable[["Plan"], dict[str, Any]]


@dataclass
class Plan:
    """The size of a run: `--quick` is for trying the harness, not for numbers."""

    drivers: list[str]
    quick: bool
    peers: bool
    seed: int = 1
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    def entries(self, driver: str, *, waiting: bool = False) -> list[Entry]:
        """Who takes part."""
        return [
            entry
            for entry in ENTRIES[driver]
            if (self.peers or entry.kind != "peer") and (entry.waits or not waiting)
        ]

    @property
    def rounds(self) -> int:
        """Rounds of each contestant."""
        return 2 if self.quick else 25

    @property
    def round_seconds(self) -> float:
        """How long a round of one contestant takes."""
        return 0.02 if self.quick else 0.1

    @property
    def handovers(self) -> int:
        """How often the lock is handed over."""
        return 2 if self.quick else 50

    @property
    def idle_seconds(self) -> float:
        """How long an idle waiter is watched."""
        return 0.2 if self.quick else 5.0

    @property
    def storm_seconds(self) -> float:
        """How long contenders contend."""
        return 0.1 if self.quick else 3.0

    @property
    def contenders(self) -> tuple[int, ...]:
        """How many threads contend."""
        return (1, 4) if self.quick else (1, 16, 64)

    @property
    def processes(self) -> int:
        """How many processes contend."""
        return 2 if self.quick else 16

    @property
    def crowds(self) -> dict[str, tuple[int, int]]:
        """A few waiters and many: of one coordinator, and of as many coordinators."""
        if self.quick:
            return {"one coordinator": (2, 20), "each its own": (2, 6)}
        return {"one coordinator": (5, 500), "each its own": (5, 100)}

    @property
    def chains(self) -> int:
        """How often each crowd is measured."""
        return 1 if self.quick else 5

    @property
    def short_chains(self) -> int:
        """How often a short queue is measured for each long one: it is over so soon."""
        return 1 if self.quick else 10

    @property
    def kills(self) -> int:
        """How many holders are killed."""
        return 1 if self.quick else 5

    @property
    def names(self) -> int:
        """How many names are held at a time."""
        return 200 if self.quick else 10_000

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """How many members are in the group that one more joins and leaves."""
        return (1, 10) if self.quick else (1, 100, 1000, 10_000)

    @property
    def group_rounds(self) -> int:
        """Rounds of joining, leaving and reading at each size."""
        return 2 if self.quick else 10

    @property
    def audience(self) -> int:
        """How many watch."""
        return 4 if self.quick else 100

    @property
    def changes(self) -> int:
        """How many changes they are told of."""
        return 2 if self.quick else 30

    @property
    def idle_groups(self) -> int:
        """How many other groups there are, in which nothing happens."""
        return 20 if self.quick else 1000

    @property
    def ring_nodes(self) -> tuple[int, ...]:
        """How many nodes the hash rings have."""
        return (10,) if self.quick else (10, 100, 1000)

    @property
    def import_runs(self) -> int:
        """How often each import is run."""
        return 1 if self.quick else 20


def say(text: str) -> None:
    """Tell how far the run has come."""
    print(text, file=sys.stderr, flush=True)
