"""`tenure join GROUP -- COMMAND…`: be a member of a group while a command runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any, cast

from .. import Coordinator, Lease, MemberExists, TenureError, connect, now
from .._sync._run import run as drive
from . import _holding
from ._exit import ExitCode, say, seconds_text
from ._signals import Interrupted, Signals

if TYPE_CHECKING:  # else every command would load what only this one needs
    from .. import Member

_TICK_SECONDS = 1.0

_EPILOG = """\
It joins the group, runs the command, and leaves when that ends, passing on its exit code.
Without a command, it is a member until a signal asks it to end.

exit codes:
  the command's own, or 128+N if signal N killed it, and of Tenure itself:
   64  wrong usage            69  backend unreachable     74  backend refused or failed
   75  the id is taken        80  the membership was lost
  126  cannot be executed    127  command not found      128+N  signal N without a command

The command finds TENURE_GROUP, TENURE_MEMBER, TENURE_TOKEN and TENURE_OWNER in its
environment.
"""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "join",
        help="be a member of a group while a command runs",
        usage="tenure join GROUP [options] [-- COMMAND [ARGUMENT…]]",
        description="Be a member of a group while the command runs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("name", metavar="GROUP", help="the group's name; it is made if there is none")
    _holding.add_backend(add)
    _holding.add_session(add)
    add("--id", metavar="ID", help="its id in the group (the owner)")
    add("--set", type=_capability, action="append", default=[], metavar="KEY=VALUE",
        dest="capabilities", help="publish this; the value is JSON, or else text")  # fmt: skip
    add("--timeout", type=_holding.seconds, metavar="S", default=0.0,
        help="wait for S seconds at most if the id is taken (0)")  # fmt: skip
    _holding.add_command(parser)
    parser.set_defaults(run=run, parser=parser)


def _capability(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"KEY=VALUE is needed, not {text!r}")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value


def run(options: argparse.Namespace) -> int:
    """Run `tenure join` and return its exit code."""
    options.capabilities = dict(options.capabilities) or None
    return _stay(options) if options.command is None else _holding.hold(options, _Joining)


class _Joining(_holding.Holding):
    """A member is in the group."""

    def obtain(self, coordinator: Coordinator) -> Lease | None:
        return _join(coordinator, self._options)

    def environment(self, lease: Lease) -> dict[str, str]:
        member = cast("Member", lease)
        return {
            "TENURE_GROUP": member.group,
            "TENURE_MEMBER": member.id,
            "TENURE_TOKEN": str(member.token),
            "TENURE_OWNER": member.owner,
        }

    def what(self, name: str) -> str:
        return f"the membership {name!r}"


def _join(coordinator: Coordinator, options: argparse.Namespace) -> Member | None:
    """Join; None, having said so, if another member has the id."""
    group = coordinator.group(options.name)
    began = now()
    try:
        member = group.join(options.capabilities, member=options.id, timeout=options.timeout)
    except MemberExists as error:
        if not options.quiet:
            say(str(error))
        return None
    waited = now() - began
    if options.verbose or (waited >= 1 and not options.quiet):
        token = f"token {member.token}"
        say(f"joined {member.group!r} as {member.id!r} after {seconds_text(waited)} ({token})")
    look = threading.Thread(target=_look_after, args=(member, coordinator.ttl), daemon=True)
    look.start()
    return member


def _look_after(member: Member, ttl: float) -> None:
    """See that it was not removed: who deletes a group by force tells none of its members."""
    over = member.lost
    while member.held() and not over.wait(ttl / 3):
        # Whatever else goes wrong with the backend, the keepalive sees it, too.
        with contextlib.suppress(TenureError):
            if member.held() and not drive(member._stands()):
                member.update(member.capabilities)  # which learns that it is gone, and is lost


def _stay(options: argparse.Namespace) -> int:
    """Without a command: be a member until a signal comes."""
    _holding.set_up_logging(options.verbose)
    _holding.check_scope(options.url)
    signals = Signals()
    try:
        with connect(
            options.url, namespace=options.namespace, ttl=options.ttl, owner=options.owner
        ) as coordinator:
            member = _join(coordinator, options)
            if member is None:
                return ExitCode.BUSY
            member.on_lost(lambda _: signals.wake())
            while member.held():
                signals.wait(_TICK_SECONDS)
            say(f"the membership {member.name!r} was lost: {member.reason}")
            return ExitCode.LOST
    except Interrupted as interrupted:
        return ExitCode.SIGNAL + interrupted.signum
