"""The ipc driver on real semaphores: what it refuses, what it cleans up, and what it survives."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tenure
import tenure.aio
from tenure import _names
from tenure._model import Finding
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers import _ipc_examine, _ipc_holdings, _ipc_sets, ipc
from tenure.drivers._ipc_attempt import Attempt
from tenure.drivers._ipc_sets import COUNT, IDLE_MAX, Place, Sets
from tenure.drivers.ipc import IpcDriver
from tenure.errors import (
    AuthenticationFailed,
    InvalidURL,
    SessionLost,
    StorageError,
    Unavailable,
)
from tenure.wires import sysv
from tenure.wires.sysv import NOWAIT, UNDO, Batch, Call

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")
NOBODY = 65534
SECONDS = 30.0


@pytest.fixture
def url() -> Iterator[str]:
    """A URL that nobody else uses; what is in memory under it goes in the end."""
    name = f"test-{os.urandom(6).hex()}"
    yield f"ipc://{name}"
    shutil.rmtree(Path(ipc.own_folder(os.geteuid()), name), ignore_errors=True)


@pytest.fixture
def client(url: str) -> Iterator[tenure.Coordinator]:
    """A coordinator on it."""
    with tenure.connect(url) as client:
        yield client


def folder_of(url: str) -> str:
    return f"{ipc.own_folder(os.geteuid())}/{url.removeprefix('ipc://')}/default"


def sets_of(url: str) -> set[int]:
    return {set for set, _ in _ipc_sets.stamped(folder_of(url))}


def held(client: tenure.Coordinator, name: str = "name", shared: bool = False) -> tenure.Lease:
    lease = client.lock(name, shared=shared).try_acquire()
    assert lease is not None
    return lease


def driver_of(client: tenure.Coordinator) -> IpcDriver:
    driver = client._session.driver
    assert isinstance(driver, IpcDriver)
    return driver


def until(condition: Callable[[], Any], what: str) -> None:
    give_up = tenure.now() + SECONDS
    pause = threading.Event()
    while not condition():
        assert tenure.now() < give_up, f"waited in vain for {what}"
        pause.wait(0.002)


@pytest.mark.parametrize(
    "wrong", ["ipc://", "ipc:///folder", "ipc://a:1", "ipc://a,b", "ipc://me@a", "ipc://a/b"]
)
def test_a_url_that_is_not_a_name_is_refused(wrong: str) -> None:
    """The URL is a name and nothing else; the error shows what it should look like."""
    with pytest.raises(InvalidURL, match="the URL is ipc://name"):
        tenure.connect(wrong)


def test_an_unknown_option_is_refused() -> None:
    """An option that the driver does not have is named."""
    with pytest.raises(InvalidURL, match="unknown option 'poll'"):
        tenure.connect("ipc://name?poll=1")


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_folder_that_others_may_enter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """The user's folder is in a place where everybody may write, so it is looked at first."""
    monkeypatch.setattr(ipc, "MEMORY", str(tmp_path))
    folder = Path(ipc.own_folder(os.geteuid()))
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(StorageError, match="not a folder that we alone"):
        tenure.connect("ipc://name")


@AS_ROOT
def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was there first and took our folder's name cannot lead us."""
    monkeypatch.setattr(ipc, "MEMORY", str(tmp_path))
    folder = Path(ipc.own_folder(os.geteuid()))
    folder.mkdir(0o700)
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(StorageError, match="not a folder that we alone"):
        tenure.connect("ipc://name")


def test_without_shared_memory_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without /dev/shm is told apart from a wrong name."""
    monkeypatch.setattr(ipc, "MEMORY", "/nowhere/shm")
    with pytest.raises(StorageError, match="the ipc driver is for Linux"):
        tenure.connect("ipc://name")


# -- the sets and their keys -----------------------------------------------------------


def test_ten_thousand_names_leave_nothing(url: str) -> None:
    """A name takes a set only while it is in use, but for a few that are kept."""
    with tenure.connect(url) as client:
        for number in range(10_000):
            held(client, f"name-{number}").release()
        assert 0 < len(sets_of(url)) <= IDLE_MAX
    assert not sets_of(url)


def test_two_thousand_names_at_once(url: str) -> None:
    """So many locks are held by one process, each told by its name, and all are freed."""
    names = [f"name-{number}" for number in range(2000)]
    with tenure.connect(url) as client:
        leases = [held(client, name) for name in names]
        taken = drive(driver_of(client).taken())
        assert {each.name for each in taken} == set(map(_names.of_lock, names))
        assert {each.holders[0].token for each in taken} == {lease.token for lease in leases}
        for lease in leases:
            lease.release()
        assert not drive(driver_of(client).taken())
        assert _ipc_sets.in_use(folder_of(url)) == 0
    assert not sets_of(url)


@pytest.fixture
def same_key(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let all names have one key, and only their stamps tell them apart."""
    key = int.from_bytes(os.urandom(3), "big") + 1
    hashes = Sets._hashes
    monkeypatch.setattr(Sets, "_hashes", lambda self, name: (key, hashes(self, name)[1]))
    return key


@pytest.mark.usefixtures("same_key")
def test_names_with_the_same_key_are_different_locks(url: str) -> None:
    """Three names share a set and exclude nobody but themselves; a fourth is refused."""
    with tenure.connect(url) as one, tenure.connect(url) as two:
        first, second, third = (held(one, name) for name in "abc")
        assert len(sets_of(url)) == 1
        with pytest.raises(StorageError, match="other names in use have the same"):
            one.lock("d").try_acquire()
        second.release()
        held(two, "b").release()
        for name in "ac":
            assert two.lock(name).try_acquire() is None
        for lease in (first, third):
            lease.release()
    assert not sets_of(url)


@pytest.mark.parametrize("count", [1, COUNT - 1, COUNT + 1])
def test_a_set_of_another_program_is_left_alone(
    client: tenure.Coordinator, same_key: int, count: int
) -> None:
    """A set that is no set of ours is refused by its key, and nothing in it is changed."""
    set = sysv.set_of(same_key, count, make=True)
    try:
        with pytest.raises(StorageError, match=f"{same_key:#010x}: another program has a set"):
            client.lock("name").try_acquire()
        assert not any(sysv.ask(set, number, sysv.GET_VALUE) for number in range(count))
    finally:
        sysv.remove(set)


@AS_ROOT
def test_a_set_of_another_user_is_refused(same_key: int) -> None:
    """A set that another user has made is refused, and it is said why."""
    set = sysv.set_of(same_key, COUNT, make=True)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            sets = Sets("folder", NOBODY, ThreadRuntime())
            with pytest.raises(AuthenticationFailed, match="it belongs to another user"):
                sets.enter("name")
            status = 0
        finally:
            os._exit(status)
    try:
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        sysv.remove(set)


def test_a_set_that_is_being_removed_is_not_entered(url: str, same_key: int) -> None:
    """Whoever is stopped while it removes a set turns others away, and lets nobody hold it."""
    with tenure.connect(url) as client:
        held(client).release()
        (set,) = sets_of(url)
        driver_of(client)._sets._shrink(0)
        set = sysv.set_of(same_key, COUNT, make=True)
        doom = Call()
        assert doom.do(set, Batch((_ipc_sets._DOOM, 1, NOWAIT | UNDO)))
        with pytest.raises(Unavailable, match="a stopped process is removing its set"):
            client.lock("name").try_acquire()
        assert doom.do(set, Batch((_ipc_sets._DOOM, -1, NOWAIT | UNDO)))
        held(client).release()
    assert not sets_of(url)


CHILD = """
import sys, tenure
from tenure.drivers import _ipc_sets
_ipc_sets.IDLE_MAX = 0  # the set goes with every release
url, path, turns = sys.argv[1:]
with tenure.connect(url) as client:
    for _ in range(int(turns)):
        with client.lock("name", timeout=60):
            with open(path, "r+") as file:
                number = int(file.read())
                file.seek(0)
                file.write(str(number + 1))
"""


def child(*arguments: str, code: str = CHILD) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_sets_that_come_and_go_exclude_all_the_same(url: str, tmp_path: Path) -> None:
    """Four processes remove the set whenever they can, and lose no turn and no count."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    children = [child(url, str(counter), "150") for _ in range(4)]
    for each in children:
        each.communicate(timeout=100)
        assert each.returncode == 0
    assert counter.read_text() == "600"
    assert not sets_of(url)


HOLDER = """
import os, sys, tenure
client = tenure.connect(sys.argv[1])
lease = client.lock("name").acquire()
if "release" in sys.argv:
    lease.release()
print("ready", flush=True)
if "exec" in sys.argv:
    sys.stdin.readline()
    os.execlp("sleep", "sleep", "1000")
sys.stdin.readline()
"""


@contextlib.contextmanager
def holder(url: str, *how: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has taken the lock."""
    process = child(url, *how, code=HOLDER)
    with process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_what_killed_processes_leave_is_swept(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set of a process that was killed has no pin any more, and the next client removes it."""
    monkeypatch.setattr(ipc, "SWEEP_BYTES", -1)  # other tests have sets, too
    with holder(url, "release") as process:
        (set,) = sets_of(url)
        assert set not in _ipc_sets.leftovers(os.geteuid())
        process.kill()
        process.wait()
    with tenure.connect(url):
        assert not sets_of(url)


def test_a_program_that_takes_the_place_of_a_holder_holds(client: tenure.Coordinator) -> None:
    """The kernel keeps a lock over `exec`, and frees it when that program ends."""
    url = str(client._session.driver.url)
    with holder(url, "exec") as process:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        name = Path(f"/proc/{process.pid}/comm")
        until(lambda: name.read_text() == "sleep\n", "the other program to run")
        assert client.lock("name").try_acquire() is None
        process.kill()
        process.wait()
        client.lock("name").acquire(timeout=SECONDS).release()


# -- what is taken away ------------------------------------------------------------------


def test_the_holder_learns_that_its_semaphores_went(url: str) -> None:
    """Somebody who removes the set (`ipcrm`) ends the lease, at the next look."""
    with tenure.connect(url, ttl=1.0) as client:
        lease = held(client)
        for set in sets_of(url):
            sysv.remove(set)
        assert lease.lost.wait(SECONDS)
        assert "removed or changed" in str(lease.lost.reason)
        with pytest.raises(tenure.LeaseLost):
            lease.release()
        again = held(client)
        assert again.token > lease.token
        again.release()


def test_a_release_during_the_renewal_is_no_loss(
    client: tenure.Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that is given back while the renewal looks for it is not missed."""
    driver = driver_of(client)
    lease = held(client)
    (attempt,) = driver._held.values()
    look = Place.held

    def meanwhile(self: Place, shared: bool) -> bool:
        lease.release()
        return look(self, shared)

    monkeypatch.setattr(Place, "held", meanwhile)
    drive(driver.renew(attempt.session))


def test_a_waiter_goes_on_when_the_set_goes(url: str) -> None:
    """The set is removed under a holder and its waiters: each gets a turn in a new one."""
    with (
        tenure.connect(url, ttl=1.0) as one,
        tenure.connect(url) as two,
        tenure.connect(url) as three,
    ):
        lease = held(one)
        tokens: list[int] = []

        def wait(client: tenure.Coordinator) -> None:
            with client.lock("name").acquire(timeout=SECONDS) as mine:
                tokens.append(mine.token)

        threads = [threading.Thread(target=wait, args=(each,)) for each in (two, three)]
        for thread in threads:
            thread.start()
        until(lambda: _ipc_sets.in_use(folder_of(url)) == 3, "two to wait")
        for set in sets_of(url):
            sysv.remove(set)
        for thread in threads:
            thread.join(SECONDS)
        assert len(set_of_tokens := {lease.token, *tokens}) == 3
        assert min(set_of_tokens) == lease.token
        assert lease.lost.wait(SECONDS)


def test_a_session_whose_file_went_is_lost(url: str) -> None:
    """Where the session's file was deleted, the leases are lost: its name may be another's."""
    with tenure.connect(url, ttl=1.0) as client:
        lease = held(client)
        shutil.rmtree(folder_of(url))
        assert lease.lost.wait(SECONDS)
        with pytest.raises(tenure.LeaseLost):
            lease.release()


# -- interrupted in between -----------------------------------------------------------


class Interrupted(BaseException):
    """What a signal handler raises."""


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("at", range(4))
def test_an_interruption_right_after_the_kernel_leaves_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch, shared: bool, at: int
) -> None:
    """A handler that raises between the kernel's return and the next line frees what was taken."""
    with tenure.connect(url) as client, tenure.connect(url) as other:
        held(client, shared=shared).release()
        left = [at]
        do = Call.do

        def interrupted(self: Call, *arguments: Any) -> bool:
            done = do(self, *arguments)
            left[0] -= 1
            if left[0] == -1:
                raise Interrupted
            return done

        monkeypatch.setattr(Call, "do", interrupted)
        with contextlib.suppress(Interrupted):
            client.lock("name", shared=shared).acquire(timeout=SECONDS).release()
        monkeypatch.undo()
        assert _ipc_sets.in_use(folder_of(url)) == 0
        held(other).release()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("at", range(3))
def test_an_interruption_while_it_waits_leaves_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch, shared: bool, at: int
) -> None:
    """A handler that raises in the middle of a wait leaves no place in the queue."""
    with tenure.connect(url) as client, tenure.connect(url) as other:
        lease = held(other)
        left = [at]
        do = Call.do

        def interrupted(self: Call, set: int, batch: Batch, seconds: float | None = None) -> bool:
            done = do(self, set, batch, seconds)
            left[0] -= 1
            if left[0] == -1:
                raise Interrupted
            return done

        monkeypatch.setattr(Call, "do", interrupted)
        with pytest.raises(Interrupted):
            client.lock("name", shared=shared).acquire(timeout=SECONDS)
        monkeypatch.undo()
        assert _ipc_sets.in_use(folder_of(url)) == 1
        lease.release()
        held(client).release()


def test_a_reader_that_is_stopped_while_it_draws(url: str) -> None:
    """Other readers are told that a stopped process draws its token, and leave nothing."""
    with tenure.connect(url) as client:
        held(client, shared=True).release()
        ((set, verbs),) = _ipc_sets.stamped(folder_of(url))
        stopped = Call()
        assert stopped.do(set, verbs.draw)
        with pytest.raises(Unavailable, match="a stopped process is drawing its token"):
            client.lock("name", shared=True).try_acquire()
        assert _ipc_sets.in_use(folder_of(url)) == 0
        held(client).release()
        assert stopped.do(set, verbs.drawn)
        held(client, shared=True).release()


def test_a_session_that_ends_while_it_waits_is_refused(url: str) -> None:
    """A waiter whose session is ended by another thread is let go, and holds nothing."""
    driver = IpcDriver(Url.parse(url), ThreadRuntime(), "default", 9.0)
    drive(driver.open())
    session = drive(driver.start("me", lambda reason: None))
    with tenure.connect(url) as client:
        lease = held(client, "name")
        name = next(iter(driver_of(client)._held.values())).place.name
        found: list[BaseException] = []

        def wait() -> None:
            try:
                drive(driver.seize(session, name, "id", shared=False, until=float("inf")))
            except SessionLost as error:
                found.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: _ipc_sets.in_use(folder_of(url)) == 2, "the waiter to wait")
        drive(driver.end(session))
        thread.join(SECONDS)
        assert len(found) == 1
        assert _ipc_sets.in_use(folder_of(url)) == 1
        lease.release()
    drive(driver.close())
    assert not sets_of(url)


# -- turns -------------------------------------------------------------------------------


def test_a_reader_stands_back_for_a_while(url: str) -> None:
    """While a writer waits, a new reader is not let in at once, and in the end it is."""
    with tenure.connect(url) as client:
        held(client, shared=True).release()
        ((set, verbs),) = _ipc_sets.stamped(folder_of(url))
        writer = Call()
        assert writer.do(set, verbs.queue)
        assert client.lock("name", shared=True).try_acquire() is None
        client.lock("name", shared=True).acquire(timeout=SECONDS).release()
        assert writer.do(set, verbs.unqueue)


def test_a_writer_that_gets_the_lock_at_the_last_moment_leaves_the_queue(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that comes free as a writer's time runs out is taken, and readers get in later."""
    with tenure.connect(url) as client, tenure.connect(url) as other:
        lease = held(other)
        now = Attempt.now

        def released_now(self: Attempt) -> bool:
            if _ipc_sets.in_use(folder_of(url)) == 2:  # the lock, and who waits for it
                lease.release()
            return now(self)

        lock = client.lock("name")
        monkeypatch.setattr(Attempt, "now", released_now)
        late = lock.acquire(timeout=0.1)
        monkeypatch.undo()
        assert _ipc_sets.in_use(folder_of(url)) == 1
        late.release()
        assert _ipc_sets.in_use(folder_of(url)) == 0
        held(other, shared=True).release()


def test_readers_are_not_starved_by_writers(url: str) -> None:
    """Two writers that never let go for long do not keep a reader out."""
    done = threading.Event()

    def write() -> None:
        with tenure.connect(url) as client:
            while not done.is_set():
                client.lock("name").acquire(timeout=SECONDS).release()

    writers = [threading.Thread(target=write) for _ in range(2)]
    with tenure.connect(url) as client:
        try:
            for writer in writers:
                writer.start()
            for _ in range(5):
                client.lock("name", shared=True).acquire(timeout=SECONDS).release()
        finally:
            done.set()
            for writer in writers:
                writer.join(SECONDS)


async def in_use(url: str, count: int) -> None:
    give_up = tenure.now() + SECONDS
    while await asyncio.to_thread(_ipc_sets.in_use, folder_of(url)) != count:
        assert tenure.now() < give_up, f"waited in vain for {count} to hold or wait"


def test_many_waiters_leave_the_loop_its_threads(url: str) -> None:
    """Waiters sleep on threads of their own, so that others of the loop go on meanwhile."""

    async def one(client: tenure.aio.Coordinator) -> None:
        await (await client.lock("name").acquire(timeout=SECONDS)).release()

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(tenure.aio.connect(url)) for _ in range(60)]
            lease = await clients[0].lock("name").acquire()
            waiters = asyncio.gather(*map(one, clients[1:]))
            await in_use(url, 60)
            async with clients[0].semaphore("permits", 1):
                assert not waiters.done()
            await lease.release()
            await waiters

    asyncio.run(main())
    assert not sets_of(url)


def test_a_cancelled_task_leaves_the_queue(url: str) -> None:
    """A wait in the kernel cannot be cancelled, so it is short, and what it may get is freed."""

    async def main() -> None:
        async with tenure.aio.connect(url) as one, tenure.aio.connect(url) as two:
            lease = await one.lock("name").acquire()
            waiter = asyncio.ensure_future(two.lock("name").acquire())
            await in_use(url, 2)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            await in_use(url, 1)
            await lease.release()
            await in_use(url, 0)

    asyncio.run(main())


# -- tokens and records ---------------------------------------------------------------


def test_tokens_rise_when_the_clock_is_set_back(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They follow a clock that nobody can set."""
    with tenure.connect(url) as client:
        lease = held(client)
        lease.release()
    wall = ThreadRuntime.wall
    monkeypatch.setattr(ThreadRuntime, "wall", staticmethod(lambda: wall() - 1e6))
    with tenure.connect(url) as client:
        again = held(client)
        assert again.token > lease.token
        again.release()


def test_tokens_rise_at_any_speed(client: tenure.Coordinator) -> None:
    """A name that is taken again at once gets another, greater token, readers too."""
    tokens = [0]
    for number in range(2000):
        lease = held(client, shared=number % 3 > 0)
        assert lease.token > tokens[-1]
        tokens.append(lease.token)
        lease.release()


@pytest.mark.parametrize("shared", [False, True])
def test_tokens_rise_with_a_coarse_clock(
    url: str, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Where the clock stands still for a millisecond, no two tokens are the same for that."""
    fine = sysv.microseconds
    monkeypatch.setattr(sysv, "microseconds", lambda: fine() // 1000 * 1000)
    with tenure.connect(url) as one, tenure.connect(url) as two:
        tokens = []
        for _ in range(20):
            leases = [held(one, shared=shared)]
            if shared:
                leases.append(held(two, shared=True))
            tokens += [lease.token for lease in leases]
            for lease in leases:
                lease.release()
        assert all(before < after for before, after in itertools.pairwise(tokens))


def test_a_damaged_clock_is_told(url: str) -> None:
    """The file is named and left as it is; it is not guessed what stood there."""
    with tenure.connect(url):
        path = Path(folder_of(url), "clock")
    path.write_text("once upon a time")
    with pytest.raises(StorageError, match="clock: damaged"):
        tenure.connect(url)
    assert path.read_text() == "once upon a time"


@pytest.mark.parametrize("name", ["plain", "two\nlines\\and more", "x" * 400, "\N{SNOWMAN}" * 200])
def test_the_holder_is_told_for_every_name(client: tenure.Coordinator, name: str) -> None:
    """Who holds a lock is found by its whole name, also where only its start is shown."""
    lease = held(client, name)
    told = client.lock(name).holder()
    assert told is not None
    assert (told.owner, told.token) == (client.owner, lease.token)
    assert client.lock(name + "x").holder() is None
    (taken,) = drive(driver_of(client).taken())
    assert (taken.name or "").rstrip("\N{HORIZONTAL ELLIPSIS}").rpartition(":")[2] in name
    lease.release()
    assert client.lock(name).holder() is None


def test_a_holder_without_a_record_is_unknown(url: str) -> None:
    """Who was stopped before it wrote down what it took holds it all the same."""
    with tenure.connect(url) as client:
        held(client).release()
        ((set, verbs),) = _ipc_sets.stamped(folder_of(url))
        stopped = Call()
        assert stopped.do(set, verbs.lock_now)
        told = client.lock("name").holder()
        assert told is not None
        assert told.owner == "unknown"
        assert stopped.do(set, verbs.unlock)


def test_a_long_owner_fits_the_file(url: str) -> None:
    """The owner's name does not run into the records."""
    with tenure.connect(url, owner="\N{SNOWMAN}" * 1000) as client:
        lease = held(client)
        told = client.lock("name").holder()
        assert told is not None
        assert told.token == lease.token
        assert "\N{SNOWMAN}" * 100 in told.owner
        lease.release()


def test_records_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for another record, the lock is taken without one."""
    monkeypatch.setattr(_ipc_holdings, "RECORDS_MAX", 128)
    with open(tmp_path / "file", "w+b") as file:
        holdings = _ipc_holdings.Holdings(file.fileno())
        tail = _ipc_holdings.tail("name")
        places = [holdings.add(tail, number, 0.0, False) for number in range(130)]
        assert sorted(places)[:3] == [-1, -1, 1]
        for place in places:
            holdings.clear(place)
        assert holdings.add(tail, 7, 0.0, False) > 0
        assert [each.token for each in _ipc_holdings.read(file.name)] == [7]
        holdings.close()
        assert holdings.add(tail, 8, 0.0, False) == -1
        holdings.clear(1)


# -- what the machine allows -----------------------------------------------------------

ALONE = """
import sys, tenure
from tenure._runtime.thread import drive
from tenure.errors import StorageError, TenureError
from tenure.drivers.ipc import own_folder

def limit(text):
    with open("/proc/sys/kernel/sem", "w") as file:
        file.write(text)

def told(client):
    for each in drive(client._session.driver.examine()):
        print(each.severity, each.subject, sep="|")

def refused(client, name):
    try:
        client.lock(name).acquire(timeout=1)
    except TenureError as error:
        print("StorageError" if isinstance(error, StorageError) else "?", error, sep="|")

print(own_folder(0))
limit("250 32000 32 4")
with tenure.connect("ipc://alone") as client:
    told(client)
    # Two are only kept for the next time, and make room.
    for name in ("idle", "idle too"):
        client.lock(name).acquire().release()
    leases = [client.lock(str(each)).acquire() for each in range(4)]
    refused(client, "more")
    told(client)
    leases[0].release()
    client.lock("more").acquire().release()
for text in ("20 32000 32 4", "250 32000 10 4", "250 10 32 4"):
    limit(text)
    with tenure.connect("ipc://alone") as client:
        told(client)
        refused(client, text)
"""


@AS_ROOT
def test_the_kernels_limits_are_told() -> None:
    """In a namespace with small limits, each one is found beforehand, and told when it is met."""
    command = ["unshare", "--ipc", sys.executable, "-c", ALONE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    folder, *lines = done.stdout.splitlines()
    shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    assert folder != ipc.own_folder(0)
    alone = "note|IPC namespace"
    limits = "/proc/sys/kernel/sem"
    expected = [
        alone,
        "StorageError|semaphore key",
        "warning|4 of 4 sets in use",
        alone,
        f"error|{limits}: 20 semaphores in a set",
        alone,
        "StorageError|the kernel allows 20 semaphores in a set",
        f"error|{limits}: 10 operations in a call",
        alone,
        "StorageError|semaphore set",
        f"warning|{COUNT} of 10 semaphores in use",
        alone,
        "StorageError|semaphore key",
    ]
    assert len(lines) == len(expected), lines
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start), lines


def subjects(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(each.severity, each.subject) for each in findings]


@pytest.mark.parametrize(
    "user, main, more, found",
    [
        (1000, None, None, True),
        (1000, "[Login]\n#RemoveIPC=no\n", None, True),
        (1000, "[Login]\nRemoveIPC=no\n", None, False),
        (1000, "[Login]\nRemoveIPC=no\n", "[Login]\nRemoveIPC=yes\n", True),
        (999, None, None, False),
    ],
)
def test_who_removes_semaphores_at_logout(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: int,
    main: str | None,
    more: str | None,
    found: bool,
) -> None:
    """Where systemd would remove a user's semaphores under a holder, it is said how to stop it."""
    monkeypatch.setattr(_ipc_examine, "SYSTEMD", str(tmp_path))
    monkeypatch.setattr(_ipc_examine, "LOGIND", str(tmp_path / "logind.conf"))
    (tmp_path / "logind.conf.d").mkdir()
    if main is not None:
        (tmp_path / "logind.conf").write_text(main)
    if more is not None:
        (tmp_path / "logind.conf.d" / "10-more.conf").write_text(more)
    findings = _ipc_examine.examine(str(tmp_path), user)
    assert (("warning", "RemoveIPC=yes") in subjects(findings)) is found


def test_leftovers_are_told(url: str) -> None:
    """Sets that killed processes have left are counted."""
    with tenure.connect(url) as client, holder(url, "release") as process:
        process.kill()
        process.wait()
        # Another test's client may sweep it at any moment, and then there is nothing to tell.
        told = [each.text for each in drive(driver_of(client).examine())]
        assert not sets_of(url) or any("Processes that were killed" in text for text in told)
        driver_of(client)._sets.sweep()
        assert not sets_of(url)


def test_limits_that_cannot_be_read_are_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel tells nothing, that is said, and nothing fails."""
    monkeypatch.setattr(sysv, "LIMITS", str(tmp_path / "none"))
    monkeypatch.setattr(sysv, "TABLE", str(tmp_path / "none"))
    findings = _ipc_examine.examine(str(tmp_path), os.geteuid())
    assert ("note", "/proc/sys/kernel/sem") in subjects(findings)
