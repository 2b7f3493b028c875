"""`tenure status`: what is held, by whom, and who waits."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from .. import Coordinator, Holder, connect, now
from .._runtime._clock import wall
from ..errors import Unavailable
from . import _holding, _tables
from ._exit import ExitCode, plain, say, seconds_text

if TYPE_CHECKING:  # else every command would load what only this one needs
    from .. import MemberInfo, Status

_COLUMNS = ("KIND", "NAME", "STATE", "WAIT", "BY", "TOKEN", "AGE", "VALUE")
_ELASTIC = (7, 4, 1)
_ROWS_MAX = 10
"""Of more holders or members than these, the table says how many more there are."""
_INTERVAL_SECONDS = 1.0
_REST_SECONDS_MAX = 60.0
_SHARE = 10
"""Between two looks it rests for so many times as long as the last one took, at least."""

_EPILOG = """\
On a terminal it writes a table, into a pipe one JSON object per line. With --watch, the
table is drawn anew, and a pipe gets a line for all that there is and one for each change.

exit codes:
    0  done; with --watch, standard output was closed
   64  wrong usage            69  backend unreachable     74  backend refused or failed
"""


def add_to(commands: Any) -> None:
    """Declare the command and its options."""
    parser = commands.add_parser(
        "status",
        help="say what is held, by whom, and who waits",
        description="Say what is held, by whom, and who waits: locks, semaphores, elections,\n"
        "groups, claims, barriers and latches. Nothing is changed by looking.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    _holding.add_backend(add)
    add("--watch", action="store_true", help="go on, until a signal")
    add("--interval", type=_interval, metavar="S", default=_INTERVAL_SECONDS,
        help="with --watch: seconds between two looks, at least (1)")  # fmt: skip
    add("--json", action="store_true", help="one JSON object per line, also on a terminal")
    parser.set_defaults(run=run, parser=parser)


def _interval(text: str) -> float:
    number = _holding.seconds(text)
    if not 0.1 <= number <= 86_400:
        raise argparse.ArgumentTypeError(f"from 0.1 to 86400 seconds are needed, not {text!r}")
    return number


def run(options: argparse.Namespace) -> int:
    """Run `tenure status` and return its exit code."""
    _holding.check_scope(options.url)
    _holding.set_up_logging(verbose=False)
    with connect(options.url, namespace=options.namespace) as coordinator, _tables.while_read():
        as_json = options.json or not sys.stdout.isatty()
        if options.watch:
            _watch(coordinator, _Changes() if as_json else _Screen(), options.interval)
        found = coordinator.status()
        lines = [_line(each) for each in found] if as_json else _drawn(found, _age)
        _tables.emit("".join(f"{line}\n" for line in lines))
    return ExitCode.DONE


def _watch(coordinator: Coordinator, view: _Changes | _Screen, interval: float) -> NoReturn:
    """Look again and again. The first look must succeed; after that, the backend is waited for."""
    spent, away = 0.0, False
    view.show(coordinator.status())
    while True:
        time.sleep(max(interval, min(_SHARE * spent, _REST_SECONDS_MAX)))
        began = now()
        try:
            found = coordinator.status()
        except Unavailable as error:
            if not away:
                view.away(f"{error}; trying again")
            spent, away = 0.0, True
            continue
        spent, away = now() - began, False
        view.show(found)


# -- for programs ----------------------------------------------------------------------


class _Changes:
    """A line for everything that was not there before, or was otherwise."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Status] = {}

    def show(self, found: Sequence[Status]) -> None:
        """Write down what differs from the last time."""
        now_known = {_key(each): each for each in found}
        for key, each in self._known.items():
            if key not in now_known:
                gone = {"kind": each.kind, "name": each.name, "gone": True}
                _tables.emit(f"{json.dumps(gone)}\n")
        for key, each in now_known.items():
            if self._known.get(key) != each:
                _tables.emit(f"{_line(each)}\n")
        self._known = now_known

    def away(self, text: str) -> None:
        """Say that the backend is away."""
        say(text)


def _key(each: Status) -> tuple[Any, ...]:
    # Where the backend does not know the name, the holders tell one lock from another.
    return (each.kind, each.name, each.holders if each.name is None else None)


def _line(each: Status) -> str:
    told = each._asdict()
    told["holders"] = [holder._asdict() for holder in each.holders]
    told["members"] = [member_dict(member) for member in each.members]
    return json.dumps(told)


def member_dict(member: MemberInfo) -> dict[str, Any]:
    """A member, as JSON has it."""
    told = member._asdict()
    del told["last_seen"]  # which nobody has asked for
    return told


# -- for people ------------------------------------------------------------------------


class _Screen:
    """The table, drawn over the one before it."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._first_seen: dict[tuple[Any, ...], float] = {}
        _tables.emit("\x1b[2J")

    def show(self, found: Sequence[Status]) -> None:
        """Draw what there is now."""
        present = {(*_key(each), holder) for each in found for holder in each.holders}
        self._first_seen = {key: self._first_seen.get(key, now()) for key in present}
        self._lines = _drawn(found, self._age)
        self._draw(self._lines)

    def away(self, text: str) -> None:
        """Leave what was there, and say that the backend is away."""
        self._draw([f"tenure: {plain(text)}", "", *self._lines])

    def _age(self, each: Status, holder: Holder) -> str:
        if holder.since is not None:
            return _age(each, holder)
        return seconds_text(now() - self._first_seen[(*_key(each), holder)]) + "+"

    def _draw(self, lines: list[str]) -> None:
        columns, rows = shutil.get_terminal_size()
        room = max(1, rows - 1)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"… {len(lines) - room + 1} more lines"]
        text = "".join(f"{_tables.cut(line, columns)}\x1b[K\n" for line in lines)
        _tables.emit(f"\x1b[H{text}\x1b[J")


Age: TypeAlias = "Callable[[Status, Holder], str]"


def _age(each: Status, holder: Holder) -> str:
    return "" if holder.since is None else _since(holder.since)


def _since(at: float) -> str:
    return seconds_text(wall() - at)


def _drawn(found: Sequence[Status], age: Age) -> list[str]:
    if not found:
        return ["nothing is held"]
    rows = [row for each in found for row in _rows(each, age)]
    return _tables.table(_COLUMNS, rows, shutil.get_terminal_size().columns, _ELASTIC)


def _rows(each: Status, age: Age) -> Iterator[tuple[str, ...]]:
    """The rows of one thing: the first says what it is, and each one who has part in it."""
    what = (each.kind, "(unknown)" if each.name is None else _tables.shown(each.name))
    first: tuple[str, ...] = (*what, _state(each), _waiting(each))
    parts = [*_holders(each, age), *_members(each)]
    more = len(parts) - _ROWS_MAX
    if more > 1:
        parts[_ROWS_MAX:] = [("", f"… and {more} more", "", "", "")]
    for state, *part in parts or [("", "", "", "", "")]:
        yield (*first[:2], first[2] or state, first[3], *part)
        first = ("", "", "", "")


def _holders(each: Status, age: Age) -> Iterator[tuple[str, ...]]:
    value = "" if each.kind != "election" or each.value is None else _json(each.value)
    for holder in each.holders:
        token = "" if holder.token is None else str(holder.token)
        yield "", _tables.shown(holder.owner), token, age(each, holder), value


def _members(each: Status) -> Iterator[tuple[str, ...]]:
    for member in each.members:
        yield "", *member_cells(member)
    for id in each.orphans:
        yield "orphan", _tables.shown(id), "", "", ""


def member_cells(member: MemberInfo) -> tuple[str, str, str, str]:
    """Who it is, its token, for how long it has been there, and what it has published."""
    who = member.id if member.owner == member.id else f"{member.id} ({member.owner})"
    value = "" if member.capabilities is None else _json(member.capabilities)
    return _tables.shown(who), str(member.token), _since(member.joined), value


def _json(value: Any) -> str:
    """JSON in characters that a terminal shows, and does not obey."""
    return _tables.shown(json.dumps(value, ensure_ascii=False))


def _state(each: Status) -> str:
    if each.kind in ("lock", "claim"):
        return ("shared" if each.shared else "held") if each.holders else "free"
    if each.kind == "semaphore":
        return f"{len(each.holders)} of {each.limit or '?'}"
    if each.kind == "election":
        return "led" if each.holders else "no leader"
    if each.kind == "barrier":
        return f"for {each.limit or '?'}"
    if each.kind == "latch":
        return f"{each.value} of {each.limit} left"
    orphans = _counted(len(each.orphans), "orphan") if each.orphans else ""
    return ", ".join(filter(None, (_counted(len(each.members), "member"), orphans)))


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _waiting(each: Status) -> str:
    if each.kind in ("group", "latch"):
        return ""
    return "?" if each.waiters is None else str(each.waiters)
