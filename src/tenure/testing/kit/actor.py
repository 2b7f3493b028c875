"""A coordinator in another process, told what to do over a pipe.

The kit and the experiments pause, kill and interrupt it. Both halves are here: one JSON object
per line each way, answered in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import inspect
import json
import logging
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import tenure
import tenure.aio
from tenure._runtime.thread import drive

ANSWER_SECONDS_MAX = 60.0
CHILD_SECONDS_MAX = 90
"""How long a child that was forked for an experiment lives if nobody ends it."""


class Actor:
    """The kit's handle on the other process.

    preload: modules that it imports first, for the URL's scheme to be known.
    prefix: a command that runs another one, and is put before it: to enter a namespace.
    patience: for so many seconds it tries to connect to a server that does not answer.
    """

    def __init__(
        self,
        flavour: str,
        url: str,
        options: dict[str, Any],
        preload: Sequence[str] = (),
        prefix: Sequence[str] = (),
        patience: float = 0.0,
    ) -> None:
        self.owner = ""
        """The owner of its coordinator, once it is ready."""
        self._process = subprocess.Popen(
            # As a file, which spares it the import of all cases: half of its start.
            [*prefix, sys.executable, "-P", __file__, flavour, *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # an answer that was read ahead would not be seen to be there
        )
        self.send(url=url, options=options, patience=patience)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, **order: Any) -> None:
        """Give an order without waiting for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    def answer(self, seconds: float = ANSWER_SECONDS_MAX) -> dict[str, Any]:
        """The answer to the oldest order that was not answered yet."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise AssertionError(f"process {self.pid} gave no answer in {seconds:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"process {self.pid} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def has_answered(self) -> bool:
        """Say whether an answer can be read, or the process has ended."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def ready(self) -> Actor:
        """Wait until it is connected."""
        answer = self.answer()
        assert "error" not in answer, answer
        self.owner = answer["owner"]
        return self

    def do(self, order: str, **more: Any) -> dict[str, Any]:
        """Give an order and wait for its answer."""
        self.send(do=order, **more)
        return self.answer()

    def stop(self) -> None:
        """SIGSTOP; returns when the process has really stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        give_up = time.monotonic() + 10
        while self._state() != "T":
            assert time.monotonic() < give_up, "the process did not stop"
            time.sleep(0.001)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def interrupt(self) -> None:
        """SIGINT."""
        os.kill(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL, and wait for the end. Harmless the second time."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # an order that nobody reads
                    pipe.close()

    def _state(self) -> str:
        with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0]


class _Stage:
    """The actor's own side: carries out orders with the API of its flavour."""

    def __init__(self, flavour: str) -> None:
        self._flavour = flavour
        self._leases: dict[str, Any] = {}
        self._versions: list[Any] = []
        self._coordinator: Any = None
        # Not read ahead: `do_vigil` asks whether there is more.
        self._orders = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - till the end

    async def play(self) -> None:
        first = json.loads(await self._line())
        try:
            self._coordinator = await self._connected(**first)
            self._say({"owner": self._coordinator.owner})
        except tenure.TenureError as error:
            self._say({"error": type(error).__name__, "text": str(error)})
            return
        while line := await self._line():
            order = json.loads(line)
            try:
                self._say(await getattr(self, "do_" + order.pop("do"))(**order))
            except (tenure.TenureError, KeyboardInterrupt) as error:
                self._say({"error": type(error).__name__, "text": str(error)})
        await self._done(self._coordinator.close())

    async def _connected(self, url: str, options: dict[str, Any], patience: float) -> Any:
        module = tenure.aio if self._flavour == "asyncio" else tenure
        give_up = tenure.now() + patience
        while True:
            try:
                return await self._done(module.connect(url, **options))
            except tenure.Unavailable:
                if tenure.now() >= give_up:
                    raise
                time.sleep(0.1)

    async def _done(self, value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value

    async def _line(self) -> bytes:
        if self._flavour == "asyncio":
            return await asyncio.to_thread(self._orders.readline)
        return self._orders.readline()

    def _say(self, answer: dict[str, Any]) -> None:
        print(json.dumps(answer | {"at": tenure.now()}), flush=True)

    async def do_acquire(
        self, name: str, timeout: float | None = None, shared: bool = False
    ) -> dict[str, Any]:
        lock = self._coordinator.lock(name, shared=shared)
        lease = self._leases[name] = await self._done(lock.acquire(timeout))
        return {"token": lease.token, "owner": lease.owner, "session": lease._life.id}

    async def do_try(self, name: str) -> dict[str, Any]:
        lease = await self._done(self._coordinator.lock(name).try_acquire())
        if lease is not None:
            self._leases[name] = lease
        return {"token": lease.token if lease is not None else None}

    async def do_state(self, name: str) -> dict[str, Any]:
        lease = self._leases[name]
        held, at = lease.held(), tenure.now()
        return {"held": held, "asked": at, "state": str(lease.state), "reason": lease.reason}

    async def do_release(self, name: str) -> dict[str, Any]:
        await self._done(self._leases.pop(name).release())
        return {}

    async def do_enter(self, roster: str, body: str = "", shared: bool = False) -> dict[str, Any]:
        """Enter a claim into a roster, by the driver's own verb."""
        session = self._coordinator._session
        life = await session.life()
        id = life.next_id()
        roll = await session.driver.claim(life.id, roster, id, body, None, shared)
        return {"id": id, "token": roll.mine.token}

    async def do_recall(self, name: str) -> dict[str, Any]:
        """Read a record with the driver's own verb; its version is known by a number here."""
        record = await self._coordinator._session.driver.recall(name)
        if record is None:
            return {"text": None, "version": None}
        return {"text": record.text, "version": self._numbered(record.version)}

    async def do_record(self, name: str, text: str, version: int | None) -> dict[str, Any]:
        """Write one, if its version is still that; the number of the new one, or None."""
        before = None if version is None else self._versions[version]
        written = await self._coordinator._session.driver.record(name, text, before)
        return {"version": None if written is None else self._numbered(written)}

    def _numbered(self, version: Any) -> int:
        self._versions.append(version)
        return len(self._versions) - 1

    async def do_permit(self, name: str, limit: int | None = None) -> dict[str, Any]:
        semaphore = self._coordinator.semaphore(name, limit)
        permit = self._leases[name] = await self._done(semaphore.acquire(30))
        return {"token": permit.token}

    async def do_crowd(self, name: str, limit: int, folder: str, times: int) -> dict[str, Any]:
        """Hold a permit and a file, so many times, and say how many files there were at most."""
        semaphore, most = self._coordinator.semaphore(name, limit), 0
        for _ in range(times):
            permit = await self._done(semaphore.acquire(60))
            path = os.path.join(folder, str(permit.token))
            with open(path, "x", encoding="ascii"):
                most = max(most, len(os.listdir(folder)))
            os.unlink(path)
            await self._done(permit.release())
        return {"most": most}

    async def do_meet(self, name: str, parties: int, timeout: float = 30) -> dict[str, Any]:
        barrier = self._coordinator.barrier(name, parties)
        return {"place": await self._done(barrier.wait(timeout))}

    async def do_hold_all(self, names: list[str], timeout: float = 30) -> dict[str, Any]:
        lease = await self._done(self._coordinator.multi_lock(names).acquire(timeout))
        self._leases[" ".join(names)] = lease
        return {"tokens": lease.tokens}

    async def do_join(
        self, group: str, member: str, capabilities: Any = None, estate: Any = None
    ) -> dict[str, Any]:
        """Join a group; `state` and `release` know the member by the group's name."""
        joined = self._coordinator.group(group).join(capabilities, member=member, estate=estate)
        lease = self._leases[group] = await self._done(joined)
        return {"token": lease.token, "owner": lease.owner}

    async def do_campaign(
        self, name: str, timeout: float | None = None, value: Any = None
    ) -> dict[str, Any]:
        """Lead; `state` and `release` know the term by the election's name."""
        campaign = self._coordinator.election(name).campaign(timeout, value=value)
        term = self._leases[name] = await self._done(campaign)
        return {"token": term.token, "owner": term.owner}

    async def do_publish(self, name: str, value: Any) -> dict[str, Any]:
        await self._done(self._leases[name].publish(value))
        return {}

    async def do_count(self, name: str, path: str, times: int) -> dict[str, Any]:
        """Add one to the number in a file, so many times, unguarded but for the lock."""
        tokens = []
        for _ in range(times):
            lease = await self._done(self._coordinator.lock(name).acquire(60))
            with open(path, encoding="ascii") as file:
                number = int(file.read())
            with open(path, "w", encoding="ascii") as file:
                file.write(str(number + 1))
            tokens.append(lease.token)
            await self._done(lease.release())
        return {"tokens": tokens}

    async def do_spells(self, name: str, times: int, seconds: float, seed: int) -> dict[str, Any]:
        """Hold a lock so many times, and say from when to when, with which token.

        What it knew to be lost by then is left out, and counted as `lost`. What it learns only
        from the release counts: until then it believed that it held the lock.
        """
        chance, spells, lost = random.Random(seed), [], 0
        lock = self._coordinator.lock(name)
        for _ in range(times):
            lease = await self._done(lock.acquire(60))
            began = tenure.now()
            time.sleep(chance.random() * seconds)
            if lease.held():
                spells.append([began, tenure.now(), lease.token])
            else:
                lost += 1
            with contextlib.suppress(tenure.LeaseLost):
                await self._done(lease.release())
        return {"spells": spells, "lost": lost}

    async def do_vigil(self, name: str, seconds: float, busy: bool = False) -> dict[str, Any]:
        """Ask whether a lease is held until it is not, or the next order has come.

        `last` is when the last question was asked that was answered with yes. If it is `busy`, it
        lets no other thread in but after many questions: a process that is stopped meanwhile
        goes on with a question, and not with a renewal.
        """
        lease, last = self._leases[name], None
        told: list[float] = []
        lease.on_lost(lambda lost: told.append(tenure.now()))
        give_up = tenure.now() + seconds
        questions, pause = (200, 0.0) if busy else (1, 0.0005)
        if busy:
            sys.setswitchinterval(1.0)
        while tenure.now() < give_up:
            for _ in range(questions):
                asked = tenure.now()
                if not lease.held():
                    return {"held": False, "last": last, "knew": asked, "told": told[:1]}
                last = asked
            if select.select([self._orders], [], [], pause)[0]:
                break
        return {"held": True, "last": last, "knew": None, "told": told[:1]}

    async def do_fork(self, name: str) -> dict[str, Any]:
        """Fork a child that tries what it has inherited, and then lives on until it is killed."""
        lease, lock = self._leases[name], self._coordinator.lock(name)
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(0)
                os.close(1)
                signal.alarm(CHILD_SECONDS_MAX)
                os.write(writable, json.dumps(_inherited(lease, lock)).encode())
                os.close(writable)
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        os.close(writable)
        with open(readable, encoding="ascii") as pipe:
            return {"child": child, **json.loads(pipe.read() or "{}")}

    async def do_write(self, name: str, path: str) -> dict[str, Any]:
        """Write to a guarded resource with a lease's token, without asking the lease first."""
        return {"accepted": guarded_write(path, self._leases[name].token)}


def guarded_write(path: str, token: int) -> bool:
    """A resource that refuses a token which is less than one that it has seen."""
    with open(path, "a+", encoding="ascii") as resource:
        fcntl.flock(resource, fcntl.LOCK_EX)
        resource.seek(0)
        seen = [int(line) for line in resource]
        if seen and token < max(seen):
            return False
        resource.write(f"{token}\n")
        return True


def _inherited(lease: Any, lock: Any) -> dict[str, Any]:
    """What a forked child can do with its parent's lease and coordinator."""
    found: dict[str, Any] = {"held": bool(lease.held()), "acquired": False}
    with contextlib.suppress(tenure.TenureError):
        lease.release()
    with contextlib.suppress(tenure.TenureError):
        found["acquired"] = lock.try_acquire() is not None
    return found


def main() -> None:
    """The other process."""
    logging.getLogger("tenure").setLevel(logging.ERROR)  # the losses are provoked
    for module in sys.argv[2:]:
        importlib.import_module(module)
    flavour = sys.argv[1]
    if flavour == "asyncio":
        asyncio.run(_Stage(flavour).play())
    else:
        drive(_Stage(flavour).play())


if __name__ == "__main__":
    main()
