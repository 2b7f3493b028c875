"""`tenure status`: its tables, its lines, and what it shows on a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tenure
from tenure.cli import ExitCode, _tables, status
from tenure.testing.servers import RedisServer

LIMIT = 20.0


class Cli:
    """Starts `tenure status` on a backend, and cleans up afterwards."""

    def __init__(self, folder: Path) -> None:
        self.url = f"file://{folder}/locks"
        self._stack = contextlib.ExitStack()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `tenure status`, with its output in pipes."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tenure", "status", *arguments],
            env=os.environ | {"TENURE_URL": self.url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return process

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run it to its end; return the exit code and what was written and said."""
        process = self.start(*arguments)
        out, errors = process.communicate(timeout=LIMIT)
        return process.returncode, out, errors

    def on_terminal(self, columns: int, rows: int, *arguments: str) -> Terminal:
        """Start it on a terminal of that size."""
        terminal = Terminal(self.url, columns, rows, *arguments)
        self._stack.callback(terminal.close)
        return terminal

    def connect(self, **options: Any) -> tenure.Coordinator:
        """A coordinator on the same backend."""
        return self._stack.enter_context(tenure.connect(self.url, **options))

    def close(self) -> None:
        """End all that was started."""
        self._stack.close()


class Terminal:
    """`tenure status` on a terminal of its own, and all that it has shown."""

    def __init__(self, url: str, columns: int, rows: int, *arguments: str) -> None:
        self.shown = ""
        main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = os.environ | {"TENURE_URL": url}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self._main = main
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tenure", "status", *arguments],
            env=environment,
            stdin=other,
            stdout=other,
            stderr=other,
        )
        os.close(other)

    def until(self, text: str) -> str:
        """Wait until the text was shown; return all up to there, and forget it."""
        deadline = time.monotonic() + LIMIT
        while text not in self.shown:
            assert self.look(), f"no {text!r} in {self.shown!r}"
            assert time.monotonic() < deadline, f"no {text!r} in {self.shown!r}"
        before, _, self.shown = self.shown.partition(text)
        return before

    def look(self) -> bool:
        """Read what there is to read; False when the program has ended."""
        try:
            if select.select([self._main], [], [], 0.01)[0]:
                self.shown += os.read(self._main, 65536).decode()
        except OSError:  # how Linux says that the other end was closed
            return False
        return True

    def all(self) -> str:
        """Wait for the end; return what was shown."""
        deadline = time.monotonic() + LIMIT
        while self.look():
            assert time.monotonic() < deadline, self.shown
        return self.shown.replace("\r\n", "\n")

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self._main)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """Have a file backend, and the means to look at it."""
    runner = Cli(tmp_path)
    yield runner
    runner.close()


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition to come true."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


# -- tables ----------------------------------------------------------------------------


def test_a_table_fits() -> None:
    """Columns are aligned; what does not fit is shortened, where that does least harm first."""
    head = ("A", "LONG", "EMPTY", "C")
    rows = [("a", "x" * 30, "", "c"), ("aa", "y", "", "ccc")]
    assert _tables.table(head, rows, 80, (1,)) == [
        "A   LONG" + " " * 28 + "C",
        f"a   {'x' * 30}  c",
        "aa  y" + " " * 31 + "ccc",
    ]
    for most in (1, 5, 20, 30, 38, 39):
        lines = _tables.table(head, rows, most, (1,))
        assert max(map(len, lines)) <= most
    assert _tables.table(head, rows, 20, (1,))[1] == f"a   {'x' * 10}…  c"


def test_wide_characters_are_aligned() -> None:
    """Characters that are two columns wide, or none, count as that."""
    lines = _tables.table(("NAME", "B"), [("日本", "1"), ("e\u0301", "2"), ("abcd", "3")], 80, ())
    assert lines == ["NAME  B", "日本  1", "e\u0301     2", "abcd  3"]
    assert _tables.cut("日本語", 5) == "日本…"
    assert _tables.cut("日本語", 6) == "日本語"


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\nb", "a\tb", "\u202egnp", "\x9b1m", "\x00"])
def test_what_a_terminal_would_obey_is_escaped(text: str) -> None:
    """Control characters and those that turn the text around are visible, and do nothing."""
    assert _tables.shown(text).isprintable()
    assert "\\" in _tables.shown(text)


def rows(each: tenure.Status) -> list[tuple[str, ...]]:
    """The rows of the table for one thing."""
    return list(status._rows(each, lambda _, holder: "" if holder.since is None else "3 s"))


def test_every_kind_has_its_words() -> None:
    """What is unknown is told as that, and what a kind has not is left out."""
    one, two = tenure.Holder("a", 1, 5.0), tenure.Holder("b\n")
    assert rows(tenure.Status("lock", "x", (one, two), None, shared=True)) == [
        ("lock", "x", "shared", "?", "a", "1", "3 s", ""),
        ("", "", "", "", "b\\n", "", "", ""),
    ]
    assert rows(tenure.Status("lock", None, (one,), 2)) == [
        ("lock", "(unknown)", "held", "2", "a", "1", "3 s", "")
    ]
    assert rows(tenure.Status("semaphore", "x", (one,), 1, 5))[0][2:5] == ("1 of 5", "1", "a")
    assert rows(tenure.Status("semaphore", "x", (), 0, None))[0][2] == "0 of ?"
    assert rows(tenure.Status("election", "x", (one,), 1, value={"é": 1}))[0][2:] == (
        *("led", "1", "a", "1", "3 s", '{"é": 1}'),
    )
    assert rows(tenure.Status("election", "x"))[0][2:4] == ("no leader", "0")
    assert rows(tenure.Status("barrier", "x", (), 1, 3))[0][2:4] == ("for 3", "1")
    assert rows(tenure.Status("latch", "x", (), None, 3, value=0))[0][2:4] == ("0 of 3 left", "")
    member = tenure.MemberInfo("one", {"zone": 1}, "me", 7, time.time())
    (first, second) = rows(tenure.Status("group", "x", members=(member,), orphans=("dead",)))
    assert first[2:6] == ("1 member, 1 orphan", "", "one (me)", "7")
    assert second[2:5] == ("orphan", "", "dead")


def test_long_lists_are_cut() -> None:
    """Of many holders the first are shown, and how many more there are."""
    found = rows(tenure.Status("semaphore", "x", tuple(tenure.Holder(str(n)) for n in range(50))))
    assert len(found) == 11
    assert found[-1][4] == "… and 40 more"
    found = rows(tenure.Status("semaphore", "x", tuple(tenure.Holder(str(n)) for n in range(11))))
    assert [row[4] for row in found] == list(map(str, range(11)))


# -- into a pipe -----------------------------------------------------------------------


def test_lines_in_a_pipe(cli: Cli) -> None:
    """Each thing is a JSON object with the fields of a Status; of nothing, nothing is written."""
    assert cli.run() == (0, "", "")
    coordinator = cli.connect(owner="me")
    with (
        coordinator.lock("nightly") as lease,
        coordinator.group("workers").join({"zone": "a"}) as member,
    ):
        code, out, errors = cli.run()
    assert (code, errors) == (0, "")
    lock, group = map(json.loads, out.splitlines())
    assert lock == {
        **tenure.Status("lock", "nightly")._asdict(),
        "members": [],
        "orphans": [],
        "holders": [{"owner": "me", "token": lease.token, "since": lock["holders"][0]["since"]}],
    }
    assert abs(lock["holders"][0]["since"] - time.time()) < 60
    assert group["members"] == [
        {
            "id": "me",
            "capabilities": {"zone": "a"},
            "owner": "me",
            "token": member.token,
            "joined": group["members"][0]["joined"],
        }
    ]


def test_looking_disturbs_nobody(cli: Cli) -> None:
    """A lock that is looked at can be had at once, and who holds it goes on."""
    coordinator = cli.connect(ttl=0.5)
    with coordinator.lock("job") as lease:
        watch = cli.start("--watch", "--interval", "0.1")
        assert watch.stdout is not None
        watch.stdout.readline()
        other = cli.connect()
        for number in range(50):
            with other.lock(f"free-{number}", timeout=0):
                lease.check()


def test_changes_in_a_pipe(cli: Cli) -> None:
    """With --watch, all that there is and then each change is written, and what has gone."""
    coordinator = cli.connect(owner="me")
    lease = coordinator.lock("one").acquire()
    watch = cli.start("--watch", "--interval", "0.1")
    assert watch.stdout is not None
    first = json.loads(watch.stdout.readline())
    assert (first["name"], first["holders"][0]["owner"]) == ("one", "me")
    second = coordinator.lock("two").acquire()
    assert json.loads(watch.stdout.readline())["name"] == "two"
    lease.release()
    assert json.loads(watch.stdout.readline()) == {"kind": "lock", "name": "one", "gone": True}
    second.release()
    assert json.loads(watch.stdout.readline())["gone"] is True
    watch.send_signal(signal.SIGINT)
    assert watch.communicate(timeout=LIMIT)[1] == ""
    assert watch.returncode == 128 + signal.SIGINT


def test_watch_ends_with_its_reader(cli: Cli) -> None:
    """A reader that closes the pipe ends --watch without an error."""
    watch = cli.start("--watch", "--interval", "0.1")
    assert watch.stdout is not None
    watch.stdout.close()
    coordinator = cli.connect()
    with coordinator.lock("one"):
        assert watch.wait(LIMIT) == 0
    assert watch.stderr is not None
    assert watch.stderr.read() == ""


def test_a_server_that_comes_back(cli: Cli) -> None:
    """While the backend is away that is said once; when it is back, the changes go on."""
    with RedisServer() as server:
        cli.url = f"{server.url}?ttl=1"
        with cli.connect() as coordinator:
            coordinator.latch("one", 3).count_down()
        watch = cli.start("--watch", "--interval", "0.1")
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert json.loads(watch.stdout.readline())["name"] == "one"
        server.kill()
        assert "trying again" in watch.stderr.readline()
        server.start()
        gone = {"kind": "latch", "name": "one", "gone": True}
        assert json.loads(watch.stdout.readline()) == gone
        with cli.connect() as coordinator:
            coordinator.latch("two", 3).count_down()
        assert json.loads(watch.stdout.readline())["name"] == "two"
        watch.kill()
        assert watch.stderr.read() == ""


class Backend:
    """A backend that is there, then away for two looks, there for one, away, and then over."""

    def __init__(self) -> None:
        self._looks = iter([True, False, False, True, False])

    def status(self) -> tuple[tenure.Status, ...]:
        """What is there, or an error."""
        try:
            there = next(self._looks)
        except StopIteration:
            raise KeyboardInterrupt from None
        if not there:
            raise tenure.Unavailable("away")
        return ()


class View:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def show(self, found: object) -> None:
        """It is there."""
        self.told.append("there")

    def away(self, text: str) -> None:
        """It is away."""
        self.told.append(text)


def test_an_absence_is_told_once() -> None:
    """However often it looks in vain, it says so once, and again only after it was back."""
    view: Any = View()
    backend: Any = Backend()
    with pytest.raises(KeyboardInterrupt):
        status._watch(backend, view, 0.0)
    away = "away; trying again"
    assert view.told == ["there", away, "there", away]


# -- on a terminal ---------------------------------------------------------------------


def test_the_table_on_a_terminal(cli: Cli) -> None:
    """On a terminal there is a table, as wide as that; with --json there are objects."""
    assert cli.on_terminal(80, 24).all() == "nothing is held\n"
    coordinator = cli.connect(owner="me")
    with (
        coordinator.lock("nightly \x1b[2J 日本"),
        coordinator.election("lead").campaign(value={"long": "x" * 200}),
    ):
        shown = cli.on_terminal(100, 24).all()
        lines = shown.splitlines()
        assert lines[0].split() == ["KIND", "NAME", "STATE", "WAIT", "BY", "TOKEN", "AGE", "VALUE"]
        assert lines[1].startswith("lock      nightly \\x1b[2J 日本  held   0     me  ")
        assert lines[2].startswith("election  lead ")
        assert lines[2].endswith("…")
        assert all(_tables.width(line) <= 100 for line in lines)
        assert "\x1b" not in shown
        lines = cli.on_terminal(100, 24, "--json").all().splitlines()
        assert [json.loads(line)["kind"] for line in lines] == ["lock", "election"]


def test_the_table_is_drawn_anew(cli: Cli) -> None:
    """With --watch the table is drawn over the one before, and no longer than the terminal."""
    coordinator = cli.connect(owner="me")
    screen = cli.on_terminal(80, 10, "--watch", "--interval", "0.1")
    screen.until("\x1b[2J\x1b[Hnothing is held\x1b[K\r\n\x1b[J")
    permit = coordinator.semaphore("licences", 3).acquire()
    drawn = screen.until("1 of 3")
    assert "\x1b[H" in drawn
    screen.until("s+")
    permit.release()
    screen.until("0 of 3")
    with contextlib.ExitStack() as stack:
        for number in range(12):
            stack.enter_context(coordinator.lock(f"lock-{number}"))
        screen.until("… 6 more lines\x1b[K\r\n\x1b[J\x1b[H")
        assert screen.until("\x1b[J").count("\n") == 9
    screen.process.send_signal(signal.SIGINT)
    assert screen.process.wait(LIMIT) == 128 + signal.SIGINT


# -- wrong usage -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["job"], "job"),
        (["--interval", "0"], "--interval"),
        (["--interval", "x"], "--interval"),
        (["--url", "memory://"], "no other process"),
        (["--", "true"], "'--'"),
    ],
)
def test_wrong_usage(cli: Cli, arguments: list[str], said: str) -> None:
    """A wrong argument makes one line that names it, and the code for usage."""
    code, out, errors = cli.run(*arguments)
    assert (code, out) == (ExitCode.USAGE, "")
    assert said in errors
    assert errors.count("\n") == 1


def test_unreachable(cli: Cli) -> None:
    """A backend that is not there at the start makes one line and its own code."""
    cli.url = "redis://127.0.0.1:1"
    for options in ((), ("--watch",)):
        code, _, errors = cli.run(*options)
        assert code == ExitCode.UNREACHABLE
        assert errors.count("\n") == 1
