"""Running a command while something is held: what `lock`, `elect` and `join` have in common."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from .. import Coordinator, Event, Lease, connect, now
from .._url import Url
from ..drivers import registry
from ..errors import BackendError, InvalidURL, LeaseLost
from ._exit import ExitCode, say, seconds_text
from ._job import CommandFailed, Job
from ._signals import Interrupted, Signals
from ._supervise import Supervisor


def add_backend(add: Callable[..., Any]) -> None:
    """Declare the options that say where, for every command that connects."""
    add("--url", help="the backend (default: $TENURE_URL, else lock files on this machine)")
    add("--namespace", help="names in different namespaces never meet")


def add_session(add: Callable[..., Any]) -> None:
    """Declare the options that say as whom."""
    add("--ttl", type=seconds, metavar="S", help="seconds until a dead holder is dropped (15)")
    add("--owner", help="the name that others see (default: host, process, a random part)")


def add_wait(parser: Any) -> None:
    """Declare the options that say for how long to wait."""
    wait = parser.add_mutually_exclusive_group()
    wait.add_argument("--timeout", type=seconds, metavar="S", help="wait for S seconds at most")
    wait.add_argument("--try", action="store_true", dest="once", help="do not wait at all")


def add_command(parser: Any) -> None:
    """Declare the options that say how the command is run."""
    add = parser.add_argument
    add("--grace", type=seconds, metavar="S", default=10.0, help="from TERM to KILL (10)")
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    loud.add_argument("-v", "--verbose", action="store_true", help="say what happens")
    parser.set_defaults(runs_command=True, min_hold=0.0, max_hold=None)


def seconds(text: str) -> float:
    """A number of seconds, as an option's value."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"a number of seconds is needed, not {text!r}")
    return number


class Holding(ABC):
    """From the first attempt to the release."""

    def __init__(self, options: argparse.Namespace, job: Job, signals: Signals) -> None:
        self._options = options
        self._job = job
        self._signals = signals
        self._lease: Lease | None = None
        self._doubt = False
        self.ended: Supervisor | None = None
        """Who watched the command, when that has ended."""

    @abstractmethod
    def obtain(self, coordinator: Coordinator) -> Lease | None:
        """Get what is to be held; None, having said so, if somebody else has it."""

    @abstractmethod
    def environment(self, lease: Lease) -> dict[str, str]:
        """What the command finds in its environment."""

    @abstractmethod
    def what(self, name: str) -> str:
        """What is held, as in 'the lock NAME was lost'."""

    def run(self) -> int:
        """Connect, get it, run the command, give it back; return the exit code."""
        options = self._options
        check_scope(options.url)
        with connect(
            options.url,
            namespace=options.namespace,
            ttl=options.ttl,
            owner=options.owner,
            on_event=self._heard,
        ) as coordinator:
            lease = self.obtain(coordinator)
            if lease is None:
                return ExitCode.BUSY
            self._signals.collect()
            return self._hold(coordinator, lease)

    def _hold(self, coordinator: Coordinator, lease: Lease) -> int:
        self._lease = lease
        what = self.what(lease.name)
        supervisor = Supervisor(
            self._job, self._signals, lease, what, coordinator.ttl, self._options
        )
        try:
            self._job.start(self.environment(lease))
            code = supervisor.run()
        finally:
            supervisor.close()
        self.ended = supervisor
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
                say(f"{self.what(lease.name)} is certain again")
            self._doubt = False
        elif event.kind == "in doubt":
            self._doubt = True
            if not self._options.quiet:
                left = seconds_text(lease.deadline - now())
                say(f"{self.what(lease.name)} will be lost in {left}: {event.reason}")


def hold(options: argparse.Namespace, holding: Callable[..., Holding]) -> int:
    """Run the command of the options while holding something; return the exit code."""
    if not options.command:
        options.parser.error("the command to run is missing; it follows '--'")
    set_up_logging(options.verbose)
    job = Job(options.command, options.grace)
    signals = Signals()
    try:
        return holding(options, job, signals).run()
    except Interrupted as interrupted:
        return ExitCode.SIGNAL + interrupted.signum
    except CommandFailed as failure:
        say(str(failure))
        return failure.code
    finally:
        job.close()


def check_scope(url: str | None) -> None:
    """Refuse a backend that lives in one process: two commands would never meet in it."""
    url = url or os.environ.get("TENURE_URL")
    if url:
        parsed = Url.parse(url)
        if registry.find(parsed).traits.scope == "threads":
            raise InvalidURL(f"{parsed.scheme}: this driver's locks exclude no other process")


def set_up_logging(verbose: bool) -> None:
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
