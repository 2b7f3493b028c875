"""`tenure lock NAME -- COMMAND…`: run a command while holding a lock."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from typing import Any

from .. import Coordinator, Event, Lease, Lock, connect, now
from .._url import Url
from ..drivers import registry
from ..errors import BackendError, InvalidURL, LeaseLost, Unavailable
from ._exit import ExitCode, say, seconds_text
from ._job import CommandFailed, Job
from ._signals import Interrupted, Signals
from ._supervise import Supervisor
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
    add("--url", help="the backend (default: $TENURE_URL, else lock files on this machine)")
    add("--namespace", help="names in different namespaces never meet")
    add("--ttl", type=_seconds, metavar="S", help="seconds until a dead holder is dropped (15)")
    add("--owner", help="the name that others see (default: host, process, a random part)")
    add("--shared", action="store_true", help="hold together with other shared holders")
    wait = parser.add_mutually_exclusive_group()
    wait.add_argument("--timeout", type=_seconds, metavar="S", help="wait for S seconds at most")
    wait.add_argument("--try", action="store_true", dest="once", help="do not wait at all")
    add("--min-hold", type=_seconds, metavar="S", default=0.0, help="hold for S seconds at least")
    add("--max-hold", type=_seconds, metavar="S", help="end the command after S seconds")
    add("--grace", type=_seconds, metavar="S", default=10.0, help="from TERM to KILL (10)")
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    loud.add_argument("-v", "--verbose", action="store_true", help="say what happens")
    parser.set_defaults(run=run, parser=parser)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise argparse.ArgumentTypeError(f"a number of seconds is needed, not {text!r}")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Run `tenure lock` and return its exit code."""
    if not options.command:
        options.parser.error("the command to run is missing; it follows '--'")
    if options.max_hold is not None and options.max_hold <= options.min_hold:
        options.parser.error("--max-hold must be longer than --min-hold, and not zero")
    _set_up_logging(options.verbose)
    job = Job(options.command, options.grace)
    signals = Signals()
    try:
        return _Holding(options, job, signals).run()
    except Interrupted as interrupted:
        return ExitCode.SIGNAL + interrupted.signum
    except CommandFailed as failure:
        say(str(failure))
        return failure.code
    finally:
        job.close()


class _Holding:
    """From the first attempt to the release."""

    def __init__(self, options: argparse.Namespace, job: Job, signals: Signals) -> None:
        self._options = options
        self._job = job
        self._signals = signals
        self._lease: Lease | None = None
        self._doubt = False

    def run(self) -> int:
        options = self._options
        _check_scope(options.url or os.environ.get("TENURE_URL"))
        with connect(
            options.url,
            namespace=options.namespace,
            ttl=options.ttl,
            owner=options.owner,
            on_event=self._heard,
        ) as coordinator:
            lock = coordinator.lock(options.name, shared=options.shared)
            lease = self._acquire(lock)
            if lease is None:
                return ExitCode.BUSY
            self._signals.collect()
            return self._hold(coordinator, lease)

    def _acquire(self, lock: Lock) -> Lease | None:
        options = self._options
        began = now()
        lease = None
        try:
            lease = lock.try_acquire()
        except Unavailable:
            if options.once:
                raise
        if lease is None and not options.once:
            with Waiting(lock, options.quiet):
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

    def _hold(self, coordinator: Coordinator, lease: Lease) -> int:
        options = self._options
        self._lease = lease
        supervisor = Supervisor(self._job, self._signals, lease, coordinator.ttl, options)
        try:
            self._job.start(
                {
                    "TENURE_LOCK": lease.name,
                    "TENURE_TOKEN": str(lease.token),
                    "TENURE_OWNER": lease.owner,
                }
            )
            code = supervisor.run()
        finally:
            supervisor.close()
        return self._release(lease, code)

    def _release(self, lease: Lease, code: int) -> int:
        """Release; its failure costs others a TTL of waiting, but the command is done."""
        self._lease = None  # what becomes of it now is told below
        self._signals.leaving(1)
        try:
            lease.release()
        except LeaseLost as loss:
            if code != ExitCode.LOST:
                say(str(loss))
            return ExitCode.LOST if code != ExitCode.MAX_HOLD else code
        except BackendError as error:
            say(f"{lease.name!r} could not be released, and will be free in a while: {error}")
        if self._options.verbose:
            say(f"released {lease.name!r}")
        return code

    def _heard(self, event: Event) -> None:
        """From the keepalive's own thread, so that the guard knows what that one knows."""
        lease = self._lease
        if lease is None:
            return
        if event.kind == "renewed":
            self._job.deadline(lease.deadline)
            if self._doubt and not self._options.quiet:
                say(f"the lock {lease.name!r} is certain again")
            self._doubt = False
        elif event.kind == "in doubt":
            self._doubt = True
            if not self._options.quiet:
                left = seconds_text(lease.deadline - now())
                say(f"the lock {lease.name!r} will be lost in {left}: {event.reason}")


def _check_scope(url: str | None) -> None:
    """Refuse a backend that lives in one process: two commands would never meet in it."""
    if url:
        parsed = Url.parse(url)
        if registry.find(parsed).traits.scope == "threads":
            raise InvalidURL(f"{parsed.scheme}: this driver's locks exclude no other process")


def _set_up_logging(verbose: bool) -> None:
    """The library's log says at length what we say in one line; so only on demand."""
    logger = logging.getLogger("tenure")
    logger.propagate = False
    if verbose:
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.setLevel(logging.INFO)
    else:
        handler = logging.NullHandler()
    logger.addHandler(handler)
