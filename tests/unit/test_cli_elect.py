"""`tenure elect` and `tenure leader` with real processes."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tenure
from support.cli import LIMIT, Commands, alive, end, until
from tenure.cli import ExitCode
from tenure.testing.servers import RedisServer

FAMILY = "sleep 1000 & echo $! >grandchild; echo $$ >child; wait"


class Cli(Commands):
    """Starts `tenure elect` with a shell script, among others."""

    def elect(self, script: str, *options: str) -> subprocess.Popen[str]:
        """Start `tenure elect job` with a shell script as its command."""
        return self.start("elect", "job", *options, "--", "sh", "-c", script)

    def leader(self) -> tenure.Leader | None:
        """Who leads."""
        with tenure.connect(self.url) as coordinator:
            return coordinator.election("job").leader()

    def lose(self) -> None:
        """Take the lead away: the deletion of the lock's file is a loss at the next look."""
        (found,) = (self.folder / "locks").rglob("*election*job*.lock")
        found.unlink()


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """Have a folder with a file backend in it."""
    runner = Cli(tmp_path)
    yield runner
    runner.close()


# -- elect ---------------------------------------------------------------------------


def test_the_leader_runs_the_command(cli: Cli) -> None:
    """The command finds election, token and owner, its code is passed on, and nobody leads then."""
    script = "echo $TENURE_ELECTION $TENURE_TOKEN $TENURE_OWNER ${TENURE_ELECT_AGAIN-no} >>seen"
    for code in (0, 3):
        assert end(cli.elect(f"{script}; exit {code}", "--owner", "me")) == (code, "")
        assert cli.leader() is None
    first, second = (line.split() for line in (cli.folder / "seen").read_text().splitlines())
    assert first[::2] == second[::2] == ["job", "me"]
    assert first[3] == second[3] == "no"
    assert int(first[1]) < int(second[1])


def test_the_value_is_shown_to_all(cli: Cli) -> None:
    """`tenure leader` shows owner, token and value while there is a leader, and says if not."""
    assert cli.run("leader", "job") == (ExitCode.ABSENT, "job: nobody leads\n", "")
    nobody = {"election": "job", "leader": None, "token": None, "value": None, "since": None}
    code, out, _ = cli.run("leader", "job", "--json")
    assert (code, json.loads(out)) == (ExitCode.ABSENT, nobody)
    value = {"port": 8080, "note": "\u00fc\033"}
    cli.elect("echo $TENURE_TOKEN >token; sleep 1000", "--value", json.dumps(value), "--owner", "x")
    token = cli.trace("token")
    code, out, errors = cli.run("leader", "job")
    assert (code, errors) == (0, "")
    assert out.startswith("job: x leads for ")
    assert f', token {token}, value {{"port": 8080' in out
    assert "\033" not in out
    code, out, _ = cli.run("leader", "job", "--json")
    shown = json.loads(out)
    assert (code, shown["leader"], shown["token"], shown["value"]) == (0, "x", int(token), value)
    assert abs(shown["since"] - time.time()) < 60


def test_the_next_leads_when_one_ends(cli: Cli) -> None:
    """One waits while another leads, says who that is, and leads when it ends."""
    os.mkfifo(cli.folder / "go")
    first = cli.elect("echo >first; cat go", "--owner", "the-first")
    cli.trace("first")
    second = cli.elect("echo >second")
    assert second.stderr is not None
    line = second.stderr.readline()
    assert line.startswith("tenure: waiting to lead 'job'; the-first leads for ")
    assert not (cli.folder / "second").exists()
    (cli.folder / "go").open("w").close()
    assert end(first) == (0, "")
    assert end(second)[0] == 0
    assert (cli.folder / "second").exists()


def test_a_taken_lead(cli: Cli) -> None:
    """With --try and --timeout, a lead that is taken is the code for busy."""
    cli.elect("echo >in; sleep 1000")
    cli.trace("in")
    assert end(cli.elect("true", "--try")) == (ExitCode.BUSY, "tenure: another leads 'job'\n")
    code, errors = end(cli.elect("true", "--timeout", "0.3"))
    assert code == ExitCode.BUSY
    assert errors.endswith("tenure: another leads 'job' after 0.3 s\n")
    assert end(cli.elect("true", "--try", "--quiet")) == (ExitCode.BUSY, "")


def test_a_killed_leader_is_replaced(cli: Cli) -> None:
    """When the leading tenure is killed its command ends too, and the next leads at once."""
    first = cli.elect(FAMILY, "--ttl", "600")
    child, grandchild = int(cli.trace("child")), int(cli.trace("grandchild"))
    second = cli.elect("echo >second", "--ttl", "600")
    assert second.stderr is not None
    second.stderr.readline()
    first.kill()
    assert end(second)[0] == 0
    until(lambda: not alive(child) and not alive(grandchild))


def test_a_lost_lead_is_campaigned_for_again(cli: Cli) -> None:
    """After a loss the command is ended, and runs again in the next term, with a greater token,
    under the same process."""
    script = f"echo $TENURE_TOKEN >>tokens; echo ${{TENURE_ELECT_AGAIN-no}} >>again; {FAMILY}"
    process = cli.elect(script, "--ttl", "0.5", "--grace", "5")
    children: list[int] = []
    for term in range(1, 4):
        until(functools.partial(_has_lines, cli, "tokens", term))
        children += [int(cli.trace("child")), int(cli.trace("grandchild"))]
        for name in ("child", "grandchild"):
            (cli.folder / name).unlink()
        if term < 3:
            cli.lose()
            for pid in children:
                until(functools.partial(_dead, pid))
    tokens = [int(line) for line in (cli.folder / "tokens").read_text().split()]
    assert tokens == sorted(set(tokens))
    assert set((cli.folder / "again").read_text().split()) == {"no"}
    process.terminate()
    code, errors = end(process)
    assert code == 128 + signal.SIGTERM
    assert errors.count("was lost") == 2
    assert errors.count("campaigning for 'job' again") == 2
    assert not any(map(alive, children))
    assert cli.leader() is None


def _has_lines(cli: Cli, name: str, number: int) -> bool:
    path = cli.folder / name
    return path.exists() and path.read_text().count("\n") == number


def _dead(pid: int) -> bool:
    return not alive(pid)


def test_once(cli: Cli) -> None:
    """With --once a loss ends it, with the code for that."""
    process = cli.elect(FAMILY, "--ttl", "0.5", "--once")
    child = int(cli.trace("child"))
    cli.lose()
    code, errors = end(process)
    assert code == ExitCode.LOST
    assert errors.count("\n") == 1
    assert "the lead of 'job' was lost" in errors
    assert not alive(child)


def test_a_signal_during_the_end_ends_it(cli: Cli) -> None:
    """Who is asked to end while the lost command ends campaigns no more."""
    script = "trap 'echo >told; cat go' TERM; echo >in; while :; do sleep 0.01; done"
    os.mkfifo(cli.folder / "go")
    process = cli.elect(script, "--ttl", "0.5", "--grace", "600")
    cli.trace("in")
    cli.lose()
    cli.trace("told")
    process.terminate()
    process.send_signal(signal.SIGQUIT)
    code, errors = end(process)
    assert code == ExitCode.LOST
    assert "again" not in errors


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_waiting(cli: Cli, signum: signal.Signals) -> None:
    """A signal ends the wait at once; no candidacy is left."""
    cli.elect("echo >in; sleep 1000")
    cli.trace("in")
    waiter = cli.elect("echo >ran")
    assert waiter.stderr is not None
    waiter.stderr.readline()
    waiter.send_signal(signum)
    assert end(waiter) == (128 + signum, "")
    with tenure.connect(cli.url) as coordinator:
        assert coordinator.election("job").candidates() == ()
    assert not (cli.folder / "ran").exists()


def test_a_server_that_comes_back(cli: Cli) -> None:
    """When the server dies the command is ended; when it is back, the command runs again."""
    with RedisServer() as server:
        cli.url = server.url
        process = cli.elect("echo $TENURE_TOKEN >>tokens; sleep 1000", "--ttl", "1")
        until(lambda: _has_lines(cli, "tokens", 1))
        server.kill()
        assert process.stderr is not None
        said = ""
        while "trying again" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        server.start()
        until(lambda: _has_lines(cli, "tokens", 2))
        process.terminate()
        assert end(process)[0] == 128 + signal.SIGTERM
    assert "was lost" in said


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["elect"], "NAME"),
        (["elect", "job"], "'--'"),
        (["elect", "job", "--value", "{", "--", "true"], "--value"),
        (["elect", "job", "--value", '"' + "x" * 70_000 + '"', "--", "true"], "value"),
        (["elect", "job", "--shared", "--", "true"], "--shared"),
        (["elect", "", "--", "true"], "characters"),
        (["elect", "job", "--url", "memory://", "--", "true"], "no other process"),
        (["leader"], "NAME"),
        (["leader", "job", "--", "true"], "'--'"),
        (["leader", "job", "--url", "memory://"], "no other process"),
        ([], "elect"),
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
    for arguments in (("elect", "job", "--", "true"), ("leader", "job")):
        code, _, errors = cli.run(*arguments)
        assert code == ExitCode.UNREACHABLE
        assert errors.count("\n") == 1


# -- leader --watch --------------------------------------------------------------------


def test_watch(cli: Cli) -> None:
    """In a pipe, --watch writes a JSON line for the present leader and for each later one."""
    watch = cli.start("leader", "job", "--watch")
    assert watch.stdout is not None
    seen = [json.loads(watch.stdout.readline())]
    os.mkfifo(cli.folder / "go")
    first = cli.elect("cat go", "--owner", "first", "--value", "7")
    seen.append(json.loads(watch.stdout.readline()))
    (cli.folder / "go").open("w").close()
    assert end(first)[0] == 0
    seen.append(json.loads(watch.stdout.readline()))
    assert [(each["leader"], each["value"]) for each in seen] == [
        (None, None),
        ("first", 7),
        (None, None),
    ]
    watch.send_signal(signal.SIGINT)
    assert end(watch) == (128 + signal.SIGINT, "")


def test_watch_ends_with_its_reader(cli: Cli) -> None:
    """A reader that closes the pipe ends --watch without an error."""
    watch = cli.start("leader", "job", "--watch")
    assert watch.stdout is not None
    watch.stdout.readline()
    watch.stdout.close()
    cli.elect("sleep 1000")
    assert watch.wait(LIMIT) == 0
