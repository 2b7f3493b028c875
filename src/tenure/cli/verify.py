"""`tenure verify`: what a driver does on a real backend, and the level that follows from it.

Only here does the command line use `tenure.testing`, and only once the command runs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UnknownDriver
from . import _tables
from ._exit import ExitCode

if TYPE_CHECKING:
    from ..testing.verify import events

_CLEAR = "\r\x1b[K"
_EPILOG = """\
DRIVER starts backends of its own. URL names a server that is there already: it is used, in
namespaces with verify- in their names, and left as it was. On a terminal it shows how far it is;
a pipe gets plain lines.

exit codes:
    0  what is claimed held        85  something that is claimed did not hold
   64  wrong usage                 69  no backend could be brought up or reached
   74  evidence cannot be written
"""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "verify",
        help="run the suite on a backend, and say what level the driver has earned",
        description="Run the whole suite against a driver's backend, write what it found as\n"
        "evidence, and say what level follows from it, and what is missing.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("subject", metavar="URL|DRIVER", help="as in redis, redis/redlock, or redis://db:6379/0")
    add("--strategy", metavar="S", help="one strategy of the driver (default: all)")
    add("--profile", metavar="P", action="append", default=[], help="this one only; repeatable")
    add("--no-experiments", action="store_true", help="run the cases, and no experiments")
    add("--out", type=Path, metavar="FILE|DIR", help="where to write the evidence")
    add("--jobs", type=_jobs, metavar="N", default=1, help="N cases at a time (1)")
    add("--json", action="store_true", help="one JSON object per line for all that happens")
    parser.set_defaults(run=run, parser=parser)


def _jobs(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError(f"a number from 1 to 64 is needed, not {text!r}")
    return number


def run(options: argparse.Namespace) -> int:
    """Run `tenure verify` and return its exit code."""
    try:
        from ..testing.verify import runner
    except ImportError as error:
        raise UnknownDriver(
            f"{error.name} is missing; install it with: pip install 'tenure[testing]'"
        ) from error
    chosen = runner.Options(
        profiles=options.profile,
        experiments=not options.no_experiments,
        out=options.out,
        jobs=options.jobs,
    )
    code = ExitCode.DONE
    teller: Teller = Lines() if options.json else Text(sys.stdout.isatty())
    with _tables.while_read():
        if "://" in options.subject:
            if options.strategy:
                options.parser.error("the URL chooses the strategy, by its options")
            found = runner.verify_url(options.subject, chosen, teller.hear)
        else:
            found = runner.verify_driver(options.subject, options.strategy, chosen, teller.hear)
        if any(each.failures for each in found):
            code = ExitCode.UNMET
    return code


class Teller:
    """Tells what happens. An event is handled by the method that has its name."""

    def hear(self, event: events.Event) -> None:
        """Tell of an event."""
        getattr(self, f"on_{type(event).__name__.lower()}")(event)


class Lines(Teller):
    """One JSON object per line."""

    def hear(self, event: events.Event) -> None:
        from ..policy.evidence import plain

        name = type(event).__name__.lower()
        told = {"event": name, **plain(event)}
        if name == "found":
            # All of it was told already, or can be read in the file.
            cell = plain(told["evidence"]["cell"])
            told = {"event": name, "cell": cell, "failures": told["failures"]}
            path = event.path  # type: ignore[union-attr]
            told["path"] = None if path is None else str(path)
        elif name == "standing":
            told = {"event": name, **_standing(event)}
        _tables.emit(json.dumps(told, default=str) + "\n")


def _standing(event: Any) -> dict[str, Any]:
    from ..policy.evidence import plain

    strategies = {}
    for name in event.strategies:
        standing = event.assessment.strategies[name]
        strategies[name] = {
            "level": str(standing.level),
            "profiles": {
                profile: {
                    "level": str(each.level),
                    "unmet": [{**plain(one), "level": str(one.level)} for one in each.unmet],
                }
                for profile, each in standing.profiles.items()
            },
        }
    level = str(event.assessment.level)
    return {"driver": event.assessment.driver, "level": level, "strategies": strategies}


class Text(Teller):
    """Lines to read; on a terminal, one that says how far it is."""

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal
        self._failed = 0

    def _say(self, text: str) -> None:
        start = _CLEAR if self._terminal else ""
        _tables.emit(f"{start}{_tables.shown(text)}\n")

    def _progress(self, text: str) -> None:
        if self._terminal:
            columns = max(20, shutil.get_terminal_size().columns - 1)
            _tables.emit(f"{_CLEAR}{_tables.cut(_tables.shown(text), columns)}")

    def on_began(self, event: events.Began) -> None:
        cell, self._failed = event.cell, 0
        where = f"{cell.backend} {cell.backend_version}"
        where += f" ({cell.topology})" if cell.topology else ""
        where += f", {cell.client} {cell.client_version}" if cell.client else ""
        self._say(f"{event.driver}/{event.strategy} on {where}, Python {cell.python}, {cell.os}")
        self._progress("the first case")

    def on_tried(self, event: events.Tried) -> None:
        number, total, test, ran = event
        if test.outcome != "passed":
            self._failed += 1
            said = "FAILED  " if ran else ""
            self._say(f"  {said}{test.case} ({test.runtime}): {test.detail}")
        if number < total:
            self._progress(f"case {number} of {total}: {test.case} ({test.runtime})")
        else:
            self._say(f"  {total} runs of cases, {self._failed} failed")

    def on_judged(self, event: events.Judged) -> None:
        judgement, claimed = event
        more = judgement.counterexample or judgement.reason
        said = f"  {judgement.verdict:<12}  {judgement.characteristic}"
        said += " (claimed)" if claimed else ""
        self._say(f"{said}: {more}" if more else f"{said}: {judgement.trials} trials")

    def on_measured(self, event: events.Measured) -> None:
        for name, value in event.benchmark.items():
            self._say(f"  {name}: {value:g}")
        percent = event.coverage_percent
        self._say(f"  coverage: {'not measured' if percent is None else f'{percent:g} %'}")

    def on_checked(self, event: events.Checked) -> None:
        held = "holds" if event.check.holds else "does not hold"
        self._say(f"  {event.id} {held}: {event.check.detail}")

    def on_left(self, event: events.Left) -> None:
        self._say(f"  left behind: {event.what}")

    def on_found(self, event: events.Found) -> None:
        if event.path is not None:
            self._say(f"  evidence: {event.path}")
        if event.failures:
            self._say(f"  claimed, and did not hold: {', '.join(event.failures)}")

    def on_standing(self, event: events.Standing) -> None:
        for name in event.strategies:
            standing = event.assessment.strategies[name]
            self._say(f"{event.assessment.driver}/{name}: {standing.level}")
            levels = [f"{profile} {each.level}" for profile, each in standing.profiles.items()]
            self._say(f"  profiles: {', '.join(levels)}")
            unmet: dict[Any, list[str]] = {}
            for profile, each in standing.profiles.items():
                for one in each.unmet:
                    unmet.setdefault(one, []).append(profile)
            for one, profiles in sorted(unmet.items(), key=lambda each: each[0].level):
                whose = (
                    "" if len(profiles) == len(standing.profiles) else f" ({', '.join(profiles)})"
                )
                waived = f"; waived: {one.waived}" if one.waived else ""
                self._say(f"  {one.level} needs {one.requirement}{whose}: {one.reason}{waived}")
