"""`tenure join` and `tenure members` with real processes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tenure
from support.cli import LIMIT, Commands, alive, end, until
from tenure._runtime.thread import drive
from tenure.cli import ExitCode, members
from tenure.testing.servers import RedisServer


class Cli(Commands):
    """Starts `tenure join` with a shell script, among others."""

    def join(self, script: str, *options: str) -> subprocess.Popen[str]:
        """Start `tenure join` with a shell script as its command."""
        return self.start("join", "workers", *options, "--", "sh", "-c", script)

    def members(self) -> dict[str, Any]:
        """Who is in the group, and what each has published."""
        with tenure.connect(self.url) as coordinator:
            try:
                found = coordinator.group("workers").members()
            except tenure.GroupNotFound:
                return {}
            return {member.id: member.capabilities for member in found}


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """Have a folder with a file backend in it."""
    runner = Cli(tmp_path)
    yield runner
    runner.close()


# -- join ------------------------------------------------------------------------------


def test_a_member_while_the_command_runs(cli: Cli) -> None:
    """The command finds group, id, token and owner; its code is passed on, and the member gone."""
    os.mkfifo(cli.folder / "go")
    script = "echo $TENURE_GROUP $TENURE_MEMBER $TENURE_TOKEN $TENURE_OWNER >seen; cat go; exit 3"
    process = cli.join(script, "--id", "one", "--owner", "me", "--set", "zone=a", "--set", "n=4")
    group, id, token, owner = cli.trace("seen").split()
    assert (group, id, owner) == ("workers", "one", "me")
    assert int(token) > 0
    assert cli.members() == {"one": {"zone": "a", "n": 4}}
    (cli.folder / "go").open("w").close()
    assert end(process) == (3, "")
    assert cli.members() == {}


def test_capabilities_are_json_or_text(cli: Cli) -> None:
    """What is JSON is published as that, all else as text; without any, there are none."""
    given = ["a=1", "b=[true]", 'c="x"', "d=x y", "e=", "f=a=b", "g=null", "a=2"]
    options = [word for each in given for word in ("--set", each)]
    cli.join("echo >in; sleep 1000", "--owner", "one", *options)
    cli.trace("in")
    cli.join("echo >too; sleep 1000", "--owner", "two")
    cli.trace("too")
    shown = {"a": 2, "b": [True], "c": "x", "d": "x y", "e": "", "f": "a=b", "g": None}
    assert cli.members() == {"one": shown, "two": None}


def test_without_a_command(cli: Cli) -> None:
    """It is a member until a signal comes, and then it has left."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        process = cli.start("join", "workers", "--owner", "me")
        until(cli.members)
        process.send_signal(signum)
        assert end(process) == (128 + signum, "")
        assert cli.members() == {}


def test_an_id_that_is_taken(cli: Cli) -> None:
    """The second of an id is refused, with the code for busy, or waits for its turn."""
    os.mkfifo(cli.folder / "go")
    first = cli.join("echo >in; cat go", "--id", "one", "--owner", "the-first")
    cli.trace("in")
    for arguments in (("join", "workers", "--id", "one"), ("join", "workers", "--id", "one", "-q")):
        for command in ((), ("--", "true")):
            code, out, errors = cli.run(*arguments, *command)
            assert (code, out) == (ExitCode.BUSY, "")
            assert ("'one' is taken, by 'the-first'" in errors) == ("-q" not in arguments)
    second = cli.join("echo >second", "--id", "one", "--timeout", "60")
    with tenure.connect(cli.url) as coordinator:
        mutex: Any = coordinator._session.driver.mutex
        # The file driver knows that somebody waits, and not how many.
        until(lambda: any(each.waiters is None for each in drive(mutex.taken())))
    (cli.folder / "go").open("w").close()
    assert end(first)[0] == 0
    assert end(second)[0] == 0
    assert (cli.folder / "second").exists()


def test_a_lost_membership_ends_the_command(cli: Cli) -> None:
    """When the backend has gone for too long, the command is ended, with the code for that."""
    with RedisServer() as server:
        cli.url = server.url
        with_command = cli.join("echo $$ >child; sleep 1000", "--ttl", "1", "--id", "one")
        without = cli.start("join", "workers", "--ttl", "1", "--id", "two", "--verbose")
        child = int(cli.trace("child"))
        # Others may see it before it has had the answer itself.
        assert without.stderr is not None
        while "joined" not in without.stderr.readline():
            assert without.poll() is None
        server.kill()
        code, errors = end(with_command)
        assert code == ExitCode.LOST
        assert "the membership 'workers/one' was lost" in errors
        assert not alive(child)
        code, errors = end(without)
        assert code == ExitCode.LOST
        assert "the membership 'workers/two' was lost" in errors


def test_a_group_deleted_by_force_ends_the_command(cli: Cli) -> None:
    """A member that was removed from its group is a membership lost, with a command or without."""
    with_command = cli.join("echo $$ >child; sleep 1000", "--ttl", "0.5", "--id", "one")
    without = cli.start("join", "workers", "--ttl", "0.5", "--id", "two")
    child = int(cli.trace("child"))
    until(lambda: len(cli.members()) == 2)
    with tenure.connect(cli.url) as coordinator:
        coordinator.group("workers").delete(force=True)
    for process in (with_command, without):
        code, errors = end(process)
        assert code == ExitCode.LOST
        assert "was removed from the group 'workers'" in errors
        assert errors.count("\n") == 1
    assert not alive(child)
    assert cli.members() == {}


def test_a_killed_member_is_gone(cli: Cli) -> None:
    """When tenure is killed its command ends too, and where that is seen, so is the membership."""
    process = cli.join("echo $$ >child; sleep 1000", "--ttl", "600")
    child = int(cli.trace("child"))
    process.kill()
    until(lambda: not alive(child) and not cli.members())


# -- members ---------------------------------------------------------------------------


def test_members_in_a_pipe(cli: Cli) -> None:
    """Each member is a JSON object; a group without members is there, and an absent one is not."""
    code, out, errors = cli.run("members", "workers")
    assert (code, out) == (ExitCode.ABSENT, "")
    assert errors == "tenure: there is no group 'workers'\n"
    with tenure.connect(cli.url, owner="me") as coordinator:
        group = coordinator.group("workers")
        group.create()
        assert cli.run("members", "workers") == (0, "", "")
        with group.join({"zone": "a"}, member="one") as one, group.join(member="two"):
            code, out, errors = cli.run("members", "workers")
    assert (code, errors) == (0, "")
    first, second = map(json.loads, out.splitlines())
    assert abs(first.pop("joined") - time.time()) < 60
    known = {"id": "one", "capabilities": {"zone": "a"}, "owner": "me", "token": one.token}
    assert first == known
    assert (second["id"], second["capabilities"]) == ("two", None)


def on_terminal(cli: Cli, *arguments: str) -> str:
    """Run `tenure` on a terminal; return what it has shown."""
    main, other = pty.openpty()
    environment = os.environ | {"TENURE_URL": cli.url, "COLUMNS": "100"}
    command = [sys.executable, "-m", "tenure", *arguments]
    process = subprocess.Popen(command, env=environment, stdin=other, stdout=other, stderr=other)
    os.close(other)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end was closed
        while part := os.read(main, 65536):
            shown += part
    os.close(main)
    assert process.wait(LIMIT) == 0
    return shown.decode().replace("\r\n", "\n")


def test_members_on_a_terminal(cli: Cli) -> None:
    """On a terminal there is a table; what a terminal would obey is escaped."""
    with tenure.connect(cli.url, owner="me") as coordinator:
        group = coordinator.group("workers")
        group.create()
        assert on_terminal(cli, "members", "workers") == "the group has no members\n"
        with group.join({"zone": "a\x1b"}, member="one\x1b"), group.join():
            lines = on_terminal(cli, "members", "workers").splitlines()
    assert lines[0].split() == ["MEMBER", "TOKEN", "SINCE", "CAPABILITIES"]
    assert lines[1].startswith("one\\x1b (me)  ")
    assert lines[1].endswith('  {"zone": "a\\u001b"}')
    assert lines[2].startswith("me  ")


def test_watch(cli: Cli) -> None:
    """With --watch, first who is there is written, and then each change; the group may come."""
    watch = cli.start("members", "workers", "--watch")
    assert watch.stdout is not None
    with tenure.connect(cli.url, owner="me") as coordinator:
        group = coordinator.group("workers")
        # Until the watch has begun, whoever is there is present, and joins no more.
        with group.join({"n": 1}, member="one") as member:
            first = json.loads(watch.stdout.readline())
            assert first["change"] in ("present", "joined")
            assert (first["id"], first["capabilities"]) == ("one", {"n": 1})
            later = cli.start("members", "workers", "--watch")
            assert later.stdout is not None
            assert json.loads(later.stdout.readline())["change"] == "present"
            member.update({"n": 2})
            seen = json.loads(watch.stdout.readline())
            assert (seen["change"], seen["capabilities"]) == ("changed", {"n": 2})
        seen = json.loads(watch.stdout.readline())
        assert (seen["change"], seen["id"], seen["token"]) == ("left", "one", member.token)
        watch.stdout.close()
        with group.join(member="two"):
            assert watch.wait(LIMIT) == 0
    later.send_signal(signal.SIGINT)
    assert end(later) == (128 + signal.SIGINT, "")


class Late:
    """A group of which one becomes a member just after it was looked at."""

    def __init__(self, group: tenure.Group, exists: bool) -> None:
        self._group = group
        if exists:
            group.create()

    def group(self, name: str) -> Late:
        """It is a coordinator, too."""
        return self

    def members(self) -> tenure.Members:
        """Who was there before."""
        try:
            return self._group.members()
        finally:
            self._group.join({"n": 1}, member="late")

    def watch(self, **options: Any) -> tenure.Watch:
        """The changes, of which there is one."""
        return self._group.watch(**options)


@pytest.mark.parametrize("exists", [True, False])
def test_no_change_is_missed(exists: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who joins when the watch has not begun yet is told, also if that makes the group."""
    written: list[str] = []

    class Enough(Exception):
        pass

    def emit(text: str) -> None:
        written.append(text)
        raise Enough

    monkeypatch.setattr("tenure.cli._tables.emit", emit)
    with tenure.connect(f"memory://late-{exists}") as coordinator:
        late: Any = Late(coordinator.group("workers"), exists)
        hurry = threading.Timer(LIMIT, coordinator.close)
        hurry.start()
        with pytest.raises(Enough):
            members._watch(late, "workers", as_json=True)
        hurry.cancel()
    assert [json.loads(line)["change"] for line in written] == ["joined"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["join"], "GROUP"),
        (["join", "workers", "--"], "'--'"),
        (["join", "workers", "--set", "a", "--", "true"], "KEY=VALUE"),
        (["join", "workers", "--set", "=a"], "KEY=VALUE"),
        (["join", "workers", "--set", "a=NaN"], "capabilities"),
        (["join", "workers", "--id", ""], "member id"),
        (["join", "", "--", "true"], "characters"),
        (["join", "workers", "--url", "memory://"], "no other process"),
        (["join", "workers", "--url", "memory://", "--", "true"], "no other process"),
        (["join", "workers", "--try"], "--try"),
        (["members"], "GROUP"),
        (["members", ""], "characters"),
        (["members", "workers", "--", "true"], "'--'"),
        (["members", "workers", "--url", "memory://"], "no other process"),
    ],
)
def test_wrong_usage(cli: Cli, arguments: list[str], said: str) -> None:
    """A wrong argument makes one line that names it, and the code for usage."""
    code, _, errors = cli.run(*arguments)
    assert code == ExitCode.USAGE
    assert said in errors
    assert errors.startswith("tenure: ")
    assert errors.count("\n") == 1


def test_unreachable(cli: Cli) -> None:
    """A backend that is not there at the start makes one line and its own code."""
    cli.url = "redis://127.0.0.1:1"
    for arguments in (("join", "x"), ("join", "x", "--", "true"), ("members", "x")):
        code, _, errors = cli.run(*arguments)
        assert code == ExitCode.UNREACHABLE
        assert errors.count("\n") == 1
