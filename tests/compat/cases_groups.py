"""Groups, their members, and watching them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

import tenure
from tenure.compat.tooz import coordination
from tenure.compat.tooz.coordination import (
    GroupAlreadyExist,
    GroupNotCreated,
    GroupNotEmpty,
    MemberAlreadyExist,
    MemberNotJoined,
    OperationTimedOut,
    WatchCallbackNotFound,
)

from .suite import Env, case, lose, until

NO_GROUP = b"no such group"


@case("create_group", needs="rosters")
def a_group_is_created_once(env: Env) -> None:
    """Whoever creates a group, the next one is told that it exists."""
    name = env.name()
    assert env.a.create_group(name.encode()).get() is None
    assert env.tenure.group(name).exists()
    with pytest.raises(GroupAlreadyExist):
        env.b.create_group(name).get()
    with pytest.raises(tenure.GroupExists):
        env.tenure.group(name).create()
    other = env.name()
    env.tenure.group(other).create()
    result = env.a.create_group(other.encode())  # it raises only when it is asked for
    assert result.done()
    with pytest.raises(GroupAlreadyExist, match=other):
        result.get(timeout=1)


@case("delete_group", needs="rosters")
def a_group_is_deleted_when_it_is_empty(env: Env) -> None:
    """A group with a member stays, and one without is gone for everybody."""
    id, group = env.group()
    with group.join(member="w"), pytest.raises(GroupNotEmpty):
        env.a.delete_group(id).get()
    env.a.join_group(id).get()
    with pytest.raises(tenure.GroupNotEmpty):
        group.delete()
    env.a.leave_group(id).get()
    env.b.delete_group(id).get()
    assert not group.exists()
    with pytest.raises(GroupNotCreated):
        env.a.delete_group(id).get()


@case("get_groups", needs="rosters")
def all_groups_are_named(env: Env) -> None:
    """The groups of both kinds of clients are listed, and nothing but groups."""
    mine, odd = env.name().encode(), env.name().encode() + b"\xff/\x00"
    theirs = env.name()
    env.a.create_group(mine).get()
    env.a.create_group(odd).get()
    env.tenure.group(theirs).create()
    env.a.join_group(mine).get()
    found = env.b.get_groups().get()
    assert {mine, odd, theirs.encode()} <= set(found)
    assert len(found) == len(set(found)) == len(env.tenure.groups())
    env.a.leave_group(mine).get()


@case("join_group", needs="rosters")
def a_member_joins_once(env: Env) -> None:
    """One of an id is let in, into a group that exists, and everybody sees it."""
    id, group = env.group()
    with pytest.raises(GroupNotCreated):
        env.a.join_group(NO_GROUP).get()
    assert NO_GROUP.decode() not in env.tenure.groups()
    env.a.join_group(id, {"zone": "x"}).get()
    assert group.member("a").capabilities == {"zone": "x"}
    with pytest.raises(MemberAlreadyExist):
        env.a.join_group(id).get()
    with pytest.raises(MemberAlreadyExist):
        env.tooz(b"a").join_group(id).get()
    with pytest.raises(tenure.MemberExists):
        group.join(member="a")
    assert group.member("a").capabilities == {"zone": "x"}
    env.a.leave_group(id).get()
    with group.join(member="b"), pytest.raises(MemberAlreadyExist):
        env.b.join_group(id.decode()).get()


@case("join_group_create", needs="rosters")
def joining_can_create_the_group(env: Env) -> None:
    """The group is there afterwards, whether or not it was before."""
    name = env.name()
    env.a.join_group_create(name.encode(), {"n": 1})
    env.b.join_group_create(name)
    assert set(env.tenure.group(name).members().ids) == {"a", "b"}
    with pytest.raises(MemberAlreadyExist):
        env.a.join_group_create(name.encode())
    for each in (env.a, env.b):
        each.leave_group(name).get()


@case("leave_group", needs="rosters")
def a_member_leaves(env: Env) -> None:
    """Who has left is seen by nobody, and cannot leave again."""
    id, group = env.group()
    with pytest.raises(GroupNotCreated):
        env.a.leave_group(NO_GROUP).get()
    with pytest.raises(MemberNotJoined):
        env.a.leave_group(id).get()
    env.a.join_group(id).get()
    env.a.leave_group(id).get()
    assert not group.members()
    with pytest.raises(MemberNotJoined):
        env.a.leave_group(id).get()
    env.a.join_group(id).get()  # and can come back
    env.a.leave_group(id).get()


@case("get_members", needs="rosters")
def all_members_are_seen(env: Env) -> None:
    """Both kinds of members are in the same set, under their ids as bytes."""
    id, group = env.group()
    assert env.a.get_members(id).get() == set()
    env.a.join_group(id).get()
    env.b.join_group(id).get()
    odd = env.tooz(b"\xfe\xff")
    odd.join_group(id).get()
    with group.join(member="wörker"):
        expected = {b"a", b"b", b"\xfe\xff", "wörker".encode()}
        assert env.b.get_members(id.decode()).get() == expected
    odd.stop()
    assert env.a.get_members(id).get() == {b"a", b"b"}
    with pytest.raises(GroupNotCreated):
        env.a.get_members(NO_GROUP).get()
    env.a.leave_group(id).get()
    env.b.leave_group(id).get()


@case(*("get_member_capabilities", "get_members_with_capabilities"), needs="rosters")
def capabilities_are_read(env: Env) -> None:
    """What a member has published comes back, also bytes, sets and times."""
    id, group = env.group()
    rich = {
        "raw": b"\xff",
        "set": {1, 2},
        "at": dt.datetime(2020, 1, 2, tzinfo=dt.UTC),
        "list": [1, None],
    }
    env.a.join_group(id, rich).get()
    env.b.join_group(id).get()
    assert env.b.get_member_capabilities(id, b"a").get() == rich
    assert env.a.get_member_capabilities(id, "b").get() is None
    with group.join({"plain": [1.5, "text", True]}, member="w"):
        found = env.a.get_members_with_capabilities(id).get()
        assert found == {b"a": rich, b"b": None, b"w": {"plain": [1.5, "text", True]}}
    with pytest.raises(MemberNotJoined):
        env.a.get_member_capabilities(id, b"w").get()
    with pytest.raises(GroupNotCreated):
        env.a.get_member_capabilities(NO_GROUP, b"w").get()
    with pytest.raises(GroupNotCreated):
        env.a.get_members_with_capabilities(NO_GROUP).get()
    env.a.leave_group(id).get()
    env.b.leave_group(id).get()


@case("get_member_info", needs="rosters")
def a_member_is_described(env: Env) -> None:
    """It is told what a member has published, and since when it is there."""
    id, _ = env.group()
    began = dt.datetime.now(dt.UTC).astimezone().replace(tzinfo=None)
    env.a.join_group(id, b"raw").get()
    info = env.b.get_member_info(id, b"a").get()
    assert info["capabilities"] == b"raw"
    assert dt.timedelta(0) <= info["created_at"] - began + dt.timedelta(seconds=1)
    assert info["created_at"] <= info["updated_at"]
    with pytest.raises(MemberNotJoined):
        env.b.get_member_info(id, b"b").get()
    env.a.leave_group(id).get()


@case("update_capabilities", needs="rosters")
def capabilities_are_replaced(env: Env) -> None:
    """The members' new capabilities are seen by everybody; who is no member has none."""
    id, group = env.group()
    env.a.join_group(id, {"load": 1}).get()
    env.a.update_capabilities(id, {"load": 2}).get()
    assert group.member("a").capabilities == {"load": 2}
    assert env.b.get_member_capabilities(id, b"a").get() == {"load": 2}
    with pytest.raises(MemberNotJoined):
        env.b.update_capabilities(id, 1).get()
    with pytest.raises(GroupNotCreated):
        env.b.update_capabilities(NO_GROUP, 1).get()
    with pytest.raises(coordination.SerializationError):
        env.a.update_capabilities(id, object()).get()
    env.a.leave_group(id).get()


def told_of(events: list[Any]) -> list[tuple[str, bytes, bytes]]:
    return [(type(event).__name__, event.group_id, event.member_id) for event in events]


@case(
    *("watch_join_group", "unwatch_join_group", "watch_leave_group", "unwatch_leave_group"),
    needs="rosters",
)
def comings_and_goings_are_told(env: Env) -> None:
    """Each is told once, of both kinds of members, until the callback is taken away."""
    id, group = env.group()
    events: list[Any] = []
    env.b.join_group(id).get()  # before anybody watches
    with pytest.raises(GroupNotCreated):
        env.a.watch_join_group(NO_GROUP, events.append)
    with pytest.raises(GroupNotCreated):
        env.a.watch_leave_group(NO_GROUP, events.append)
    env.a.watch_join_group(id, events.append)
    env.a.watch_leave_group(id, events.append)
    assert env.a.run_watchers() == []
    member = group.join(member="w")
    assert env.a.run_watchers() == [None]
    member.leave()
    env.b.leave_group(id).get()
    env.a.run_watchers()
    env.a.run_watchers()
    joined, *left = told_of(events)
    assert joined == ("MemberJoinedGroup", id, b"w")
    assert sorted(left) == [("MemberLeftGroup", id, b"b"), ("MemberLeftGroup", id, b"w")]
    env.a.unwatch_join_group(id, events.append)
    env.a.unwatch_leave_group(id, events.append)
    for unwatch in (env.a.unwatch_join_group, env.a.unwatch_leave_group):
        with pytest.raises(WatchCallbackNotFound):
            unwatch(id, events.append)
    with group.join(member="w"):
        assert env.a.run_watchers() == []
    assert len(events) == 3


@case("run_watchers", needs="rosters")
def what_came_and_went_between_two_looks_is_told(env: Env) -> None:
    """A member that joins and leaves between two calls is not missed, nor is one that came back."""
    id, group = env.group()
    events: list[Any] = []
    env.a.watch_join_group(id, events.append)
    env.a.watch_leave_group(id, events.append)
    news = env.a._watchers[id.decode()]._news
    first = group.join(member="w")
    until(lambda: news)
    first.leave()
    with group.join(member="w"):
        env.a.run_watchers()
    kinds = [kind for kind, *_ in told_of(events)]
    assert kinds == ["MemberJoinedGroup", "MemberLeftGroup", "MemberJoinedGroup"]
    with pytest.raises(OperationTimedOut):
        env.a.run_watchers(timeout=0)
    group.delete()
    env.a.run_watchers()
    assert [kind for kind, *_ in told_of(events)][3:] == ["MemberLeftGroup"]
    env.a.unwatch_join_group(id, events.append)
    env.a.unwatch_leave_group(id, events.append)


@case("join_group again after a loss", needs="rosters")
def who_was_lost_joins_again(env: Env) -> None:
    """After the loss of its session, a member is one again at a heartbeat, as it was before."""
    id, group = env.group()
    client = env.tooz(b"lost")
    assert 0 < client.heartbeat() <= 5
    client.join_group(id, {"n": 1}).get()
    client.update_capabilities(id, {"n": 2}).get()
    token = group.member("lost").token
    lose(client)

    def granted(call: Callable[[], object]) -> bool:
        try:
            call()
        except MemberAlreadyExist:  # what the old one had is freed in the background
            return False
        return True

    until(lambda: granted(client.heartbeat))
    found = group.member("lost")
    assert found.capabilities == {"n": 2}
    assert found.token > token
    group.delete(force=True)  # that is on purpose: then it does not come back
    with pytest.raises(MemberNotJoined):
        client.update_capabilities(id, {"n": 3}).get()
    client.heartbeat()
    with pytest.raises(GroupNotCreated):
        client.leave_group(id).get()
    assert not group.exists()
    until(lambda: granted(lambda: client.join_group_create(id)))
    lose(client)
    client.stop()
    until(lambda: "lost" not in group.members())
    client.start()  # who has stopped has left
    client.heartbeat()
    assert "lost" not in group.members()


@case(*("join_partitioned_group", "leave_partitioned_group"), needs="rosters")
def objects_are_shared_out(env: Env) -> None:
    """The members agree on who has which object, and a new one gets its share."""
    name = env.name()
    of_a = env.a.join_partitioned_group(name.encode(), partitions=8)
    assert all(map(of_a.belongs_to_self, range(20)))
    of_b = env.b.join_partitioned_group(name, weight=3, partitions=8)
    env.a.run_watchers()
    owners = [of_a.members_for_object(number) for number in range(200)]
    assert owners == [of_b.members_for_object(number) for number in range(200)]
    assert 100 < owners.count({b"b"}) < 200
    assert of_b.belongs_to_member(0, env.b._member_id) == (owners[0] == {b"b"})
    assert of_a.members_for_object(0, replicas=2) == {b"a", b"b"}
    mine = owners.index({b"a"})
    assert of_a.members_for_object(mine, ignore_members=["a"]) == {b"b"}
    env.a.leave_partitioned_group(of_a)
    env.b.run_watchers()
    assert all(map(of_b.belongs_to_self, range(20)))
    env.b.leave_partitioned_group(of_b)
    assert not env.tenure.group(name).members()


@case("run_watchers after a restart", needs="rosters")
def watches_go_on_after_a_restart(env: Env) -> None:
    """A client that stops and starts is told what has changed meanwhile, and can unwatch."""
    id, group = env.group()
    client, events = env.tooz(b"restarted"), list[Any]()
    client.watch_join_group(id, events.append)
    client.watch_leave_group(id, events.append)
    with group.join(member="w"):
        client.run_watchers()
        client.stop()
    with group.join(member="v"):
        client.start()
        client.run_watchers()
        expected = [("MemberJoinedGroup", b"w"), ("MemberLeftGroup", b"w")]
        found = [(kind, member) for kind, _, member in told_of(events)]
        assert found == [*expected, ("MemberJoinedGroup", b"v")]
    news = client._watchers[id.decode()]._news
    until(lambda: news)  # it listens again, too
    client.stop()
    client.unwatch_join_group(id, events.append)
    client.unwatch_leave_group(id, events.append)
    client.start()
    assert client.run_watchers() == []
