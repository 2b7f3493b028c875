"""The command: `scripts/bench [--quick] [--only uncontended,handover] [--drivers redis]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tenure.policy import gate

from . import compat, contended, groups, report, uncontended
from .contestants import DRIVERS
from .ground import pin
from .plan import Plan, Scenario, say

SCENARIOS: dict[str, Scenario] = {
    "imports": uncontended.imports,
    "uncontended": uncontended.uncontended,
    "handover": contended.handover,
    "contention": contended.contention,
    "queues": contended.queues,
    "killed": contended.killed,
    "names": contended.names,
    "groups": groups.groups,
    "idle": groups.idle,
    "watching": groups.watching,
    "elections": groups.elections,
    "rings": groups.rings,
    "compat": compat.compat,
}


def main() -> int:
    """Run what was asked for, write it down, and print the tables."""
    asked = _arguments()
    gate.lift()  # what a driver has earned does not matter here
    plan = Plan(asked.drivers, asked.quick, asked.peers, asked.seed)
    if asked.pin:
        say(f"Everything runs on processor {pin()}. Seed {asked.seed}.")
    results: dict[str, Any] = {}
    for name in asked.only:
        say(name)
        where = report.machine()
        found = SCENARIOS[name](plan)
        results[name] = {
            "machine": where, "results": found, "quick": asked.quick, "pinned": asked.pin
        }  # fmt: skip
        if asked.output is not None:
            report.write(asked.output, {name: results[name]})
    print(report.tables(results))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure Tenure against raw clients and peers."
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, to try the harness")
    parser.add_argument("--only", type=_choice(SCENARIOS), default=list(SCENARIOS), metavar="A,B")
    parser.add_argument("--drivers", type=_choice(DRIVERS), default=list(DRIVERS), metavar="A,B")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--no-pin", dest="pin", action="store_false")
    parser.add_argument("--seed", type=int, default=1, help="for the order within the rounds")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER",
        help="where results.json and README.md are; a quick run writes only if this is given",
    )  # fmt: skip
    asked = parser.parse_args()
    if asked.output is None and not asked.quick:
        asked.output = Path(__file__).parent
    return asked


def _choice(known: Any) -> Any:
    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        for each in chosen:
            if each not in known:
                raise argparse.ArgumentTypeError(f"{each!r} is none of {', '.join(known)}")
        return chosen

    return parse


if __name__ == "__main__":
    sys.exit(main())
