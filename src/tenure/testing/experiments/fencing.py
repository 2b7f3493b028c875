"""FENCED: do tokens rise whatever dies, and is a late write refused by its token?"""

from __future__ import annotations

import os
import tempfile
import time

import tenure

from ...policy.characteristics import Characteristic
from ...policy.evidence import Fault
from ..kit.actor import Actor, guarded_write
from ._base import Found, Target, experiment
from ._party_cast import CONNECT_SECONDS_MAX, SLACK_SECONDS, Bid, Cast, answered, paused
from ._party_restart import restart, restartable
from ._party_spells import fallen, race

RACERS = 3
TIMES = 8


@experiment(Characteristic.FENCED)
def tokens_over_crashes_and_restarts(target: Target, found: Found) -> None:
    """The tokens of one name are noted through a race of processes, the SIGKILL of a holder,
    the SIGSTOP of another that is replaced and then writes late, kill -9 and a shutdown of the
    server, and the end of every client. Refuted by a token that does not rise, and by a late
    write that a resource accepts which checks tokens."""
    with Cast(target, found, "fencing") as cast, tempfile.TemporaryDirectory() as folder:
        course = _Course(cast, found, os.path.join(folder, "resource"))
        for step in (
            course.race,
            course.crash,
            course.late_write,
            course.restarts,
            course.everybody_goes,
        ):
            step()
            found.counterexample = found.counterexample or fallen(course.tokens)
            if found.counterexample:
                return


class _Course:
    """What happens to one name, and the tokens that it gave out meanwhile."""

    def __init__(self, cast: Cast, found: Found, resource: str) -> None:
        self.tokens: list[tuple[str, int]] = []
        self._cast = cast
        self._found = found
        self._resource = resource
        self._name = cast.name()
        self._here = cast.connect()

    def race(self) -> None:
        """Processes race for the lock."""
        for turn in range(2):
            self._take(f"acquire {turn + 1}")
        actors = self._cast.actors(RACERS)
        crowd = [(f"process {actor.pid}", actor) for actor in actors]
        spells = race(self._cast, self._found, crowd, self._name, TIMES)
        self.tokens += [(f"{spell.who} in the race", spell.token) for spell in spells]
        for actor in actors:
            actor.kill()

    def crash(self) -> None:
        """A holder is killed."""
        actor = self._holder("a process before its SIGKILL")
        actor.kill()
        killed = tenure.now()
        safe = self._take("the next after the SIGKILL")
        proof = f"process {actor.pid} was reaped"
        took = round(tenure.now() - killed, 2)
        self._found.faults.append(Fault("SIGKILL of a holder", True, proof, safe, took))

    def late_write(self) -> None:
        """A holder is stopped and replaced, and writes when it goes on."""
        cast, found = self._cast, self._found
        actor = self._holder("a process before its SIGSTOP")
        if not actor.do("write", name=self._name, path=self._resource)["accepted"]:
            found.counterexample = "the first write of a holder was refused"
            return
        actor.stop()
        stopped = tenure.now()
        proof = paused(actor)
        bid = cast.bid(self._here, self._name, cast.death + CONNECT_SECONDS_MAX + 10)
        granted = bid.wait(cast.lapse)
        if not granted and restartable(cast):
            # It keeps the lock as long as it is only stopped; the server's end takes it away.
            found.faults.append(restart(cast, graceful=False))
            granted = bid.wait(CONNECT_SECONDS_MAX)
        safe = not granted or self._refused(actor, bid)
        found.trials += 1
        found.parameters["late_write"] = (
            "tried" if granted else "not possible: nothing took the lock from the stopped holder"
        )
        took = round(tenure.now() - stopped, 2) if granted else None
        found.faults.append(
            Fault("SIGSTOP of a holder", bool(proof), proof or "it ran again", safe, took)
        )
        actor.kill()
        bid.give_up()

    def _refused(self, actor: Actor, bid: Bid) -> bool:
        """Whether the late write of the stopped holder is refused, after its successor's."""
        assert bid.lease is not None
        self.tokens.append(("its successor", bid.lease.token))
        if not guarded_write(self._resource, bid.lease.token):
            self._found.counterexample = (
                f"the successor's write with token {bid.lease.token} was refused: {self.tokens[-2]}"
            )
            return False
        actor.send(do="write", name=self._name, path=self._resource)
        actor.resume()
        late = answered(actor.answer(), "the late write")
        if late["accepted"]:
            self._found.counterexample = (
                f"a holder that was stopped, and replaced by token {bid.lease.token}, wrote late: "
                f"its token {self.tokens[-2][1]} was accepted"
            )
        return not late["accepted"]

    def restarts(self) -> None:
        """The server is killed and started again, then shut down and started again."""
        if not restartable(self._cast):
            self._found.parameters["restart"] = "not tried: there is no server to restart"
            return
        for graceful in (False, True):
            fault = restart(self._cast, graceful=graceful)
            up = tenure.now()
            safe = self._take(f"the first after the server's {fault.name}")
            self._found.faults.append(
                Fault(fault.name, fault.confirmed, fault.proof, safe, round(tenure.now() - up, 2))
            )
            if not safe:
                return

    def everybody_goes(self) -> None:
        """No client is left for as long as a session lasts, and nobody but the backend knows
        the last token."""
        self._here.close()
        time.sleep(self._cast.lapse)
        self._here = self._cast.connect(patience=CONNECT_SECONDS_MAX)
        self._take("the first after every client had gone")

    def _holder(self, what: str) -> Actor:
        actor = self._cast.actor().ready()
        give_up = tenure.now() + self._cast.death + CONNECT_SECONDS_MAX
        while "error" in (got := actor.do("acquire", name=self._name, timeout=5)):
            if tenure.now() > give_up:
                answered(got, what)
            time.sleep(0.1)
        self.tokens.append((what, got["token"]))
        return actor

    def _take(self, what: str) -> bool:
        """Acquire and release here; say whether the tokens have risen so far."""
        bid = self._cast.bid(
            self._here, self._name, self._cast.death + CONNECT_SECONDS_MAX + SLACK_SECONDS
        )
        if not bid.wait(self._cast.death + CONNECT_SECONDS_MAX + SLACK_SECONDS):
            raise TimeoutError(f"{what}: the lock could not be had")
        assert bid.lease is not None
        self.tokens.append((what, bid.lease.token))
        self._found.trials += 1
        bid.give_up()
        return not fallen(self.tokens)
