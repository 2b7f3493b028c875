"""Twelve queues among three workers of a group: one is killed, and another takes its place."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from ..servers import _proc
from ..servers._run import current_run
from ._cast import Cast, Failed, Part, connect, run, say

WORKERS = 3
QUEUES = [f"queue-{number:02}" for number in range(1, 13)]


def play(cast: Cast) -> str:
    """See each queue read by one worker, and all of them read, also after a death."""
    folder = current_run().new_folder("shared-work")
    os.environ["TENURE_PROGRAM_FOLDER"] = str(folder)
    workers = [cast.start(f"worker-{number}") for number in range(1, WORKERS + 1)]
    cast.until(lambda: _shared(workers), "each worker to have its share")
    dead = workers.pop(0)
    cast.kill(dead)
    cast.until(lambda: _shared(workers), "the dead worker's queues to be read by the others")
    workers.append(cast.start(f"worker-{WORKERS + 1}"))
    cast.until(lambda: _shared(workers), "the new worker to have its share")
    return f"{len(QUEUES)} queues: all were read before and after a death, none by two at a time"


def _shared(workers: list[Part]) -> bool:
    """Whether all queues are read, and each worker reads as many as the others."""
    read: list[str] = []
    for worker in workers:
        for line in worker.said:
            if line.startswith("two read"):
                raise Failed(f"{worker.name}: {line}")
        own = worker.said[-1].split() if worker.said else []
        if len(own) != len(QUEUES) // len(workers):
            return False
        read += own
    return sorted(read) == QUEUES


def worker(name: str, namespace: str) -> None:
    """Read the queues that are due to this worker; a file for each shows that nobody else does."""
    folder = Path(os.environ["TENURE_PROGRAM_FOLDER"])
    reading: set[str] = set()

    def begin(queue: str, lease: object) -> None:
        path = folder / queue
        try:
            other = int(path.read_text())
        except FileNotFoundError:
            other = 0
        if other and not _proc.gone(other):  # one that was killed has left its file
            say(f"two read {queue}: this one and process {other}")
        mine = folder / f"{queue}.{os.getpid()}"
        mine.write_text(str(os.getpid()))
        mine.replace(path)
        reading.add(queue)
        say(" ".join(sorted(reading)))

    def end(queue: str, lease: object) -> None:
        (folder / queue).unlink()
        reading.remove(queue)
        say(" ".join(sorted(reading)))

    with connect(namespace) as coordinator:
        member = coordinator.group("readers").join(member=name, timeout=30)
        with member, member.claims(QUEUES, on_gain=begin, on_release=end, on_lost=end):
            threading.Event().wait()  # it is killed, now or with the program


if __name__ == "__main__":
    run("tenure.testing.programs.shared_work", __doc__, play, worker)
