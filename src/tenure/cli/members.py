"""`tenure members GROUP`: who is in a group."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from .. import Coordinator, connect
from ..errors import GroupNotFound
from . import _holding, _tables
from ._exit import ExitCode
from .status import member_cells, member_dict

if TYPE_CHECKING:  # else every command would load what only this one needs
    from .. import Change, Members

_COLUMNS = ("MEMBER", "TOKEN", "SINCE", "CAPABILITIES")
_ELASTIC = (3, 0)

_EPILOG = """\
On a terminal it writes text, into a pipe one JSON object per line.

exit codes:
    0  the group exists; with --watch, standard output was closed
   82  there is no such group
   64  wrong usage            69  backend unreachable     74  backend refused or failed
"""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "members",
        help="say who is in a group",
        description="Say who is in a group, and what each member has published.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("name", metavar="GROUP", help="the group's name")
    _holding.add_backend(add)
    add("--watch", action="store_true", help="go on, with a line for each change, until a signal")
    add("--json", action="store_true", help="one JSON object per line, also on a terminal")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Run `tenure members` and return its exit code."""
    _holding.check_scope(options.url)
    _holding.set_up_logging(verbose=False)
    as_json = options.json or not sys.stdout.isatty()
    with connect(options.url, namespace=options.namespace) as coordinator, _tables.while_read():
        if options.watch:
            _watch(coordinator, options.name, as_json)
        else:
            _show(coordinator.group(options.name).members(), as_json)
    return ExitCode.DONE


def _show(members: Members, as_json: bool) -> None:
    if as_json:
        _tables.emit("".join(json.dumps(member_dict(member)) + "\n" for member in members))
        return
    lines = ["the group has no members"]
    if members:
        columns = shutil.get_terminal_size().columns
        lines = _tables.table(_COLUMNS, map(member_cells, members), columns, _ELASTIC)
    _tables.emit("\n".join(lines) + "\n")


def _watch(coordinator: Coordinator, name: str, as_json: bool) -> None:
    """First who is there, and then who comes, goes, or publishes something else."""
    from .. import Change, Members

    group = coordinator.group(name)
    try:
        members = group.members()
    except GroupNotFound:
        members = Members(name, ())  # it need not exist yet
    write = _write_json if as_json else _write
    for member in members:
        write("present", Change("joined", member))
    with group.watch(since=members) as watch:
        for change in watch:
            write(change.kind, change)


def _write_json(word: str, change: Change) -> None:
    member = {} if change.member is None else member_dict(change.member)
    _tables.emit(json.dumps({"change": word, **member}) + "\n")


def _write(word: str, change: Change) -> None:
    line = f"{time.strftime('%H:%M:%S')}  {word}"
    if change.member is not None:
        who, token, _, value = member_cells(change.member)
        line = f"{line:17}  {who}, token {token}{', ' if value else ''}{value}"
    _tables.emit(line + "\n")
