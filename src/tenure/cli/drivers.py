"""`tenure drivers`: what is installed, what it can do, and what to install for the rest."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from .._model import Traits
from ..drivers import registry
from ..errors import UnknownDriver
from ._exit import ExitCode, plain

logger = logging.getLogger("tenure")

_COLUMNS = ("DRIVER", "SCHEMES", "SCOPE", "SHARED", "FAIR", "FREES ON DEATH", "PUSH", "STATE")
_EPILOG = """\
scope: how far apart two clients may be and still exclude each other
shared: has shared (reader) locks
fair: waiters of different clients are served in the order in which they came
frees on death: a dead holder's locks are free at once, and not only after the TTL
push: a waiter is woken by the backend, and does not depend on polling
"""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "drivers",
        help="list the installed drivers",
        description="List every installed driver: its URL schemes and what it can do.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="as JSON, for programs")
    shape.add_argument(
        "--matrix",
        action="store_true",
        help="the compatibility matrix: on what each driver's uses were seen to work",
    )
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Run `tenure drivers`."""
    if options.matrix:
        text = _matrix()
    else:
        found = survey()
        text = json.dumps(found, indent=2) if options.json else _table(found)
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # `tenure drivers | head -1`: the rest is not wanted, and no error either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return ExitCode.DONE


def _matrix() -> str:
    from ..policy import home  # no other command's start should pay for it
    from ..policy import survey as policy

    good, broken = policy.readable(home.homes())
    lines = [_lines(policy.matrix(policy.survey(found=good)))]
    lines += (f"{each.name}: broken: {plain(reason)}" for each, reason in broken)
    return "\n".join(lines)


def survey() -> list[dict[str, Any]]:
    """Every driver with its schemes, traits and state."""
    by_target: dict[str, list[registry.Entry]] = {}
    for entry in registry.entries():
        by_target.setdefault(entry.target, []).append(entry)
    return [_examine(entries) for entries in by_target.values()]


def _examine(entries: list[registry.Entry]) -> dict[str, Any]:
    entry = entries[0]
    schemes = [each.scheme for each in entries]
    built_in = entry.scheme in registry.BUILT_IN
    name = entry.module.rpartition(".")[2] if built_in else entry.scheme
    traits: Traits | None = None
    state, reason = "installed", ""
    try:
        traits = registry.load(entry).traits
        if not isinstance(traits, Traits):
            raise TypeError(f"{entry.target}: `traits` is not a tenure Traits")
    except UnknownDriver:
        state, reason = "not installed", f"pip install 'tenure[{entry.extra}]'"
    except Exception as error:
        # Whatever another's module does when it is imported must not hide the others.
        logger.debug("tenure: driver %s cannot be loaded", entry.target, exc_info=True)
        traits = None
        state, reason = "broken", plain(f"{type(error).__name__}: {error}")
    return {
        "driver": name,
        "schemes": schemes,
        "target": entry.target,
        "extra": entry.extra,
        "state": state,
        "reason": reason,
        "traits": None if traits is None else traits._asdict(),
    }


def _table(found: list[dict[str, Any]]) -> str:
    rows = [_COLUMNS]
    for each in found:
        traits = each["traits"]
        if traits is None:
            shown = ["-"] * 5
        else:
            flags = ("shared", "fair", "frees_on_death", "push")
            shown = [traits["scope"], *("yes" if traits[flag] else "no" for flag in flags)]
        state = each["state"] + (f": {each['reason']}" if each["reason"] else "")
        rows.append((each["driver"], " ".join(each["schemes"]), *shown, state))
    return _lines(rows)


def _lines(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)
