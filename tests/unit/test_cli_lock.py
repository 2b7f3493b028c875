"""`tenure lock` with real processes and real lock files."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tenure
from support.cli import LIMIT, alive, until
from tenure.cli import ExitCode
from tenure.testing.servers import PostgresServer, RedisServer

SLEEPER = "sleep 1000"
TWO_GENERATIONS = """
import os, pathlib, signal, sys
signum = int(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, {signum})
if os.fork() == 0:
    signal.sigwait({signum})
    pathlib.Path("inner").touch()
    os._exit(3)
pathlib.Path("started").write_text("yes\\n")
signal.sigwait({signum})
os.wait()
pathlib.Path("outer").touch()
sys.exit(4)
"""
FAMILY = 'trap "" HUP; sleep 1000 & echo $! >grandchild; echo $$ >child; wait'


class Run:
    """A `tenure lock` that is running, in a folder in which its command leaves traces."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.pid = process.pid

    def trace(self, name: str) -> str:
        """Wait for a file that the command writes, and return what is in it."""
        path = self.folder / name
        until(lambda: (path.exists() and path.read_text().endswith("\n")) or not self.running())
        return path.read_text().strip()

    def running(self) -> bool:
        """Say whether tenure itself still runs."""
        return self.process.poll() is None

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was said."""
        errors = self.process.communicate(timeout=LIMIT)[1]
        return self.process.returncode, errors


class Cli:
    """Starts `tenure` with a backend, and cleans up after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"file://{folder}/locks"
        self._runs: list[Run] = []

    def start(self, *arguments: str) -> Run:
        """Start `tenure lock` with these arguments."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tenure", "lock", *arguments],
            cwd=self.folder,
            env=os.environ | {"TENURE_URL": self.url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        run = Run(process, self.folder)
        self._runs.append(run)
        return run

    def shell(self, script: str, *options: str) -> Run:
        """Start `tenure lock job` with a shell script as its command."""
        return self.start("job", *options, "--", "sh", "-c", script)

    def free(self) -> bool:
        """Say whether the lock can be had."""
        with tenure.connect(self.url) as coordinator:
            return coordinator.lock("job").try_acquire() is not None

    def close(self) -> None:
        """Kill what still runs; the guards kill the commands."""
        for run in self._runs:
            with contextlib.suppress(ProcessLookupError):
                run.process.send_signal(signal.SIGCONT)
            run.process.kill()
            with run.process:
                pass


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """Have a folder with a file backend in it."""
    runner = Cli(tmp_path)
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """Have a server whose locks live on a connection."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """Have a server whose locks live for a TTL."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def url(cli: Cli, request: pytest.FixtureRequest, backend: str) -> str:
    """Have the command line use this backend, in a namespace of the test's own."""
    if backend != "file":
        server = request.getfixturevalue(backend)
        cli.url = f"{server.url}?namespace={cli.folder.name}"
    return cli.url


# -- the lock and the exit code ------------------------------------------------


def test_two_commands_exclude_each_other(cli: Cli) -> None:
    """Of several commands that start together, never two are inside."""
    script = "mkdir inside && cat /dev/null && rmdir inside && echo x >>count || echo x >>broken"
    runs = [cli.shell(f"for i in 1 2 3; do {script}; done") for _ in range(4)]
    assert [run.end()[0] for run in runs] == [0] * 4
    assert not (cli.folder / "broken").exists()
    assert (cli.folder / "count").read_text() == "x\n" * 12


@pytest.mark.parametrize("code", [0, 1, 75, 255])
def test_exit_code_is_passed_on(cli: Cli, code: int) -> None:
    """The command's exit code is ours."""
    assert cli.shell(f"exit {code}").end() == (code, "")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_command_killed_by_signal(cli: Cli, signum: signal.Signals) -> None:
    """A command that a signal kills makes 128 and the signal's number."""
    assert cli.shell(f"kill -{signum.name[3:]} $$").end() == (128 + signum, "")
    assert cli.free()


def test_command_not_found(cli: Cli) -> None:
    """A command that does not exist is 127, and the lock is free again."""
    code, errors = cli.start("job", "--", "no-such-command").end()
    assert (code, errors) == (127, "tenure: no-such-command: command not found\n")
    assert cli.free()


def test_command_not_executable(cli: Cli) -> None:
    """A command that cannot be executed is 126."""
    (cli.folder / "data").write_text("x")
    code, errors = cli.start("job", "--", "./data").end()
    assert (code, errors) == (126, "tenure: ./data: Permission denied\n")


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "NAME"),
        (["job"], "'--'"),
        (["job", "--"], "'--'"),
        (["job", "--timeout", "-1", "--", "true"], "--timeout"),
        (["job", "--timeout", "1", "--try", "--", "true"], "not allowed with"),
        (["job", "--min-hold", "2", "--max-hold", "1", "--", "true"], "--max-hold"),
        (["job", "--tt", "3", "--", "true"], "--tt"),
        (["", "--", "true"], "characters"),
        (["job", "--ttl", "0.01", "--", "true"], "ttl"),
        (["job", "--url", "nonsense", "--", "true"], "scheme"),
        (["job", "--url", "nosuch://x", "--", "true"], "nosuch"),
        (["job", "--url", "memory://", "--", "true"], "no other process"),
    ],
)
def test_wrong_usage(cli: Cli, arguments: list[str], said: str) -> None:
    """A wrong argument makes one line that names it, and the code for usage."""
    code, errors = cli.start(*arguments).end()
    assert code == ExitCode.USAGE
    assert said in errors
    assert errors.startswith("tenure: ")
    assert errors.count("\n") == 1


def test_unreachable(cli: Cli) -> None:
    """A backend that is not there makes one line and its own code, without the password."""
    cli.url = "postgresql://app:hunter2@127.0.0.1:1/app"
    code, errors = cli.shell("true").end()
    assert code == ExitCode.UNREACHABLE
    assert errors.startswith("tenure: ")
    assert errors.count("\n") == 1
    assert "hunter2" not in errors


def test_storage_failed(cli: Cli) -> None:
    """A folder that cannot be used makes one line and its own code."""
    (cli.folder / "locks").write_text("in the way")
    code, errors = cli.shell("true").end()
    assert code == ExitCode.FAILED
    assert errors.count("\n") == 1


def test_exit_codes_are_distinct() -> None:
    """No two of Tenure's own exit codes are the same."""
    assert list(ExitCode) == list(enum.unique(ExitCode))
    assert all(64 <= code <= 113 for code in ExitCode if 0 < code < 126)


def test_environment(cli: Cli) -> None:
    """The command finds the lock's name, a token that rises, and the owner."""
    script = "echo $TENURE_LOCK $TENURE_TOKEN $TENURE_OWNER >>seen"
    for _ in range(2):
        assert cli.shell(script, "--owner", "me").end()[0] == 0
    first, second = ((cli.folder / "seen").read_text()).splitlines()
    assert first.split()[::2] == second.split()[::2] == ["job", "me"]
    assert int(first.split()[1]) < int(second.split()[1])


# -- waiting ---------------------------------------------------------------------


def test_try_on_a_taken_lock(cli: Cli) -> None:
    """With --try a taken lock is the code for busy, at once; quiet says nothing."""
    holder = cli.shell("echo >in; " + SLEEPER)
    holder.trace("in")
    assert cli.shell("true", "--try").end() == (ExitCode.BUSY, "tenure: 'job' is taken\n")
    assert cli.shell("true", "--try", "--quiet").end() == (ExitCode.BUSY, "")


def test_timeout(cli: Cli) -> None:
    """With --timeout the wait ends with the code for busy, and leaves nothing behind."""
    holder = cli.shell("echo >in; " + SLEEPER, "--owner", "the\033holder")
    holder.trace("in")
    code, errors = cli.shell("true", "--timeout", "0.5").end()
    assert code == ExitCode.BUSY
    waiting, over = errors.splitlines()
    assert waiting.startswith(r"tenure: waiting for 'job'; the\x1bholder holds it for ")
    assert over == "tenure: 'job' is taken after 0.5 s"


def test_shared(cli: Cli) -> None:
    """Shared holders hold together; an exclusive one is kept out."""
    readers = [
        cli.shell(f"echo >in{n}; while ! [ -e out ]; do sleep 0.01; done", "--shared")
        for n in range(2)
    ]
    for n, reader in enumerate(readers):
        reader.trace(f"in{n}")
    assert cli.shell("true", "--try").end()[0] == ExitCode.BUSY
    (cli.folder / "out").touch()
    assert [reader.end()[0] for reader in readers] == [0, 0]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("backend", ["file", "redis", "postgres"])
def test_signal_while_waiting(cli: Cli, url: str, signum: signal.Signals) -> None:
    """A signal ends the wait at once; no claim is left in the queue, no process either."""
    holder = cli.shell("echo >in; cat go")
    os.mkfifo(cli.folder / "go")
    holder.trace("in")
    waiter = cli.shell("echo >ran")
    assert waiter.process.stderr is not None
    assert "waiting for 'job'" in waiter.process.stderr.readline()
    waiter.process.send_signal(signum)
    assert waiter.end() == (128 + signum, "")
    (cli.folder / "go").open("w").close()
    assert holder.end()[0] == 0
    assert cli.free()
    assert not (cli.folder / "ran").exists()


def test_signals_while_the_server_hangs(cli: Cli) -> None:
    """A second signal does not wait for a backend that does not answer."""
    with RedisServer() as server:
        cli.url = server.url
        holder = cli.shell("echo >in; " + SLEEPER, "--ttl", "600")
        holder.trace("in")
        waiter = cli.shell("echo >ran", "--ttl", "600")
        assert waiter.process.stderr is not None
        waiter.process.stderr.readline()
        server.pause()

        def ended() -> bool:
            waiter.process.send_signal(signal.SIGINT)
            return not waiter.running()

        began = time.monotonic()
        until(ended)
        assert time.monotonic() - began < 8  # one call alone may take 10 s
        assert waiter.end()[0] == 128 + signal.SIGINT
    assert not (cli.folder / "ran").exists()


# -- signals while the command runs --------------------------------------------------


@pytest.mark.parametrize(
    "signum",
    [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2],
)
def test_signals_reach_the_whole_group(cli: Cli, signum: signal.Signals) -> None:
    """A signal to tenure reaches what the command has started, too."""
    (cli.folder / "family.py").write_text(TWO_GENERATIONS)
    run = cli.start("job", "--", sys.executable, "family.py", str(int(signum)))
    run.trace("started")
    run.process.send_signal(signum)
    assert run.end() == (4, "")
    assert (cli.folder / "inner").exists()
    assert (cli.folder / "outer").exists()


def test_what_a_killed_shell_leaves_is_ended(cli: Cli) -> None:
    """When a signal kills the command, its children end before the lock is free."""
    run = cli.shell(FAMILY)
    child, grandchild = int(run.trace("child")), int(run.trace("grandchild"))
    os.kill(child, signal.SIGKILL)
    assert run.end() == (128 + signal.SIGKILL, "")
    assert not alive(grandchild)


def test_what_resists_is_killed(cli: Cli) -> None:
    """A grandchild that ignores TERM is killed after the grace, before the lock is free."""
    inner = "trap '' TERM; echo $$ >grandchild; while :; do sleep 0.01; done"
    run = cli.shell(f'sh -c "{inner.replace("$$", chr(92) + "$$")}" & wait', "--grace", "0.3")
    grandchild = int(run.trace("grandchild"))
    run.process.terminate()
    assert run.end() == (128 + signal.SIGTERM, "")
    assert not alive(grandchild)


def test_background_processes_outlive_a_normal_end(cli: Cli) -> None:
    """A command that exits by itself may leave processes; the lock is free."""
    run = cli.shell(f"{SLEEPER} >/dev/null 2>&1 & echo $! >left")
    left = int(run.trace("left"))
    assert run.end() == (0, "")
    assert cli.free()
    assert alive(left)
    os.kill(left, signal.SIGKILL)


def test_ignored_signals_stay_ignored(cli: Cli) -> None:
    """Under nohup, neither tenure nor the command ends with a hang-up."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = cli.shell("echo >in; cat go; echo >out")
    finally:
        signal.signal(signal.SIGHUP, before)
    os.mkfifo(cli.folder / "go")
    run.trace("in")
    run.process.send_signal(signal.SIGHUP)
    (cli.folder / "go").open("w").close()
    assert run.end()[0] == 0
    assert (cli.folder / "out").exists()


# -- holding for long enough, and not for too long ------------------------------------


def test_max_hold(cli: Cli) -> None:
    """A command that runs for too long is ended with its group, with a code of its own."""
    run = cli.shell(FAMILY, "--max-hold", "0.5")
    grandchild = int(run.trace("grandchild"))
    code, errors = run.end()
    assert code == ExitCode.MAX_HOLD
    assert errors.count("\n") == 1
    assert not alive(grandchild)
    assert cli.free()


def test_max_hold_kills_after_the_grace(cli: Cli) -> None:
    """A command that ignores TERM is killed when the grace is over."""
    script = "trap '' TERM; echo $$ >child; while :; do sleep 0.01; done"
    run = cli.shell(script, "--max-hold", "0.3", "--grace", "0.3")
    child = int(run.trace("child"))
    code, errors = run.end()
    assert code == ExitCode.MAX_HOLD
    assert "killing it" in errors
    assert not alive(child)


def test_min_hold(cli: Cli) -> None:
    """The lock is kept after the command has ended, and its exit code is passed on."""
    began = time.monotonic()
    run = cli.shell("echo >ran; exit 3", "--min-hold", "4")
    run.trace("ran")
    assert cli.shell("true", "--try").end()[0] == ExitCode.BUSY
    assert run.end() == (3, "")
    assert time.monotonic() - began >= 4
    assert cli.free()


def test_min_hold_is_ended_by_a_signal(cli: Cli) -> None:
    """An interrupt ends the time that the lock is kept for."""
    run = cli.shell("echo $$ >child", "--min-hold", "1000")
    child = int(run.trace("child"))
    until(lambda: not Path(f"/proc/{child}").exists())
    run.process.send_signal(signal.SIGINT)
    assert run.end() == (128 + signal.SIGINT, "")
    assert cli.free()


# -- the loss of the lease ---------------------------------------------------------------


def lock_file(cli: Cli) -> Path:
    """The file of the lock `job`: deleting it is a loss at the next look."""
    return cli.folder / "locks" / "default" / "job.lock"


def test_loss_ends_the_command(cli: Cli) -> None:
    """When the lease is lost the whole group ends, and the exit code says so."""
    run = cli.shell(FAMILY, "--ttl", "0.5")
    child, grandchild = int(run.trace("child")), int(run.trace("grandchild"))
    lock_file(cli).unlink()
    code, errors = run.end()
    assert code == ExitCode.LOST
    assert errors.count("\n") == 1
    assert "was lost" in errors
    assert not alive(child)
    assert not alive(grandchild)


def test_loss_kills_what_resists(cli: Cli) -> None:
    """After the grace, what ignores TERM is killed, the grandchildren too."""
    inner = "trap '' TERM; echo \\$\\$ >grandchild; while :; do sleep 0.01; done"
    script = f'trap "" TERM; sh -c "{inner}" & echo $$ >child; wait'
    run = cli.shell(script, "--ttl", "0.5", "--grace", "0.3")
    child, grandchild = int(run.trace("child")), int(run.trace("grandchild"))
    lock_file(cli).unlink()
    code, errors = run.end()
    assert code == ExitCode.LOST
    assert "killing it" in errors
    assert not alive(child)
    assert not alive(grandchild)


def test_loss_at_the_end_counts(cli: Cli) -> None:
    """A command that still ends well after the loss does not hide it."""
    script = "trap 'echo >ended; exit 0' TERM; echo >in; while :; do sleep 0.01; done"
    run = cli.shell(script, "--ttl", "0.5")
    run.trace("in")
    lock_file(cli).unlink()
    assert run.end()[0] == ExitCode.LOST
    assert (cli.folder / "ended").exists()


@pytest.mark.parametrize("kind", [RedisServer, PostgresServer])
def test_server_gone(cli: Cli, kind: type[RedisServer | PostgresServer]) -> None:
    """When the server dies the command is ended, and the exit code says so."""
    with kind() as server:
        cli.url = server.url
        run = cli.shell(FAMILY, "--ttl", "1")
        child, grandchild = int(run.trace("child")), int(run.trace("grandchild"))
        server.kill()
        code, errors = run.end()
    assert code == ExitCode.LOST, errors
    assert not alive(child)
    assert not alive(grandchild)


@pytest.mark.parametrize("backend", ["redis", "postgres"])
def test_stopped_beyond_the_ttl(cli: Cli, url: str) -> None:
    """While tenure is stopped the guard ends the command; resumed, tenure says it was lost."""
    run = cli.shell(FAMILY, "--ttl", "1")
    child, grandchild = int(run.trace("child")), int(run.trace("grandchild"))
    run.process.send_signal(signal.SIGSTOP)
    until(lambda: not alive(child) and not alive(grandchild))
    run.process.send_signal(signal.SIGCONT)
    code, errors = run.end()
    assert code == ExitCode.LOST, errors


@pytest.mark.parametrize("backend", ["redis", "postgres"])
def test_renewed_in_time(cli: Cli, url: str) -> None:
    """A command that runs for several TTLs is left alone."""
    assert cli.shell("sleep 3", "--ttl", "1").end() == (0, "")


@pytest.mark.parametrize("backend", ["file", "postgres"])
def test_killed(cli: Cli, url: str) -> None:
    """When tenure is killed, the command's whole group ends and the lock is free at once."""
    run = cli.shell(FAMILY, "--ttl", "600")
    child, grandchild = int(run.trace("child")), int(run.trace("grandchild"))
    run.process.kill()
    until(cli.free)
    until(lambda: not alive(child) and not alive(grandchild))


def test_killed_while_waiting(cli: Cli) -> None:
    """A tenure that is killed while it waits leaves no process behind."""
    holder = cli.shell("echo >in; " + SLEEPER)
    holder.trace("in")
    waiter = cli.shell("echo >ran")
    assert waiter.process.stderr is not None
    waiter.process.stderr.readline()
    tasks = Path(f"/proc/{waiter.pid}/task/{waiter.pid}/children").read_text().split()
    assert len(tasks) == 2
    waiter.process.kill()
    until(lambda: not any(alive(int(pid)) for pid in tasks))
    assert not (cli.folder / "ran").exists()


@pytest.mark.parametrize("kind", [RedisServer, PostgresServer])
def test_release_that_fails(cli: Cli, kind: type[RedisServer | PostgresServer]) -> None:
    """When the release gets no answer, one line says so, and the end is not delayed for long."""
    with kind() as server:
        cli.url = server.url
        os.mkfifo(cli.folder / "go")
        run = cli.shell("echo >in; cat go; exit 3", "--ttl", "6")
        run.trace("in")
        server.pause()
        (cli.folder / "go").open("w").close()
        code, errors = run.end()
    # Where the lock lives on a connection, giving that up is a loss before the release.
    assert code == (3 if kind is RedisServer else ExitCode.LOST)
    assert errors.count("\n") == 1, errors
    assert "'job'" in errors


def test_deleted_at_the_server(cli: Cli, redis: RedisServer) -> None:
    """When somebody deletes the lock at the server, the command is ended at the next renewal."""
    cli.url = f"{redis.url}?namespace=deleted"
    run = cli.shell(FAMILY, "--ttl", "2")
    child, grandchild = int(run.trace("child")), int(run.trace("grandchild"))
    redis.command("FLUSHALL")
    code, errors = run.end()
    assert code == ExitCode.LOST, errors
    assert not alive(child)
    assert not alive(grandchild)
