"""The file driver on real files: what it refuses, what it repairs, and what it survives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tenure
import tenure.aio
from tenure._model import Grant
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers.file import FileDriver, _Attempt, file_name
from tenure.errors import InvalidURL, SessionLost, StorageError

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name says that it must be escaped."""
    path = tmp_path / "lock files?"
    path.mkdir()
    return path


@pytest.fixture
def client(folder: Path) -> Iterator[tenure.Coordinator]:
    """A coordinator over that folder."""
    with tenure.connect(url_of(folder)) as client:
        yield client


def url_of(folder: Path) -> str:
    return "file://" + str(folder).replace(" ", "%20").replace("?", "%3F")


def lock_file(folder: Path, name: str = "name") -> Path:
    return folder / "default" / f"{name}.lock"


def held(client: tenure.Coordinator, name: str = "name") -> tenure.Lease:
    lease = client.lock(name).try_acquire()
    assert lease is not None
    return lease


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("url", ["file://", "file:///", "file://host/dir", "file://me@/dir"])
def test_a_url_without_a_folder_is_refused(url: str) -> None:
    """The URL needs a folder and nothing before it; the error shows what it should look like."""
    with pytest.raises(InvalidURL, match="file:///directory, with three slashes"):
        tenure.connect(url)


def test_an_unknown_option_is_refused(folder: Path) -> None:
    """An option that the driver does not have is named."""
    with pytest.raises(InvalidURL, match="unknown option 'poll'"):
        tenure.connect(url_of(folder) + "?poll=1")


def test_files_are_private(client: tenure.Coordinator, folder: Path) -> None:
    """Folder and lock file can be read and written by their owner alone."""
    held(client).release()
    assert stat.S_IMODE(lock_file(folder).parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(lock_file(folder).stat().st_mode) == 0o600


def make_symlink(path: Path) -> None:
    target = path.parent / "target"
    target.write_bytes(b"precious")
    path.symlink_to(target)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_foreign(path: Path) -> None:
    path.touch()
    os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "make, says",
    [
        (make_symlink, "it is a symbolic link; a lock file must be a plain file"),
        (Path.mkdir, "it is a directory; a lock file must be a plain file"),
        (make_fifo, "not a plain file, so it cannot be a lock file"),
        pytest.param(make_foreign, f"belongs to user {NOBODY}, not to us", marks=AS_ROOT),
    ],
)
def test_an_unfit_lock_file_is_refused(
    client: tenure.Coordinator,
    folder: Path,
    make: Callable[[Path], None],
    says: str,
    shared: bool,
) -> None:
    """What is no plain file of our own is refused by name, untouched, and leaves nothing open."""
    path = lock_file(folder)
    make(path)
    before = path.lstat()
    files = open_files()
    for _ in range(3):
        with pytest.raises(StorageError, match=says) as caught:
            client.lock("name", shared=shared).try_acquire()
        assert str(path) in str(caught.value)
    assert open_files() == files
    assert (path.lstat().st_mode, path.lstat().st_size) == (before.st_mode, before.st_size)
    held(client, "another").release()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A file in the folder's place, or in the way to it, is refused when connecting."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a part of the path is not a directory"):
        tenure.connect(f"file://{tmp_path}/file")
    (tmp_path / "default").touch()
    with pytest.raises(StorageError, match="it is a file; the URL names a folder"):
        tenure.connect(f"file://{tmp_path}")


def as_nobody(work: Callable[[], None]) -> None:
    """Do something in a child process that has no privileges."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


@AS_ROOT
def test_a_folder_that_may_not_be_written_is_refused() -> None:
    """A folder of somebody else is refused when connecting, with what to do instead."""

    def work() -> None:
        for path, says in (("/", "it belongs to another user"), ("/proc", "default")):
            with pytest.raises(StorageError) as caught:
                tenure.connect(f"file://{path}/tenure-test")
            assert says in str(caught.value)

    as_nobody(work)


@AS_ROOT
def test_an_existing_folder_of_somebody_else_is_refused() -> None:
    """A namespace's folder that exists but cannot be written is refused when connecting."""

    def work() -> None:
        with pytest.raises(StorageError, match="not writable; name another folder"):
            tenure.connect(f"file://{folder}")

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        os.mkdir(os.path.join(folder, "default"), 0o755)
        as_nobody(work)


def test_a_deleted_folder_is_made_again(client: tenure.Coordinator, folder: Path) -> None:
    """When somebody has cleaned up the whole folder, the next acquire makes it anew."""
    first = held(client)
    first.release()
    subprocess.run(["rm", "-r", str(folder)], check=True)
    second = held(client)
    assert second.token > first.token
    second.release()


def driver_on(folder: Path) -> tuple[FileDriver, str]:
    driver = FileDriver(Url.parse(url_of(folder)), ThreadRuntime(), "default", 9.0)
    drive(driver.open())
    return driver, drive(driver.start("me", lambda reason: None))


def seized(driver: FileDriver, session: str, id: str, shared: bool = False) -> Grant:
    grant = drive(driver.seize(session, "name", id, shared=shared, until=None))
    assert grant is not None
    return grant


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    path.with_suffix(".new").touch()
    path.with_suffix(".new").rename(path)


def bury(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.touch()


@pytest.mark.parametrize("harm", [remove, replace, bury])
def test_a_lock_file_that_went_is_a_loss(folder: Path, harm: Callable[[Path], None]) -> None:
    """Deleted or replaced while it is held, a lock file ends the session at its next renewal."""
    driver, session = driver_on(folder)
    seized(driver, session, "1")
    drive(driver.renew(session))
    harm(lock_file(folder))
    with pytest.raises(SessionLost, match="deleted or replaced"):
        drive(driver.renew(session))
    drive(driver.end(session))
    drive(driver.close())


def test_the_holder_learns_that_its_file_went(folder: Path) -> None:
    """A lease whose file was deleted is lost within a keepalive, and tokens rise all the same."""
    with tenure.connect(url_of(folder), ttl=0.5) as a, tenure.connect(url_of(folder)) as b:
        lease = held(a)
        lock_file(folder).unlink()
        assert lease.lost.wait(5)
        assert "deleted or replaced" in str(lease.reason)
        other = held(b)
        assert other.token > lease.token
        again = a.lock("name").try_acquire()
        assert again is None
        other.release()


def test_a_release_during_the_renewal_is_no_loss(folder: Path) -> None:
    """A descriptor that was released, and is another file's by now, is not taken for the lock's."""
    driver, session = driver_on(folder)
    grant = seized(driver, session, "1")
    attempt = driver._held["1"]
    stat_of = os.stat

    def meanwhile(path: str, *, follow_symlinks: bool) -> os.stat_result:
        found = stat_of(path, follow_symlinks=follow_symlinks)
        number = attempt.file
        drive(driver.unseize(grant))
        reused = os.open("/dev/null", os.O_RDONLY)
        assert reused == number
        files.append(reused)
        return found

    files: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tenure.drivers.file.os.stat", meanwhile)
        assert attempt.in_place()
    os.close(files[0])
    assert attempt.in_place()
    drive(driver.close())


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x00" * 600,
        b"rubbish\n",
        b"-5 1.000 me\n",
        b"12345678901234567890123456789 1 me\n",
        b"9" * 600,
        b" 1.0 me\n",
        b"7",
    ],
)
def test_a_damaged_record_is_written_anew(
    client: tenure.Coordinator, folder: Path, record: bytes
) -> None:
    """Whatever a lock file contains, the next token is the clock's and above all from before."""
    first = held(client)
    first.release()
    lock_file(folder).write_bytes(record)
    client.lock("name").holder()
    second = held(client)
    assert first.token < second.token < 2**63
    third_party = client.lock("name").holder()
    assert third_party is not None
    assert third_party.token == second.token
    second.release()
    third = held(client)
    assert second.token < third.token < 2**63
    third.release()


@AS_ROOT
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """On a full disk no lease is granted and nothing stays open; afterwards all works again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k,nr_inodes=16", "none"]
    mounted = subprocess.run(["mount", *options, str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full disk, since mount fails here: {mounted.stderr!r}")
    try:
        with tenure.connect(f"file://{disk}") as client:
            held(client, "before").release()
            filler = disk / "filler"
            with contextlib.suppress(OSError):
                filler.write_bytes(b"x" * 128 * 1024)
            files = open_files()
            for name in ("new", "new", "another"):
                with pytest.raises(StorageError, match="the disk is full"):
                    client.lock(name).try_acquire()
            assert open_files() == files
            held(client, "before").release()
            filler.unlink()
            held(client, "new").release()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def take_all(client: tenure.Coordinator) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(50):
            stack.enter_context(client.lock(f"more{number}"))


def test_too_many_open_files_are_told(folder: Path) -> None:
    """At the limit of open files an acquire fails with what to raise, and later works again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with tenure.connect(url_of(folder)) as client:
        held(client, "before").release()
        leases = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 8, hard))
        try:
            leases += [held(client, f"n{number}") for number in range(5)]
            with pytest.raises(StorageError, match=r"too many open files.*ulimit -n"):
                take_all(client)
            assert all(lease.held() for lease in leases)
            leases.pop().release()
            leases.append(held(client, "again"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for lease in leases:
            lease.release()


def test_file_names_are_safe_and_distinct() -> None:
    """Every name has a short file name of its own, in plain characters, on any file system."""
    names = ["a", "A", "a/b", "a_b", "..", ".", "", "x" * 100, "x" * 101, "x" * 1000, "\U0001f512"]
    names += ["a.draw", "a~b", "con.", "-", "caf\u00e9", "cafe\u0301", "a\x00"]
    files = [file_name(name) for name in names]
    assert len({file.lower() for file in files}) == len(names)
    for file in files:
        assert file.isascii()
        assert 0 < len(file) <= 100
        assert not file.startswith(".")
        assert not set(file) & set("/\\\0*?:<>|\"' ")


def test_the_record_tells_an_operator(folder: Path) -> None:
    """The lock file says who holds it with which token; a long or odd owner breaks nothing."""
    for owner in ("host:1", "two\nlines", "\U0001f512" * 900):
        with tenure.connect(url_of(folder), owner=owner) as client:
            lease = held(client)
            record = lock_file(folder).read_bytes()
            assert record.startswith(b"%d " % lease.token)
            holder = client.lock("name").holder()
            assert holder is not None
            assert holder.token == lease.token
            assert holder.owner[:3] == owner[:3]
            assert "\n" not in holder.owner
            assert holder.since is not None
            lease.release()


def test_a_cancelled_asyncio_acquire_leaves_nothing(folder: Path) -> None:
    """Cancelled at any moment, an acquire of the asyncio API leaves no lock and no open file."""

    async def main() -> None:
        async with tenure.aio.connect(url_of(folder)) as client:
            lease = await client.lock("name").acquire()
            await lease.release()
            await asyncio.sleep(0.01)
            files = open_files()
            for steps in range(20):
                task = asyncio.ensure_future(client.lock("name").acquire())
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await (await task).release()
                assert open_files() <= files
            free = await client.lock("name").try_acquire()
            assert free is not None
            await free.release()

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_without_inotify_a_waiter_looks_for_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no file can be watched, a waiter still has the lock soon after its release."""
    from tenure.wires import changes

    monkeypatch.setattr(changes._Inotify, "begin", lambda self, path: None)
    with tenure.connect(url_of(folder)) as a, tenure.connect(url_of(folder)) as b:
        lease = held(a)
        granted: list[float] = []

        def wait() -> None:
            b.lock("name").acquire(timeout=10).release()
            granted.append(tenure.now())

        waiter = threading.Thread(target=wait)
        waiter.start()
        give_up = tenure.now() + 5
        while "name" not in b._session.gates._gates:
            assert tenure.now() < give_up
        released = tenure.now()
        lease.release()
        waiter.join(10)
        assert granted
        assert granted[0] - released < 1


_TURNS = """
import os, sys, time, tenure
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # where being awake is an advantage
with tenure.connect(sys.argv[1]) as coordinator:
    lock = coordinator.lock("turns")
    print("ready", flush=True)
    sys.stdin.readline()
    end, turns = time.monotonic() + 1.0, 0
    while time.monotonic() < end:
        lock.acquire().release()
        turns += 1
    print(turns)
"""


def test_processes_take_turns(folder: Path) -> None:
    """Of twelve processes that release and acquire at once, none is starved by the others."""
    command = [sys.executable, "-c", _TURNS, f"file://{folder}"]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(12)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [int(child.communicate(timeout=30)[0]) for child in children]
    assert min(said) * 5 > sum(said) / len(said), said


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("moment", ["wait_until", "_draw"])
def test_the_child_of_a_fork_has_no_lock_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str, shared: bool
) -> None:
    """A fork while somebody waits, or just has the lock, leaves no open lock file to the child."""
    with tenure.connect(url_of(folder)) as client, tenure.connect(url_of(folder)) as other:
        lease = held(other)
        left: list[int] = []
        method = getattr(_Attempt, moment)

        def forked(self: _Attempt, *arguments: float) -> object:
            if not left:
                assert lock_files() != []
                left.append(fork_and_count())
                lease.release()
            return method(self, *arguments)

        if moment == "_draw":
            lease.release()
        monkeypatch.setattr(_Attempt, moment, forked)
        with client.lock("name", shared=shared).acquire(timeout=30.0) as mine:
            assert mine.held()
            assert left == [0]
            assert client.lock("name").try_acquire() is None
        monkeypatch.undo()
        held(other).release()
        assert driver_of(client).attempts == set()
        assert lock_files() == []


def driver_of(client: tenure.Coordinator) -> FileDriver:
    driver = client._session.driver
    assert isinstance(driver, FileDriver)
    return driver


def lock_files() -> list[str]:
    """The open files that are locks, or stand before one."""
    files = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
    found = [os.readlink(file) for file in files if os.path.lexists(file)]
    return [file for file in found if file.endswith((".lock", ".draw"))]


def fork_and_count() -> int:
    """How many of them the child of a fork has."""
    child = os.fork()
    if not child:
        os._exit(len(lock_files()))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
