"""`tenure leader NAME`: who leads an election."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from .. import Leader, connect
from .._runtime._clock import wall
from ..errors import Unavailable
from . import _holding
from ._exit import ExitCode, plain, say, seconds_text

_EPILOG = """\
exit codes:
    0  somebody leads; with --watch, standard output was closed
   82  nobody leads
   64  wrong usage            69  backend unreachable     74  backend refused or failed
"""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "leader",
        help="say who leads an election",
        description="Say who leads an election, and what the leader has published.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="the election's name")
    _holding.add_backend(add)
    add("--watch", action="store_true", help="go on, with a line for each change")
    add("--json", action="store_true", help="one JSON object per line, as in a pipe with --watch")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Run `tenure leader` and return its exit code."""
    _holding.check_scope(options.url)
    _holding.set_up_logging(verbose=False)
    as_json = options.json or (options.watch and not sys.stdout.isatty())
    with connect(options.url, namespace=options.namespace) as coordinator:
        election = coordinator.election(options.name)
        try:
            if not options.watch:
                leader = election.leader()
                _show(options.name, leader, as_json)
                return ExitCode.DONE if leader is not None else ExitCode.ABSENT
            with election.observe() as watch:
                while True:
                    try:
                        if watch.wait():
                            _show(options.name, watch.leader, as_json)
                    except Unavailable as error:
                        say(f"{error}; trying again")
        except BrokenPipeError:
            # Nobody reads any more, and that is no error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return ExitCode.DONE


def _show(name: str, leader: Leader | None, as_json: bool) -> None:
    sys.stdout.write((_json(name, leader) if as_json else _line(name, leader)) + "\n")
    sys.stdout.flush()


def _json(name: str, leader: Leader | None) -> str:
    owner, token, value, since = leader or (None, None, None, None)
    return json.dumps(
        {"election": name, "leader": owner, "token": token, "value": value, "since": since}
    )


def _line(name: str, leader: Leader | None) -> str:
    if leader is None:
        return plain(f"{name}: nobody leads")
    led = seconds_text(max(0.0, wall() - leader.since))
    value = "" if leader.value is None else f", value {json.dumps(leader.value)}"
    return plain(f"{name}: {leader.owner} leads for {led}, token {leader.token}{value}")
