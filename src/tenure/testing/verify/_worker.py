"""The process in which cases and experiments are run, one after the other, at its parent's order.

A case that hangs takes nobody along: the parent ends the whole process, with all that it has
started, and makes another.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from .._signals import heed_the_keyboard


def main() -> None:
    """Obey until the parent says that it is over, or is gone."""
    orders, data, *sources = int(sys.argv[1]), *sys.argv[2:]
    os.setsid()  # so that it can be ended together with all that it starts
    heed_the_keyboard()  # the cases interrupt what they start, as the keyboard would
    measured: Any = None
    if data:
        # Before anything of the driver is imported, whose definitions are lines of it, too.
        import coverage

        measured = coverage.Coverage(data_file=data, include=sources, config_file=False)
        measured.start()
    from ._tasks import Tasks

    connection: Connection[Any, Any] = Connection(orders)
    tasks = Tasks()
    queue: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, queue), daemon=True).start()
    while (order := queue.get()) is not None:
        verb, arguments = order
        try:
            answer = "done", getattr(tasks, verb)(*arguments)
        except BaseException as error:
            answer = "failed", f"{type(error).__name__}: {error}"
        connection.send((*answer, tasks.namespaces()))
    if measured is not None:
        measured.stop()
        measured.save()
    tasks.stop()
    connection.send(("done", None, ()))


def _listen(connection: Any, queue: SimpleQueue[Any]) -> None:
    """Take orders; if the parent has gone, nothing that was started here may stay."""
    try:
        while True:
            order = connection.recv()
            queue.put(order)
            if order is None:
                return
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
