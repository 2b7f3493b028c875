"""System V semaphores, straight from the C library.

The libraries for Python make sets of one semaphore and do one operation at a time. What makes
these semaphores worth having is that one call does several operations or none, that it waits
until all of them can be done, and that the kernel takes back what a process has done when the
process ends (`SEM_UNDO`). Linux only: elsewhere a call cannot be given a time limit.

Facts that shape this file. A signal handler of Python's may raise the moment that a call
has returned; so the result is put into a list by the C code of ctypes itself, and whoever
cleans up knows what was done. A call that waits ends with EINTR when a signal comes, so
that the handlers run.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from ..errors import AuthenticationFailed, BackendError, StorageError, Unsupported

T = TypeVar("T")

CREATE = 0o1000
NOWAIT = 0o4000
UNDO = 0x1000
REMOVE = 0
GET_PID, GET_VALUE, GET_WAITING_FOR_ZERO = 11, 12, 15
VALUE_MAX = 32767

TABLE = "/proc/sysvipc/sem"
LIMITS = "/proc/sys/kernel/sem"

_GONE = {errno.EIDRM, errno.EINVAL}
_HINTS = {
    errno.EACCES: "it belongs to another user; use another name in the URL",
    errno.EPERM: "it belongs to another user; use another name in the URL",
    errno.ENOSPC: "the kernel has no room for another set of semaphores: `ipcs -ls` tells its "
    "limits, `sysctl kernel.sem` raises them",
    errno.ENOMEM: "the kernel has no memory for it",
    errno.E2BIG: "the kernel takes fewer operations in one call: raise the third number of "
    "`sysctl kernel.sem` to 32",
    errno.ENOSYS: "this system has no System V semaphores",
    errno.EOPNOTSUPP: "this system cannot take back what a dead process did (SEM_UNDO)",
    errno.ERANGE: "too many clients of one process or one name at once",
}


class SetGone(Exception):
    """The set was removed, or never was."""


class NoRoom(StorageError):
    """The kernel's limits allow no other set."""


class Operation(ctypes.Structure):
    """`struct sembuf`."""

    _fields_ = (
        ("number", ctypes.c_ushort),
        ("change", ctypes.c_short),
        ("flags", ctypes.c_short),
    )


class _Span(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Batch:
    """Operations that are done together, or not at all. Made once, done often."""

    __slots__ = ("array", "count")

    def __init__(self, *operations: tuple[int, int, int]) -> None:
        self.count = len(operations)
        self.array = (Operation * self.count)(*(Operation(*each) for each in operations))


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "semtimedop"):
        raise Unsupported("ipc: this system has no semtimedop; Linux has")
    return libc


class Call:
    """One caller's way into the kernel. It is not for two threads at a time."""

    __slots__ = ("_do", "results")

    def __init__(self) -> None:
        self._do = _libc()["semtimedop"]
        self.results: list[int] = []
        """0 for each batch that was done, -1 for each that was not."""
        self._do.restype = self.results.append

    def do(self, set: int, batch: Batch, seconds: float | None = None) -> bool:
        """Do the batch; False if it could not be done now, or in so many seconds.

        An interrupted wait is False, too. Raises `SetGone` if the set was removed.
        """
        results = self.results
        results.clear()
        span = None
        if seconds is not None:
            whole, part = divmod(max(0.0, seconds), 1.0)
            span = ctypes.byref(_Span(int(whole), int(part * 1e9)))
        self._do(set, batch.array, batch.count, span)
        if not results[0]:
            return True
        code = ctypes.get_errno()
        if code in (errno.EAGAIN, errno.EINTR):
            return False
        raise _error(code, f"semaphore set {set}")

    def done(self) -> bool:
        """Say whether the last batch was done, whatever has happened to its caller."""
        return bool(self.results) and not self.results[0]


def set_of(key: int, count: int, make: bool) -> int:
    """The id of the set with that key; with `make`, a new one if there is none: all zero.

    Without, `SetGone` if there is none.
    """
    found: int = _libc().semget(key, count, 0o600 | (CREATE if make else 0))
    if found < 0:
        code = ctypes.get_errno()
        if code == errno.ENOENT:
            raise SetGone
        told = limits()
        if code == errno.EINVAL and told is not None and told[0] < count:
            raise NoRoom(
                f"the kernel allows {told[0]} semaphores in a set, and we need {count}: raise the "
                "first number of `sysctl kernel.sem`"
            )
        if code == errno.EINVAL:
            raise StorageError(
                f"semaphore key {key:#010x}: another program has a set of that key; "
                "use another name in the URL"
            )
        raise _error(code, f"semaphore key {key:#010x}")
    return found


def ask(set: int, number: int, command: int) -> int:
    """A number that the kernel keeps on one semaphore; `SetGone` if there is no such one."""
    found: int = _libc().semctl(set, number, command)
    if found < 0:
        raise _error(ctypes.get_errno(), f"semaphore set {set}")
    return found


def remove(set: int) -> None:
    """Remove the set; everybody who waits on it gets `SetGone`."""
    if _libc().semctl(set, 0, REMOVE) < 0:
        raise _error(ctypes.get_errno(), f"semaphore set {set}")


def _error(code: int, what: str) -> Exception:
    if code in _GONE:
        return SetGone()
    hint = f"{what}: {_HINTS.get(code, os.strerror(code))}"
    if code in (errno.ENOSYS, errno.EOPNOTSUPP):
        return Unsupported(f"ipc: {hint}")
    if code in (errno.EACCES, errno.EPERM):
        return AuthenticationFailed(hint)
    if code == errno.ENOSPC:
        return NoRoom(hint)
    if code in _HINTS:
        return StorageError(hint)
    return BackendError(hint)


class Listed(NamedTuple):
    """A set, as the kernel's table has it."""

    key: int
    id: int
    size: int
    user: int


def listed(bytes_max: int = -1) -> Sequence[Listed]:
    """All sets of this machine, or those that stand in the first bytes of the table."""
    try:
        with open(TABLE, encoding="ascii") as table:
            lines = table.read(bytes_max).splitlines()
    except OSError:
        return ()
    found = []
    for line in lines[1:]:
        words = line.split()
        if len(words) == 10:  # the last one may be cut
            key, id, _, size, user = map(int, words[:5])
            found.append(Listed(key, id, size, user))
    return found


def limits() -> tuple[int, int, int, int] | None:
    """The kernel's limits: semaphores in a set, in all, operations in a call, sets."""
    try:
        with open(LIMITS, encoding="ascii") as file:
            per_set, in_all, operations, sets = map(int, file.read().split())
    except (OSError, ValueError):
        return None
    return per_set, in_all, operations, sets


def microseconds() -> int:
    """The clock that counts from the start of the machine, which nobody can set."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


async def here(call: Callable[[], T], stop: Callable[[], object]) -> T:
    """Run a call that waits on the caller's own thread."""
    return call()


async def elsewhere(call: Callable[[], T], stop: Callable[[], object]) -> T:
    """Run a call that waits on a thread of its own, to its end.

    The loop's own pool is not for this: a few waiters would keep it from everybody else.
    `stop` makes the call return soon; it is called when the caller is cancelled.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        tell: Callable[[], None]
        try:
            tell = functools.partial(future.set_result, call())
        except BaseException as error:  # noqa: BLE001 - it is the waiting task's, whatever it is
            tell = functools.partial(future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop was closed under its tasks
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=run, name="tenure-semaphore", daemon=True).start()
    cancelled: asyncio.CancelledError | None = None
    try:
        while not future.done():
            try:
                await asyncio.wait((future,))
            except asyncio.CancelledError as error:
                stop()
                cancelled = error
    finally:
        stop()
    if cancelled is not None:
        future.exception()  # whatever it was, the caller is gone
        raise cancelled
    return future.result()
