"""Who waits for what at ZooKeeper: watches, which fire once, are set again, and wake.

A waiter for the head of a queue watches the node before its own and nothing else. Whoever
may be let in by several, and every watcher, depends on a roster's watches: one on the
names in its folder, one on the folder itself, which every amendment writes, and one on the
record of its name. They are set once for all who care, and again as soon as they have
fired; those who care are woken when they are set again, so that nothing is missed between.
What comes from the library comes on a thread of its own, and must not wait.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .._model import Interest
from .._runtime.base import Job, Runtime
from ..errors import TenureError
from ..wires._zookeeper_api import Link, Refused, Reply, Stat
from ._zookeeper_names import Paths, entries_of
from .base import Wake

logger = logging.getLogger("tenure")

_IDLE = 60.0
_PAUSE = 0.1


class _Roster:
    """The watches of one roster, and who depends on them."""

    def __init__(self, ear: Ear, link: Link, roster: str) -> None:
        self._ear = ear
        self.link = link
        self.roster = roster
        self._folder = ear.paths.of_roster(roster)
        self._record = ear.paths.of_record(roster)
        self.wakes: dict[Interest, tuple[Wake, str]] = {}
        """Of each interest: whom to wake, and the node of the claim that waits, if one does."""
        self._set: dict[str, Reply] = {}
        """The watches that are set, or on their way, and the answers to that."""
        self._public: frozenset[str] | None = None
        self._amended: tuple[int, int] | None = None

    def watch(self, loud: bool = False) -> Sequence[Reply]:
        """Set what is not set; `loud`: then wake everybody, who may have missed something."""
        for what in ("folder", "names", "record"):
            if what not in self._set:
                self._watch(what, loud)
        return list(self._set.values())

    def forget(self) -> None:
        """No watch is left: there is another connection."""
        self._set.clear()

    def _watch(self, what: str, loud: bool) -> None:
        link, known = self.link, Reply()

        def fired(gone: bool) -> None:
            # Only the watch that was set last: an older one has fired late.
            if self._set.get(what) is known:
                del self._set[what]
                if self.wakes and link.connected():
                    self._watch(what, what == "record")

        def answered(reply: Reply) -> None:
            self._heard(what, reply, loud)
            if reply.exception is not None and self._set.get(what) is known:
                del self._set[what]
            known.set()

        self._set[what] = known
        if what == "names":
            link.children(self._folder, fired).rawlink(answered)
        else:
            path = self._folder if what == "folder" else self._record
            link.exists(path, fired).rawlink(answered)

    def _heard(self, what: str, reply: Reply, loud: bool) -> None:
        """What a watch that was just set has found."""
        if reply.exception is not None:
            if type(reply.exception).__name__ != "NoNodeError":
                return  # the connection is gone, and when there is another all is set again
            names: list[str] = []
        elif what == "names":
            names = reply.value[0]
        else:
            if what == "folder":
                self._found(reply.value, loud)
            elif loud:
                self._wake_watchers()
            return
        entries = entries_of(names)
        public = frozenset(entry.node for entry in entries if entry.public)
        if loud or self._public not in (None, public):
            self._wake_watchers()
        self._public = public
        for interest, (wake, node) in list(self.wakes.items()):
            if node:
                own = next((entry for entry in entries if entry.node == node), None)
                ahead = [each for each in entries if own is not None and each < own]
                if own is None or interest.width > sum(
                    not (own.shared and each.shared) for each in ahead
                ):
                    wake()

    def _found(self, stat: Stat | None, loud: bool) -> None:
        amended = None if stat is None else (stat.born, stat.version)
        changed, self._amended = self._amended, amended
        if stat is not None and "names" not in self._set:
            self._watch("names", loud=False)
        if loud or (amended is not None and changed not in (None, amended)):
            self._wake_watchers()

    def _wake_watchers(self) -> None:
        for wake, node in list(self.wakes.values()):
            if not node:
                wake()


class _Place:
    """The watch of one waiter: on the node before its own."""

    def __init__(self, link: Link, path: str, wake: Wake) -> None:
        self.link = link
        self._path = path
        self._wake = wake
        self.gone = False

    def watch(self) -> Reply:
        """Set it, and wake if there is nothing to watch any more."""
        # Not `exists`, which would leave a watch for a node that never comes again.
        reply = self.link.get(self._path, self._fired)
        reply.rawlink(self._answered)
        return reply

    def _fired(self, gone: bool) -> None:
        if not self.gone:
            self._wake()
            if not gone and self.link.connected():
                self.watch()  # it was only written

    def _answered(self, reply: Reply) -> None:
        if reply.exception is not None and not self.gone:
            self._wake()


class Ear:
    """The watches of one driver."""

    def __init__(
        self,
        runtime: Runtime,
        paths: Paths,
        link: Callable[[], Awaitable[Link]],
        wait: Callable[..., Awaitable[Any]],
    ) -> None:
        self.paths = paths
        self._runtime = runtime
        self._link = link
        self._wait = wait
        self._rosters: dict[tuple[str, str], _Roster] = {}
        self._waiters: dict[Interest, _Place] = {}
        self._known: set[str] = set()
        self._job: Job | None = None
        self._moved = runtime.signal()
        self._closed = False
        self._lock = runtime.lock()

    async def wait_behind(self, link: Link, interest: Interest, path: str, wake: Wake) -> None:
        """Wake when the node of that path is gone, or written, or the connection is another."""
        self._follow(link)
        place = self._waiters[interest] = _Place(link, path, wake)
        try:
            await self._wait(link, place.watch())
        except Refused:
            return  # gone: it has been woken
        except BaseException:
            self.unlisten(interest)
            raise

    async def watch(self, link: Link, interest: Interest, node: str, wake: Wake) -> None:
        """Wake at a roster's changes; of a claim's `node`, when it has come far enough."""
        self._follow(link)
        key = (link.id, interest.roster)
        with self._lock:
            known = self._rosters.get(key)
            if known is None:
                known = self._rosters[key] = _Roster(self, link, interest.roster)
            known.wakes[interest] = (wake, node)
        try:
            for reply in known.watch():
                await self._wait(link, reply)
        except BaseException:
            self.unlisten(interest)
            raise
        if node:
            wake()  # it may have come far enough before its watch was there

    def unlisten(self, interest: Interest) -> None:
        """Forget an interest. The watch stays until it fires, and then wakes nobody."""
        place = self._waiters.pop(interest, None)
        if place is not None:
            place.gone = True
        with self._lock:
            for key, known in list(self._rosters.items()):
                if known.wakes.pop(interest, None) and not known.wakes:
                    del self._rosters[key]

    def _follow(self, link: Link) -> None:
        """Hear of the link's connections, which take all watches with them."""
        with self._lock:
            if link.id in self._known:
                return
            self._known.add(link.id)
        link.on_connection(lambda: self._renewed(link))

    def _renewed(self, link: Link) -> None:
        """A link has another connection, or is dead. On the library's thread."""
        with self._lock:
            mine = [known for known in self._rosters.values() if known.link is link]
        if link.over() is not None:
            self._known.discard(link.id)
            if mine and not self._closed:
                self._moved.set()
            return
        for known in mine:
            known.forget()
            known.watch(loud=True)
        for place in list(self._waiters.values()):
            if place.link is link:
                place.watch()

    # -- watchers outlive sessions -------------------------------------------

    def begin(self) -> None:
        """Have a job that moves watchers from a dead session to another."""
        with self._lock:
            if self._job is None and not self._closed:
                self._job = self._runtime.spawn(self._run, "zookeeper-watches")

    async def _run(self) -> None:
        while not self._closed:
            await self._moved.wait(self._runtime.now() + _IDLE)
            self._moved.clear()
            try:
                await self._move()
            except TenureError as error:
                logger.debug("tenure: the watches have no connection: %s", error)
                await self._runtime.sleep(self._runtime.now() + _PAUSE)
                self._moved.set()

    async def _move(self) -> None:
        with self._lock:
            dead = [(key, each) for key, each in self._rosters.items() if each.link.over()]
        if not dead or self._closed:
            return
        link = await self._link()
        self._follow(link)
        for key, known in dead:
            with self._lock:
                self._rosters.pop(key, None)
                moved = self._rosters.setdefault(
                    (link.id, known.roster), _Roster(self, link, known.roster)
                )
                for interest, (wake, node) in known.wakes.items():
                    if not node:  # a claim that waits has died with its session
                        moved.wakes[interest] = (wake, node)
            moved.forget()
            moved.watch(loud=True)
        if link.over() is not None:
            self._moved.set()  # dead before it had them, so that nobody has told

    async def close(self, patience: float) -> None:
        """Stop the job."""
        with self._lock:
            self._closed = True
            job = self._job
        self._moved.set()
        if job is not None and not await job.join(self._runtime.now() + patience):
            job.cancel()

    def abandon(self) -> None:
        """In a forked child: the job is the parent's."""
        self._closed = True
        self._job = None
