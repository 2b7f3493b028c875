"""`tenure lock NAME -- COMMAND…`: run a command while holding a lock."""

from __future__ import annotations

import argparse
from typing import Any

from .. import Coordinator, Lease, Lock, now
from ..errors import Unavailable
from . import _holding
from ._exit import say, seconds_text
from ._waiting import Waiting

_EPILOG = """\
exit codes:
  the command's own, or 128+N if signal N killed it, and of Tenure itself:
   64  wrong usage            69  backend unreachable     74  backend refused or failed
   75  the lock is taken      80  the lock was lost       81  --max-hold exceeded
  126  cannot be executed    127  command not found      128+N  signal N while waiting

The command finds TENURE_LOCK, TENURE_TOKEN and TENURE_OWNER in its environment.
"""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "lock",
        help="run a command while holding a lock",
        usage="tenure lock NAME [options] -- COMMAND [ARGUMENT…]",
        description="Wait for the lock, run the command while holding it, pass on its exit code.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="the lock's name")
    _holding.add_backend(add)
    _holding.add_session(add)
    add("--shared", action="store_true", help="hold together with other shared holders")
    _holding.add_wait(parser)
    _holding.add_command(parser)
    seconds = _holding.seconds
    add("--min-hold", type=seconds, metavar="S", default=0.0, help="hold for S seconds at least")
    add("--max-hold", type=seconds, metavar="S", help="end the command after S seconds")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Run `tenure lock` and return its exit code."""
    if options.command and options.max_hold is not None and options.max_hold <= options.min_hold:
        options.parser.error("--max-hold must be longer than --min-hold, and not zero")
    return _holding.hold(options, _Locking)


class _Locking(_holding.Holding):
    """A lock is held."""

    def obtain(self, coordinator: Coordinator) -> Lease | None:
        options = self._options
        lock = coordinator.lock(options.name, shared=options.shared)
        began = now()
        lease = None
        try:
            lease = lock.try_acquire()
        except Unavailable:
            if options.once:
                raise
        if lease is None and not options.once:
            aim = f"waiting for {lock.name!r}"
            with Waiting(lock.name, aim, lock.holder, options.quiet):
                left = None
                if options.timeout is not None:
                    left = max(0.0, began + options.timeout - now())
                lease = self._wait(lock, left)
        if lease is None:
            if not options.quiet:
                after = f" after {options.timeout:g} s" if options.timeout else ""
                say(f"{lock.name!r} is taken{after}")
            return None
        waited = now() - began
        if options.verbose or (waited >= 1 and not options.quiet):
            token = f"token {lease.token}"
            say(f"acquired {lock.name!r} after {seconds_text(waited)} ({token})")
        return lease

    def _wait(self, lock: Lock, left: float | None) -> Lease | None:
        try:
            return lock.acquire(left)
        except TimeoutError:
            return None

    def environment(self, lease: Lease) -> dict[str, str]:
        return {
            "TENURE_LOCK": lease.name,
            "TENURE_TOKEN": str(lease.token),
            "TENURE_OWNER": lease.owner,
        }

    def what(self, name: str) -> str:
        return f"the lock {name!r}"
