"""Elections."""

from __future__ import annotations

from typing import Any

import pytest

from tenure.compat.tooz.coordination import WatchCallbackNotFound

from .suite import Env, case, lose, until


@case(
    *("watch_elected_as_leader", "unwatch_elected_as_leader", "run_elect_coordinator"),
    needs="rosters",
)
def one_leads(env: Env) -> None:
    """Of both kinds of candidates one leads, and it alone is told."""
    name = env.name()
    told: list[Any] = []

    def elected(event: Any) -> None:
        told.append((event.group_id, event.member_id))

    env.a.watch_elected_as_leader(name.encode(), elected)
    env.b.watch_elected_as_leader(name, elected)
    env.a.run_elect_coordinator()
    env.b.run_watchers()  # which elects, too
    env.a.run_elect_coordinator()
    assert told == [(name.encode(), b"a")]
    assert env.tenure.election(name).try_campaign() is None
    env.b.unwatch_elected_as_leader(name, elected)
    with pytest.raises(WatchCallbackNotFound):
        env.b.unwatch_elected_as_leader(name, elected)
    assert env.a.stand_down_group_leader(name.encode())
    env.b.run_elect_coordinator()  # no candidate any more
    with env.tenure.election(name).campaign(timeout=10):
        env.a.run_elect_coordinator()
    assert len(told) == 1
    env.a.run_watchers()
    assert len(told) == 2
    env.a.unwatch_elected_as_leader(name.encode(), elected)
    assert env.a.stand_down_group_leader(name)


@case("get_leader", needs="rosters")
def the_leader_is_named(env: Env) -> None:
    """Everybody names the same leader, whichever client it is."""
    name = env.name()
    election = env.tenure.election(name)
    assert env.a.get_leader(name.encode()).get() is None
    with election.campaign(timeout=10):
        assert env.a.get_leader(name.encode()).get() == b"t"
    env.b.watch_elected_as_leader(name, print)
    env.b.run_elect_coordinator()
    leader = election.leader()
    assert leader is not None
    assert leader.owner == "b"
    assert env.a.get_leader(name).get() == b"b"
    env.b.unwatch_elected_as_leader(name, print)
    assert env.b.stand_down_group_leader(name)


@case("stand_down_group_leader", needs="rosters")
def a_leader_stands_down(env: Env) -> None:
    """Who stands down leads no more, and who lost its session leads again when it is elected."""
    name = env.name()
    told: list[Any] = []
    client = env.tooz(b"leader")
    assert not client.stand_down_group_leader(name)
    client.watch_elected_as_leader(name, told.append)
    client.run_elect_coordinator()
    assert client.stand_down_group_leader(name)
    assert not client.stand_down_group_leader(name)
    assert env.a.get_leader(name).get() is None
    client.run_elect_coordinator()
    assert len(told) == 2
    lose(client)

    def elected_again() -> bool:
        client.run_elect_coordinator()
        return len(told) == 3

    until(elected_again)
    lose(client)
    assert not client.stand_down_group_leader(name)

    def and_again() -> bool:
        client.run_watchers()
        return len(told) == 4

    until(and_again)
    assert env.a.get_leader(name).get() == b"leader"
    client.stop()
    assert env.a.get_leader(name).get() is None
