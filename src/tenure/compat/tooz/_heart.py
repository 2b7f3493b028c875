"""The heart: a thread that calls a driver's `heartbeat` in time."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from ..._runtime._clock import now
from . import ToozError

logger = logging.getLogger("tenure")

RETRY_SECONDS = 1.0
"""How long a beat that failed is followed by none."""


class Beats(Protocol):
    """What a heart needs of a driver."""

    def heartbeat(self) -> float | None:
        """Beat; in how many seconds the next one is due."""


class Heart:
    """Beats for a driver in a thread of its own, from `start` to `stop`."""

    def __init__(
        self,
        driver: Beats,
        thread_cls: type[threading.Thread] = threading.Thread,
        event_cls: type[threading.Event] = threading.Event,
    ) -> None:
        self._driver = driver
        self._thread_cls = thread_cls
        self._stop = event_cls()
        self._thread: threading.Thread | None = None
        self._beats = 0

    @property
    def beats(self) -> int:
        """How many beats there were."""
        return self._beats

    def is_alive(self) -> bool:
        """Say whether it beats."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, thread_cls: type[threading.Thread] | None = None) -> None:
        """Begin to beat. Does nothing if it does already."""
        if self.is_alive():
            return
        self._stop.clear()
        self._beats = 0
        self._thread = (thread_cls or self._thread_cls)(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Have it end; `wait` waits for that."""
        self._stop.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, at most `timeout` seconds; say whether it still beats."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        return self.is_alive()

    def _run(self) -> None:
        failing = False
        while not self._stop.is_set():
            began = now()
            try:
                pause = self._driver.heartbeat() or RETRY_SECONDS
            except ToozError as error:
                if not failing and not self._stop.is_set():
                    logger.warning("tenure: a heartbeat failed, and is tried again: %s", error)
                failing, pause = True, RETRY_SECONDS
            except Exception:
                # A heart that ends in silence would be worse than one that goes on.
                logger.exception("tenure: a heartbeat failed unexpectedly, and is tried again")
                failing, pause = True, RETRY_SECONDS
            else:
                failing = False
                self._beats += 1
            self._stop.wait(max(0.0, pause - (now() - began)))
