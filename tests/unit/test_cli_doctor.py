"""`tenure doctor`: its text, its lines, its exit codes; what it says of memory and of folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenure._model import Finding
from tenure.cli import ExitCode, main
from tenure.drivers import _file_examine
from tenure.drivers.memory import MemoryDriver
from tenure.errors import Unavailable
from tenure.wires import lockprobe

NOTE = Finding("note", "version 1.0", "It is old.", "")
WARNING = Finding("warning", "persistence off", "A restart frees all locks.", "Turn it on.")
ERROR = Finding("error", "eviction \x1b[31m", "Locks are thrown out. " * 5, "Set it to never.")

Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """Run the command on a driver that finds what is given."""

    def run(
        found: tuple[Finding, ...] | Exception, *arguments: str, terminal: bool = False
    ) -> tuple[int, str, str]:
        async def examine(self: MemoryDriver) -> tuple[Finding, ...]:
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(MemoryDriver, "examine", examine)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        code = main(["doctor", *(arguments or ("memory://",))])
        return (code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ((), ExitCode.DONE),
        ((NOTE,), ExitCode.DONE),
        ((NOTE, WARNING), ExitCode.RISKY),
        ((WARNING, ERROR, NOTE), ExitCode.BROKEN),
    ],
)
def test_the_worst_finding_is_the_exit_code(
    told: Told, found: tuple[Finding, ...], code: int
) -> None:
    """Nothing and notes are 0, a warning is 83, an error 84."""
    assert told(found)[0] == code == told(found, terminal=True)[0]


def test_lines_for_programs(told: Told) -> None:
    """In a pipe, and with --json anywhere, each finding is one object, the worst first."""
    for terminal, arguments in ((False, ()), (True, ("memory://", "--json"))):
        _, out, errors = told((NOTE, ERROR, WARNING), *arguments, terminal=terminal)
        assert errors == ""
        found = [Finding(**json.loads(line)) for line in out.splitlines()]
        assert found == [ERROR, WARNING, NOTE]


def test_text_for_people(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it is text that fits, obeys nothing, and ends with a count."""
    monkeypatch.setenv("COLUMNS", "50")
    _, out, _ = told((NOTE, WARNING, ERROR, NOTE), terminal=True)
    lines = out.splitlines()
    assert lines[0] == r"error    eviction \x1b[31m"
    assert lines[1].startswith("         Locks are thrown out.")
    assert max(map(len, lines)) <= 50
    assert "         Turn it on." in lines
    assert lines[-1] == "memory://: 1 error, 1 warning, 2 notes"
    assert told((), terminal=True)[1] == "memory://: nothing found\n"


def test_an_error_is_told_as_by_other_commands(told: Told) -> None:
    """A backend that goes away is code 69, a wrong URL 64; each with one line."""
    code, out, errors = told(Unavailable("gone"))
    assert (code, out, errors) == (ExitCode.UNREACHABLE, "", "tenure: gone\n")
    code, out, errors = told((), "nowhere://")
    assert (code, out) == (ExitCode.USAGE, "")
    assert errors.startswith("tenure: no driver for the scheme 'nowhere'")
    code, _, errors = told((), "memory://", "--ttl", "0.01")
    assert code == ExitCode.USAGE
    assert "ttl must be" in errors


def test_the_backend_is_named_as_elsewhere(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an argument, as --url or in the environment; not twice."""
    assert told((NOTE,), "--url", "memory://here", terminal=True)[1].endswith(
        "memory://here: 1 note\n"
    )
    monkeypatch.setenv("TENURE_URL", "memory://there")
    assert told((), "--json")[0] == ExitCode.DONE
    with pytest.raises(SystemExit) as ended:
        told((), "memory://", "--url", "memory://")
    assert ended.value.code == ExitCode.USAGE


def test_memory_is_for_threads(capsys: pytest.CaptureFixture[str]) -> None:
    """Of memory there is one note: it excludes no other process."""
    assert main(["doctor", "memory://"]) == ExitCode.DONE
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["severity"] == "note"
    assert "no other process" in json.loads(line)["text"]


# -- folders ---------------------------------------------------------------------------


def subjects(found: list[Finding], severity: str) -> list[str]:
    """What the findings of a severity are about."""
    return [each.subject for each in found if each.severity == severity]


def examine(folder: Path) -> list[Finding]:
    """The findings about a folder."""
    return _file_examine.examine(str(folder), os.geteuid(), 10.0)


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    """Looking at a folder leaves no file behind, and finds no error in a good one."""
    assert subjects(examine(tmp_path), "error") == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_others_can_write_to(tmp_path: Path) -> None:
    """A folder that is open to others is a warning, and so is one in such a folder."""
    inner = tmp_path / "inner"
    inner.mkdir()
    inner.chmod(0o770)
    assert f"{inner} has mode 0770" in subjects(examine(inner), "warning")
    inner.chmod(0o700)
    assert subjects(examine(inner), "warning") == []
    tmp_path.chmod(0o777)
    assert f"{tmp_path} has mode 0777" in subjects(examine(inner), "warning")
    tmp_path.chmod(0o1777)
    assert subjects(examine(inner), "warning") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    """A folder that belongs to another user is a warning."""
    os.chown(tmp_path, 12345, -1)
    found = [each.text for each in examine(tmp_path) if each.severity == "warning"]
    assert any("user 12345" in text for text in found)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Have a file system of one megabyte, in memory."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    folder = tmp_path / "with space"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_file_system_in_memory_and_nearly_full(small_disk: Path) -> None:
    """What is lost at a restart is a note; what has no room left is a warning."""
    found = examine(small_disk)
    assert subjects(found, "note") == [f"{small_disk} is on tmpfs"]
    assert subjects(found, "warning") == []
    (small_disk / "much").write_bytes(bytes(1_020_000))
    (subject,) = subjects(examine(small_disk), "warning")
    assert "of its space left" in subject


def test_the_table_of_mounts_is_read() -> None:
    """The innermost mount counts, the last one on a place, and escapes are understood."""
    table = "\n".join(
        [
            "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
            "2 1 0:4 / /mnt rw master:2 propagate_from:3 - nfs4 host:/x rw",
            r"3 2 0:5 / /mnt/a\040b rw - cifs //host/y rw",
            "4 1 0:6 / /over rw - tmpfs tmpfs rw",
            "5 1 0:7 / /over rw - fuse.sshfs host: rw",
            "nonsense",
        ]
    )
    for path, kind in {
        "/home/x": "ext4",
        "/mnt": "nfs4",
        "/mnt/q": "nfs4",
        "/mntx": "ext4",
        "/mnt/a b/c": "cifs",
        "/over/x": "fuse.sshfs",
    }.items():
        assert _file_examine.file_system(table, path) == kind
    assert _file_examine.file_system("", "/") is None


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_file_system_of_several_hosts(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that hosts share is a warning; one that cannot be told is a note."""
    table = tmp_path / "mounts"
    table.write_text(f"1 0 8:1 / / rw - {kind} there rw\n")
    monkeypatch.setattr(_file_examine, "MOUNTS", str(table))
    assert subjects(examine(tmp_path), "warning") == [f"{tmp_path} is on {kind}"]
    table.unlink()
    assert subjects(examine(tmp_path), "note") == [str(tmp_path)]


def test_locks_that_exclude_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that another process can take as well is an error; one that none tried, a note."""
    assert lockprobe.probe(str(tmp_path), 10.0) == "excludes"
    child = lockprobe._CHILD
    unlocked = "import fcntl\nfcntl.flock = lambda *_: None\n"
    monkeypatch.setattr(lockprobe, "_CHILD", unlocked + child.replace("import fcntl, ", "import "))
    assert lockprobe.probe(str(tmp_path), 10.0) == "does not exclude"
    assert subjects(examine(tmp_path), "error") == [f"flock in {tmp_path}"]
    for program in ("import time; time.sleep(60)", "raise SystemExit"):
        monkeypatch.setattr(lockprobe, "_CHILD", program)
        assert lockprobe.probe(str(tmp_path), 0.5) == "unknown"
    assert f"flock in {tmp_path}" in subjects(examine(tmp_path), "note")


def test_a_file_system_that_takes_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused lock is an error."""

    def refuse(*_: Any) -> None:
        raise OSError(37, "no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    (found,) = (each for each in examine(tmp_path) if each.severity == "error")
    assert "takes no locks" in found.text


def test_a_folder_that_takes_no_files(tmp_path: Path) -> None:
    """A folder that went away is an error and not an exception."""
    (found,) = (each for each in examine(tmp_path / "gone") if each.severity == "error")
    assert "No file can be made" in found.text
