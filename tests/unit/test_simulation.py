"""The core under simulated schedules: none breaks a rule, and each mutant is found out.

`TENURE_SIM_SECONDS` is the time for schedules of the unbroken core, 25 by default, and
`TENURE_SIM_SEED` is their seed. A failure prints the command that repeats it.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from tenure.testing import simulator
from tenure.testing._sim_drivers import SimDocumentDriver
from tenure.testing._sim_judge import Judge
from tenure.testing._sim_mutants import FIRST
from tenure.testing._sim_net import Network, Weather
from tenure.testing._sim_runtime import boot
from tenure.testing._sim_stores import DocumentStore
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
