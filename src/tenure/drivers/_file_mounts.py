"""What the kernel's table of mounts says."""

from __future__ import annotations

import os
import re

MOUNTS = "/proc/self/mountinfo"


def kind_of(path: str) -> str:
    """The type of the file system that a path is on; empty if that cannot be read."""
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            return file_system(file.read(), os.path.realpath(path)) or ""
    except OSError:
        return ""


def file_system(mounts: str, path: str) -> str | None:
    """The type of the file system that a path is on, by the kernel's table of mounts."""
    longest, found = -1, None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        words = before.split(" ")
        if len(words) < 5 or not after:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # the last of those on one point is on top
            longest, found = len(point), after.split(" ")[0]
    return found
