"""`tenure elect NAME -- COMMAND…`: run a command on the one that leads."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any

from .. import Coordinator, Holder, Lease, now
from ..errors import Unavailable
from . import _holding
from ._exit import ExitCode, say, seconds_text
from ._job import Job
from ._signals import ENDING, Signals
from ._waiting import Waiting

if TYPE_CHECKING:  # else every command would load what only this one needs
    from .. import Election, Term

_AGAIN = "TENURE_ELECT_AGAIN"
"""Set, for ourselves alone, when a term was lost and we campaign again."""
_PAUSE_SECONDS_MAX = 5.0

_EPILOG = """\
It waits until it leads, runs the command, and resigns when that ends, passing on its exit
code. If the lead is lost, the command is ended and the next campaign begins.

exit codes:
  the command's own, or 128+N if signal N killed it, and of Tenure itself:
   64  wrong usage            69  backend unreachable     74  backend refused or failed
   75  another leads          80  the lead was lost, with --once
  126  cannot be executed    127  command not found      128+N  signal N while waiting

The command finds TENURE_ELECTION, TENURE_TOKEN and TENURE_OWNER in its environment.
"""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "elect",
        help="run a command on the one that leads",
        usage="tenure elect NAME [options] -- COMMAND [ARGUMENT…]",
        description="Of all that run this, one leads and runs the command; the others wait.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="the election's name")
    _holding.add_backend(add)
    _holding.add_session(add)
    add("--value", type=_value, metavar="JSON", help="what `tenure leader` shows to all")
    add("--once", action="store_true", dest="one_term", help="do not campaign again")
    _holding.add_wait(parser)
    _holding.add_command(parser)
    parser.set_defaults(run=run, parser=parser)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"JSON is needed ({error}), not {text!r}") from None


def run(options: argparse.Namespace) -> int:
    """Run `tenure elect` and return its exit code."""
    held: list[_Leading] = []
    options.again = os.environ.pop(_AGAIN, None) is not None  # nothing for the command to see

    def leading(*arguments: Any) -> _Leading:
        held.append(_Leading(*arguments))
        return held[-1]

    code = _holding.hold(options, leading)
    if held and held[0].again():
        if not options.quiet:
            say(f"campaigning for {options.name!r} again")
        # The command and its guard must be forked in a process that has neither threads nor
        # connections, and this one had both: so it begins anew.
        os.environ[_AGAIN] = "1"
        try:
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - ourselves
        except OSError as error:
            say(f"cannot begin anew: {error}")
    return code


class _Leading(_holding.Holding):
    """A term of an election is held."""

    def __init__(self, options: argparse.Namespace, job: Job, signals: Signals) -> None:
        super().__init__(options, job, signals)
        self._seen = bool(options.again)
        """Whether the backend was ever there. If it was, it is waited for."""
        self._silent = False

    def again(self) -> bool:
        """Say whether the term was lost, so that another campaign is to begin."""
        ended = self.ended
        if self._options.one_term or ended is None or ended.interrupted:
            return False
        if ended.verdict is not ExitCode.LOST:
            return False
        return not any(signum in ENDING for signum in self._signals.give_back())

    def run(self) -> int:
        options = self._options
        bounded = options.one_term or options.once or options.timeout is not None
        while True:
            try:
                return super().run()
            except Unavailable as error:
                if bounded or not self._seen or self.ended is not None:
                    raise
                if not self._silent and not options.quiet:
                    say(f"{error}; trying again")
                self._silent = True
            time.sleep(min(_PAUSE_SECONDS_MAX, options.ttl or math.inf) * random.uniform(0.2, 1))

    def obtain(self, coordinator: Coordinator) -> Lease | None:
        options = self._options
        self._seen = True
        election = coordinator.election(options.name)
        began = now()
        term = None
        try:
            term = election.try_campaign(value=options.value)
        except Unavailable:
            if options.once:
                raise
        if term is None and not options.once:
            aim = f"waiting to lead {election.name!r}"
            with Waiting(
                election.name, aim, lambda: _holder(election), options.quiet, "leads", "lead"
            ):
                left = None
                if options.timeout is not None:
                    left = max(0.0, began + options.timeout - now())
                term = self._wait(election, left)
        if term is None:
            if not options.quiet:
                after = f" after {options.timeout:g} s" if options.timeout else ""
                say(f"another leads {election.name!r}{after}")
            return None
        self._silent = False
        waited = now() - began
        if options.verbose or (waited >= 1 and not options.quiet):
            token = f"token {term.token}"
            say(f"leading {election.name!r} after {seconds_text(waited)} ({token})")
        return term

    def _wait(self, election: Election, left: float | None) -> Term | None:
        try:
            return election.campaign(left, value=self._options.value)
        except TimeoutError:
            return None

    def environment(self, lease: Lease) -> dict[str, str]:
        return {
            "TENURE_ELECTION": lease.name,
            "TENURE_TOKEN": str(lease.token),
            "TENURE_OWNER": lease.owner,
        }

    def what(self, name: str) -> str:
        return f"the lead of {name!r}"


def _holder(election: Election) -> Holder | None:
    leader = election.leader()
    return None if leader is None else Holder(leader.owner, leader.token, leader.since)
