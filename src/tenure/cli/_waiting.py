"""What a wait shows: on a terminal a line that changes, else a line once."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from .. import Holder, now
from .._runtime._clock import wall
from ..errors import TenureError
from ._exit import plain, say, seconds_text, write

_LOOK_SECONDS = 1.0
_JOIN_SECONDS = 1.0
_CLEAR_LINE = "\r\x1b[K"


class Waiting:
    """Says who holds the lock, from a thread of its own, as long as the block lasts.

    The acquire itself stays on the main thread, where signals end it, and keeps its
    place in the queue.
    """

    def __init__(
        self,
        name: str,
        aim: str,
        holder: Callable[[], Holder | None],
        quiet: bool,
        does: str = "holds it",
        do: str = "hold it",
    ) -> None:
        self._name = name
        self._aim = aim
        self._holder = holder
        self._does = does
        self._do = do
        self._live = _is_foreground_terminal()
        self._began = now()
        self._over = threading.Event()
        self._writing = threading.Lock()
        self._drawn = False
        self._seen: tuple[str, int | None] | None = None
        self._seen_since = self._began
        self._thread: threading.Thread | None = None
        if not quiet:
            self._thread = threading.Thread(target=self._show, name="tenure-waiting", daemon=True)

    def __enter__(self) -> None:
        if self._thread is not None:
            self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        with self._writing:
            if self._drawn:
                write(_CLEAR_LINE)
        if self._thread is not None:
            # Not for long: it may be asking a backend that does not answer.
            self._thread.join(_JOIN_SECONDS)

    def _show(self) -> None:
        while True:
            try:
                text = self._holder_text(self._holder())
            except TenureError as error:
                text = f"the holder is unknown: {error}"
            with self._writing:
                if self._over.is_set():
                    return
                if not self._live:
                    say(f"{self._aim}; {text}")
                    return
                line = f"{self._name!r}: waiting for {seconds_text(now() - self._began)}"
                width = shutil.get_terminal_size().columns - 1
                write(_CLEAR_LINE + plain(f"tenure: {line}; {text}")[:width])
                self._drawn = True
            if self._over.wait(_LOOK_SECONDS):
                return

    def _holder_text(self, holder: Holder | None) -> str:
        if holder is None:
            return f"nobody seems to {self._do}"
        if (holder.owner, holder.token) != self._seen:
            self._seen = (holder.owner, holder.token)
            self._seen_since = now()
        if holder.since is not None:
            held = f"for {seconds_text(wall() - holder.since)}"
        else:
            held = f"for at least {seconds_text(now() - self._seen_since)}"
        return f"{holder.owner} {self._does} {held}"


def _is_foreground_terminal() -> bool:
    """In the background, the line would run across what the user is typing."""
    try:
        return sys.stderr.isatty() and os.tcgetpgrp(2) == os.getpgrp()
    except (OSError, ValueError):
        return False
