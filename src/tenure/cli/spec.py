"""`tenure spec`: write a spec from the template, and check the specs that there are."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..policy import specs
from . import _tables
from ._exit import ExitCode, say

VIOLATED = 1
"""The exit code of a check that found something, as linters have it."""

_EPILOG = """\
exit codes:
    0  nothing was found          1  a spec breaks a rule
   64  wrong usage, no such file, or docutils is missing
   74  a file cannot be read or written
"""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "spec",
        help="write a spec from the template, or check specs",
        description="A new driver, strategy, deprecation or waiver comes with a spec.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, parser=parser)
    actions = parser.add_subparsers(dest="action", metavar="new | check", required=True)
    _add_new(actions)
    _add_check(actions)


def _add_new(actions: Any) -> None:
    parser = actions.add_parser(
        "new",
        help="write a spec from the template",
        description="Write docs/specs/NAME.rst from the template. No file is overwritten.",
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", help="what it is called, as in redis-redlock")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the file, or the folder for it")
    parser.set_defaults(work=_new, parser=parser)


def _add_check(actions: Any) -> None:
    parser = actions.add_parser(
        "check",
        help="tell every rule that a spec breaks",
        description="Tell every rule that a spec breaks, as file:line: rule: message.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        type=Path,
        help="specs, or folders of them (default: docs/specs)",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object, for programs")
    parser.set_defaults(work=_check, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Run `tenure spec new` or `tenure spec check` and return its exit code."""
    code: int = options.work(options)
    return code


def _new(options: argparse.Namespace) -> int:
    file = specs.new(options.name, options.out)
    with _tables.while_read():
        _tables.emit(f"{_tables.shown(str(file))}\n")
    return ExitCode.DONE


def _check(options: argparse.Namespace) -> int:
    report = specs.check(options.files)
    with _tables.while_read():
        _tables.emit(_as_json(report) if options.json else _as_text(report))
    for file, paths in report.unchecked.items():
        say(f"{file} is in no checkout: whether there is {', '.join(paths)} was not checked")
    if not options.json:
        say(_counted(report))
    return VIOLATED if report.violations else ExitCode.DONE


def _as_text(report: specs.Report) -> str:
    return "".join(f"{_tables.shown(str(each))}\n" for each in report.violations)


def _as_json(report: specs.Report) -> str:
    found = {
        "files": report.files,
        "violations": [each._asdict() for each in report.violations],
        "unchecked": report.unchecked,
    }
    return json.dumps(found, indent=2) + "\n"


def _counted(report: specs.Report) -> str:
    specs_there = f"{len(report.files)} spec{'' if len(report.files) == 1 else 's'}"
    count = len(report.violations)
    if not count:
        return f"{specs_there} checked, nothing found"
    bad = len({each.file for each in report.violations})
    return f"{specs_there} checked, {count} violation{'' if count == 1 else 's'} in {bad}"
