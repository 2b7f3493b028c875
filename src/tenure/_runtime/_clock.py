"""The clocks that both real runtimes share."""

from __future__ import annotations

import os
import time

if hasattr(time, "CLOCK_BOOTTIME"):

    def now() -> float:
        """Seconds on the monotonic clock that counts the time a machine was suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
else:
    now = time.monotonic

wall = time.time


def random() -> float:
    """A number in [0, 1), for jitter."""
    import random  # pulls in hashlib and more; not needed before somebody connects

    return random.random()


_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def unique() -> str:
    """Sixteen letters and digits that nobody else will draw (82 random bits).

    From the operating system, so that two children of one fork draw differently.
    """
    number = int.from_bytes(os.urandom(11), "big")
    letters = []
    for _ in range(16):
        number, rest = divmod(number, 36)
        letters.append(_ALPHABET[rest])
    return "".join(letters)
