"""What the file driver's files are called, and what is wrong with one that is of no use."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import stat

from ..errors import StorageError, TenureError

LOCK_SUFFIX = ".lock"
NEW_SUFFIX = ".new"
"""Of a file that is being written, and then gets another name."""

NEW_SECONDS_MAX = 60.0
"""One that is older than this was left behind by a crash."""

NAME_BYTES_MAX = 256
"""How much of a lock's name its file tells."""

CUT = "\N{HORIZONTAL ELLIPSIS}"
"""At the end of a name that is shortened."""

READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
WRITE = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
MAKE = WRITE | os.O_CREAT

_PLAIN = re.compile(r"[a-z0-9_-](?:[a-z0-9_.-]{0,98}[a-z0-9_-])?", re.ASCII)
_START_CHARACTERS = 40
_HINTS = {
    errno.ELOOP: "it is a symbolic link; {kind} must be a plain file",
    errno.EACCES: "it belongs to another user, or its folder does; use a folder of your own",
    errno.EPERM: "it belongs to another user, or its folder does; use a folder of your own",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only; name another folder in the URL",
    errno.EMFILE: "too many open files: each held lock needs one; raise `ulimit -n`",
    errno.ENFILE: "the system has too many open files",
    errno.ENOLCK: "the file system has no working locks (NFS?); use a local folder",
    errno.EISDIR: "it is a directory; {kind} must be a plain file",
    errno.EEXIST: "it is a file; the URL names a folder",
    errno.ENOTDIR: "a part of the path is not a directory",
}


def file_name(name: str) -> str:
    """A file name that is this name's alone, on any file system.

    A plain one stays as it is; any other gets a readable start and a hash.
    """
    if _PLAIN.fullmatch(name):
        return name
    return f"{_start(name)}~{hashlib.sha256(name.encode()).hexdigest()[:40]}"


def _start(name: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "_", name[:_START_CHARACTERS].lower(), flags=re.ASCII)


@functools.lru_cache(maxsize=1024)
def lock_file(folder: str, name: str) -> tuple[str, bytes]:
    """The path of a name's lock file, and the line in it that tells the name."""
    line = name.replace("\\", r"\\").replace("\n", r"\n").encode()
    if len(line) > NAME_BYTES_MAX:
        cut = line[: NAME_BYTES_MAX - len(CUT.encode())].decode(errors="ignore")
        line = (cut + CUT).encode()
    return os.path.join(folder, file_name(name) + LOCK_SUFFIX), line + b"\n"


def lock_name(file: str, line: bytes) -> str:
    """The name that a lock file is for, given the line that should tell it.

    What stands there may be the rest of another, longer record: so the file's own name must
    confirm it. A name that is not known to its end is cut.
    """
    stem = file.removesuffix(LOCK_SUFFIX)
    if _PLAIN.fullmatch(stem):
        return stem
    told = told_name(line)
    start = stem.partition("~")[0]
    if file_name(told) == stem or (told.endswith(CUT) and _start(told) == start):
        return told
    return start + CUT


def told_name(line: bytes) -> str:
    """The name that a line of `lock_file` tells."""
    return re.sub(
        r"\\(.)", lambda pair: "\n" if pair[1] == "n" else pair[1], line.decode(errors="replace")
    )


def make_folder(path: str) -> None:
    """Make a folder that its owner alone can enter, unless it is there already."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise storage_error(error, path) from error


def in_place(path: str, file: int) -> bool:
    """Say whether the path still names the open file."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(file))
    except (FileNotFoundError, NotADirectoryError):
        return False


def check_fit(path: str, found: os.stat_result, user: int, kind: str) -> None:
    """Raise `StorageError` unless it is a plain file of the user's own."""
    if not stat.S_ISREG(found.st_mode):
        raise StorageError(f"{path}: not a plain file, so it cannot be {kind}")
    if found.st_uid != user:
        raise StorageError(
            f"{path}: belongs to user {found.st_uid}, not to us (user {user}); "
            "use a folder of your own"
        )


def storage_error(error: OSError, path: str, kind: str = "a lock file") -> TenureError:
    """What the operating system refused, in words that say what to do."""
    if isinstance(error, TenureError):
        return error
    hint = _HINTS.get(error.errno or 0, os.strerror(error.errno or 0))
    return StorageError(f"{path}: {hint.format(kind=kind)}")


def remove(path: str) -> None:
    """Remove a file; whatever fails here costs nothing but the file."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def remove_old(path: str, wall: float) -> None:
    """Remove a file that a crash left behind. If its writer lives, it will write another."""
    with contextlib.suppress(OSError):
        if os.stat(path, follow_symlinks=False).st_mtime < wall - NEW_SECONDS_MAX:
            os.unlink(path)
