"""`tenure doctor`: what in the backend's configuration would break coordination."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from .._coordinator import make_session
from .._model import Finding, Severity
from .._runtime.thread import ThreadRuntime, drive
from ..drivers.base import Driver
from . import _holding, _tables
from ._exit import ExitCode

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""From the worst on."""

_INDENT = 9
_WIDTH_MAX = 100
_WIDTH_MIN = 40

_EPILOG = """\
On a terminal it writes text, into a pipe one JSON object per line.

exit codes:
    0  nothing was found, or only notes
   83  there is a warning         84  there is an error
   64  wrong usage                69  backend unreachable     74  backend refused or failed
"""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "doctor",
        help="say what in the backend's configuration would break coordination",
        description="Connect to the backend, read its configuration, and say what in it would\n"
        "break coordination. Nothing is changed, and no lock is taken.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("given", metavar="URL", nargs="?", help="the backend, as with --url")
    where.add_argument(
        "--url", help="the backend (default: $TENURE_URL, else lock files on this machine)"
    )
    add = parser.add_argument
    add("--namespace", help="the namespace that is going to be used")
    add("--ttl", type=_holding.seconds, metavar="S", help="the TTL that is going to be used (15)")
    add("--json", action="store_true", help="one JSON object per line, also on a terminal")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Run `tenure doctor` and return its exit code."""
    _holding.set_up_logging(verbose=False)
    url = options.url if options.given is None else options.given
    runtime = ThreadRuntime()
    session = make_session(runtime, url, options.namespace, options.ttl, None, None)
    drive(session.open())
    try:
        found = drive(session.driver.examine())
    finally:
        drive(session.close())
    found = sorted(found, key=lambda each: _SEVERITIES.index(each.severity))
    with _tables.while_read():
        as_json = options.json or not sys.stdout.isatty()
        lines = map(_line, found) if as_json else _drawn(session.driver, found)
        _tables.emit("".join(f"{line}\n" for line in lines))
    return exit_code(found)


def exit_code(found: Sequence[Finding]) -> ExitCode:
    """The exit code that tells the worst of the findings."""
    severities = {each.severity for each in found}
    if "error" in severities:
        return ExitCode.BROKEN
    return ExitCode.RISKY if "warning" in severities else ExitCode.DONE


def _line(finding: Finding) -> str:
    return json.dumps(finding._asdict())


def _drawn(driver: Driver, found: Sequence[Finding]) -> Iterator[str]:
    """The findings, the worst first, and how many there are."""
    columns = max(_WIDTH_MIN, min(shutil.get_terminal_size().columns, _WIDTH_MAX))
    for severity, subject, text, advice in found:
        yield _tables.cut(f"{severity:<{_INDENT}}{_tables.shown(subject)}", columns)
        for part in filter(None, (text, advice)):
            yield from textwrap.wrap(
                _tables.shown(part),
                columns,
                initial_indent=" " * _INDENT,
                subsequent_indent=" " * _INDENT,
                break_on_hyphens=False,
            )
        yield ""
    yield f"{_tables.shown(str(driver.url))}: {_counted(found)}"


def _counted(found: Sequence[Finding]) -> str:
    counts = [(sum(each.severity == kind for each in found), kind) for kind in _SEVERITIES]
    told = [f"{count} {kind}{'' if count == 1 else 's'}" for count, kind in counts if count]
    return ", ".join(told) or "nothing found"
