"""What about a folder would break the file driver's locks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from .._model import Finding
from ..wires.lockprobe import probe
from ._file_mounts import MOUNTS, file_system

__all__ = ["MOUNTS", "SHARED", "examine", "file_system", "room"]

_FREE_LEAST = 0.05
"""Of the space or the files that a file system can take, so much should be left."""

SHARED = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "beegfs"),
    *("gfs2", "ocfs2", "gpfs", "9p", "virtiofs", "vboxsf", "prl_fs", "drvfs", "davfs", "fuse"),
}
_IN_MEMORY = {"tmpfs", "ramfs"}
_LAYERS = {"overlay", "aufs"}


def examine(folder: str, user: int, patience: float) -> list[Finding]:
    """The findings about a folder that exists; never raises."""
    found = [*_kind(folder), *room(folder), *_rights(folder, user)]
    try:
        verdict = probe(folder, patience)
    except OSError as error:
        text = f"No file can be made in it: {os.strerror(error.errno or 0)}."
        return [*found, Finding("error", folder, text, "Name a folder that you may write to.")]
    if verdict in ("does not exclude", "refused"):
        does = "takes no locks" if verdict == "refused" else "let two processes lock one file"
        text = f"The file system {does}: nobody is kept out."
        found.append(Finding("error", f"flock in {folder}", text, _ELSEWHERE))
    elif verdict == "unknown":
        text = "Whether a lock keeps other processes out could not be tried: none answered."
        found.append(Finding("note", f"flock in {folder}", text, ""))
    return found


_ELSEWHERE = "Name a folder on a local disk, or a server's URL where hosts must exclude each other."


def _kind(folder: str) -> Iterator[Finding]:
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            kind = file_system(file.read(), os.path.realpath(folder))
    except OSError:
        kind = None
    if kind is None:
        text = f"What file system it is on cannot be read from {MOUNTS}."
        yield Finding("note", folder, text, "See to it that it is on a local disk.")
        return
    subject = f"{folder} is on {kind}"
    if kind in SHARED or kind.startswith("fuse."):
        text = (
            "Whether locks there exclude other hosts, and whether they end with their holder, "
            "depends on versions and mount options. This driver promises it for one machine only."
        )
        yield Finding("warning", subject, text, _ELSEWHERE)
    elif kind in _IN_MEMORY:
        text = (
            "It is lost when the machine restarts. No lock outlives that anyway, but records do "
            "not either: groups without members, barriers, latches and partitions are forgotten."
        )
        yield Finding("note", subject, text, "If that matters, name a folder on a disk.")
    elif kind in _LAYERS:
        text = (
            "It is in a container's own layer, which other containers do not see, and which goes "
            "with the container."
        )
        advice = "For several containers, mount one folder of the host into all of them."
        yield Finding("note", subject, text, advice)


def room(folder: str) -> Iterator[Finding]:
    """Whether there is space left on the folder's file system."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return
    for left, most, what in (
        (found.f_bavail, found.f_blocks, "space"),
        (found.f_favail, found.f_files, "files"),
    ):
        if most and left / most < _FREE_LEAST:
            subject = f"{folder}: {left / most:.1%} of its {what} left"
            text = "When nothing is left, new locks and every claim are refused (StorageError)."
            yield Finding("warning", subject, text, "Make room, or name another folder.")


def _rights(folder: str, user: int) -> Iterator[Finding]:
    try:
        own, above = os.stat(folder), os.stat(os.path.dirname(folder))
    except OSError:
        return
    mode = stat.S_IMODE(own.st_mode)
    if own.st_uid != user:
        text = f"It belongs to user {own.st_uid}, who can replace every lock file in it."
        yield Finding("warning", folder, text, "Use a folder of your own.")
    if mode & 0o022 and not mode & stat.S_ISVTX:
        text = "Others can write to it: they can delete or replace a lock file, and two then hold."
        advice = f"chmod go-w {folder}"
        yield Finding("warning", f"{folder} has mode {mode:04o}", text, advice)
    mode = stat.S_IMODE(above.st_mode)
    if mode & 0o002 and not mode & stat.S_ISVTX:
        text = "Everybody can write to it: anyone can put another folder in this one's place."
        advice = f"chmod o-w {os.path.dirname(folder)}, or set its sticky bit."
        yield Finding("warning", f"{os.path.dirname(folder)} has mode {mode:04o}", text, advice)
