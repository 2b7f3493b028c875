"""The core under simulated schedules: none breaks a rule, and each mutant is found out.

`TENURE_SIM_SECONDS` is the time for schedules of the unbroken core, 25 by default, and
`TENURE_SIM_SEED` is their seed. A failure prints the command that repeats it.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tenure._model import Record, Roll
from tenure._recipes.group import GroupRecipe
from tenure._session import Session
from tenure.errors import OutcomeUnknown
from tenure.testing import simulator
from tenure.testing._sim_drivers import SimDocumentDriver, SimRosterDriver
from tenure.testing._sim_judge import Judge
from tenure.testing._sim_lease import SimMember
from tenure.testing._sim_mutants import FIRST
from tenure.testing._sim_net import Network, Weather
from tenure.testing._sim_runtime import boot
from tenure.testing._sim_stores import DocumentStore, RosterStore
from tenure.testing._sim_world import World
from tenure.testing.mutants import KINDS, MUTANTS, mutated

SECONDS = float(os.environ.get("TENURE_SIM_SECONDS", "25"))
SEED = int(os.environ.get("TENURE_SIM_SEED", "1"))
MUTANT_SEED = 7
MUTANT_SCHEDULES_MAX = 3000


def test_no_schedule_breaks_a_rule(capsys: pytest.CaptureFixture[str]) -> None:
    """The unbroken core keeps every rule in as many schedules as the time allows."""
    summary = simulator.run_many(SEED, 10_000_000, seconds=SECONDS)
    with capsys.disabled():
        print(f"\n{summary}")
    assert summary.granted > summary.schedules
    assert summary.lost > 0 or summary.schedules < 100


def test_a_seed_repeats_a_schedule_exactly() -> None:
    """The same seed and number give the same trace, event by event."""
    for number in range(20):
        first = simulator.run_one(SEED, number, traced=True)
        again = simulator.run_one(SEED, number, traced=True)
        assert first.world.trace, "nothing was traced"
        assert first.world.trace == again.world.trace


def test_a_seed_repeats_a_schedule_in_another_process() -> None:
    """The order of no set of texts or objects, which differs by process, has a say in a trace."""
    command = [sys.executable, "-m", "tenure.testing.simulator", "--digest"]
    # Of these, some bury several dead sessions at a time.
    command += ["--seed", "1", "--first", "8", "--schedules", "7"]
    runs = [
        subprocess.Popen(
            command, env=dict(os.environ, PYTHONHASHSEED=seed), stdout=subprocess.PIPE, text=True
        )
        for seed in ("1", "2")
    ]
    first, again = (run.communicate(timeout=60)[0].splitlines() for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert len(set(first)) == 7
    assert first == again


def test_tracing_changes_nothing() -> None:
    """A schedule goes the same way whether or not it is traced."""
    for number in range(10):
        plain = simulator.run_one(SEED, number)
        traced = simulator.run_one(SEED, number, traced=True)
        assert (plain.world.steps, plain.world.time) == (traced.world.steps, traced.world.time)


def test_another_seed_gives_another_schedule() -> None:
    """Different seeds lead to different plans."""
    assert len({str(simulator.run_one(seed, 0).plan) for seed in range(5)}) == 5


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found_out(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A core that is broken in one way breaks a rule within a bounded number of schedules."""
    with mutated(name), pytest.raises(simulator.Failure) as caught:
        simulator.run_many(
            MUTANT_SEED,
            MUTANT_SCHEDULES_MAX,
            first=FIRST.get(name, 0),
            tail=0,
            kind=KINDS.get(name),
        )
    with capsys.disabled():
        print(f"\n{name}: found out by schedule {caught.value.number + 1}", end="")


class OvertakenStore(DocumentStore):
    """A document store in which a renewal arrives just before the first burial."""

    overtaken: str | None = None

    def save(self, kind: str, name: str, document: Any, version: int) -> int | None:
        if kind == "session" and document is None and self.overtaken is None:
            self.overtaken = name
            now, latest = self.load(kind, name)
            assert super().save(kind, name, dict(now or {}), latest)
        return super().save(kind, name, document, version)


def test_a_burial_that_a_renewal_overtook_fails() -> None:
    """Burial compares versions: a session that was renewed at the last moment lives on."""
    world = World("burial")
    judge = world.judge = Judge(world, ttl=10.0)
    network = Network(world, Weather())
    store = OvertakenStore(world, network, judge)
    holder, waiter = (
        SimDocumentDriver(boot(world, name, 0.0, 1.0), network, store, 10.0)
        for name in ("holder", "waiter")
    )
    rolls = []

    async def hold() -> None:
        session = await holder.start("holder", lambda reason: None)
        await holder.claim(session, "name", "first", "", None)

    async def wait() -> None:
        await waiter.runtime.sleep(1.0)
        session = await waiter.start("waiter", lambda reason: None)
        await waiter.claim(session, "name", "second", "", None)
        for moment in (12.0, 13.0, 24.0):
            await waiter.runtime.sleep(moment)
            rolls.append(await waiter.read(session, "name", "second"))

    holder.node.start(hold(), "hold")
    waiter.node.start(wait(), "wait")
    world.run(60.0)
    assert [roll.claims[0].id for roll in rolls] == ["first", "first", "second"]
    assert store.overtaken is not None
    assert world.failure is None
    world.end()


class LateDriver(SimRosterDriver):
    """The first request to show a member is not answered, and arrives when it is told to."""

    late: Callable[[], Roll] | None = None
    meanwhile: Callable[[], Coroutine[Any, Any, None]]

    async def claim(
        self, session: str, roster: str, id: str, body: str, width: int | None, shared: bool = False
    ) -> Roll:
        if body and self.late is None:
            self.late = functools.partial(self.store.claim, session, roster, id, body, width)
            raise OutcomeUnknown("no reply in time")
        return await super().claim(session, roster, id, body, width, shared)

    async def recall(self, name: str) -> Record | None:
        meanwhile, self.meanwhile = self.meanwhile, _nothing
        await meanwhile()
        return await super().recall(name)


async def _nothing() -> None:
    pass


def test_a_late_request_of_a_member_that_was_shown_twice() -> None:
    """Who was removed while it joined is shown anew, and leaves nothing of what it was before."""
    world = World("late")
    judge = world.judge = Judge(world, ttl=10.0)
    network = Network(world, Weather())
    store = RosterStore(world, network, judge, 1.0, True)
    sessions: list[Session] = []
    for kind, name in ((LateDriver, "joiner"), (SimRosterDriver, "deleter")):
        driver = kind(boot(world, name, 0.0, 1.0), network, store, 10.0)
        sessions.append(Session(driver.node.runtime, driver, name, 10.0))
        judge.sessions[driver.node] = sessions[-1]
        driver.renewed = judge.renewing(driver.node, sessions[-1])
        driver.withdrawing = judge.withdrawing
    joiner, deleter = (GroupRecipe(each, "workers", SimMember) for each in sessions)
    late, standing = sessions[0].driver, judge.standing.setdefault("@group/workers", {})
    assert isinstance(late, LateDriver)

    async def delete() -> None:
        await deleter.create(True)
        await deleter.delete(True)
        assert not standing

    late.meanwhile = delete

    async def join() -> None:
        acquire = judge.asks(late.node, "@member/7:workers/m", "group", True, None, False)
        assert world.current is not None
        world.current.acquire = acquire
        member = await joiner.join(None, "m", True, None, None)
        world.current.acquire = None
        judge.returned(acquire, member)
        assert len(standing) == 1
        assert late.late is not None
        late.late()
        assert len(standing) == 2
        await member.release()
        judge.released(member)

    task = late.node.start(join(), "join")
    world.run(15.0)
    assert (task.done, task.error) == (True, None)
    assert world.failure is None
    assert not standing
    world.end()


def test_a_mutant_is_gone_afterwards() -> None:
    """After the block the core is whole again."""
    with mutated("granted-without-being-first"), pytest.raises(simulator.Failure):
        simulator.run_many(MUTANT_SEED, 50, tail=0)
    assert simulator.run_many(MUTANT_SEED, 50).schedules == 50


def test_a_failure_says_how_to_repeat_it() -> None:
    """The message names seed, schedule and rule, and the same command fails again."""
    with mutated("no-deadline-timer"):
        with pytest.raises(simulator.Failure) as caught:
            simulator.run_many(MUTANT_SEED, MUTANT_SCHEDULES_MAX)
        failure = caught.value
        assert f"--seed {MUTANT_SEED} --first {failure.number} --schedules 1" in str(failure)
        with pytest.raises(simulator.Failure) as again:
            simulator.run_many(MUTANT_SEED, 1, first=failure.number)
    assert again.value.rule == failure.rule


def test_the_command_line_reports(capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints a summary, or the failure, and exits with 0 or 1."""
    assert simulator.main(["--schedules", "5", "--seed", "3"]) == 0
    assert "5 schedules (seed 3, from 0 on)" in capsys.readouterr().out
    assert simulator.main(["--schedules", "99", "--mutant", "gate-not-handed-over"]) == 1
    assert "--mutant gate-not-handed-over" in capsys.readouterr().out
