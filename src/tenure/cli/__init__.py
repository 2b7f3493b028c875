"""The command line: `tenure lock NAME -- COMMAND…`, `tenure join`, `tenure status`, …"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from ..errors import TenureError
from . import doctor, drivers, elect, join, leader, lock, members, migrate, spec, status, verify
from ._exit import ExitCode, exit_code, say

__all__ = ["COMMANDS", "ExitCode", "main"]

COMMANDS = (lock, elect, leader, join, members, status, doctor, migrate, drivers, spec, verify)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and end with the code for usage."""

    def error(self, message: str) -> NoReturn:
        say(f"{message} (see '{self.prog} --help')")
        raise SystemExit(ExitCode.USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command: list[str] | None = None
    if "--" in given:
        split = given.index("--")
        given, command = given[:split], given[split + 1 :]
    parser = _parser()
    options = parser.parse_args(given)
    if options.run is None:
        parser.error(f"a command is missing: {', '.join(_names())}")
    if command is not None and not options.runs_command:
        options.parser.error("nothing can follow '--' here")
    options.command = command
    try:
        code: int = options.run(options)
    except TenureError as error:
        say(str(error))
        return exit_code(error)
    except KeyboardInterrupt:
        return ExitCode.SIGNAL + 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tenure",
        description="Coordination between processes and hosts, over the store you already run.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tenure {__version__}")
    parser.set_defaults(run=None, runs_command=False)
    commands = parser.add_subparsers(title="commands", metavar=" | ".join(_names()))
    for each in COMMANDS:
        each.add_to(commands)
    return parser


def _names() -> list[str]:
    return [each.__name__.rpartition(".")[2] for each in COMMANDS]
