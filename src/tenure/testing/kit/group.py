"""Groups: who is a member, what others see of it, and who takes over from the dead."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Any

import tenure

from ._base import EXPIRES, OUTLIVES_CONNECTION, PROCESSES, SERVER, Env, case
from .basic import HOSTILE_NAMES


async def end_session(env: Env, coordinator: Any) -> None:
    """What a coordinator holds is gone at the backend, and nobody has told the coordinator."""
    session = env.session_of(coordinator)
    await session.driver.end((await session.life()).id)


async def refused(env: Env, call: Any, kind: type[Exception]) -> Exception:
    """The call raises this error."""
    try:
        await env(call())
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


async def ids(env: Env, group: Any) -> tuple[str, ...]:
    """Who is in the group now, as far as one can tell."""
    try:
        return tuple((await env(group.members())).ids)
    except tenure.GroupNotFound:
        return ()


async def until_ids(env: Env, group: Any, wanted: set[str], seconds: float) -> None:
    """Wait until these are the members."""
    give_up = tenure.now() + seconds
    while (found := set(await ids(env, group))) != wanted:
        assert tenure.now() < give_up, f"after {seconds:g} s: {found}, not {wanted}"
        await env.pause(0.02)


async def restarted(env: Env, group: Any, member: Any) -> Any:
    """Kill the server and start it again; the member, or another if that one was lost."""
    assert env.backend.server is not None
    env.backend.server.restart(graceful=False)
    if env.traits.durable_claims:  # unless the restart took too long
        deadline = member.deadline  # until it moves, nobody has asked the server since
        settled = lambda: member.deadline > deadline or not member.held()  # noqa: E731
    else:
        settled = lambda: not member.held()  # noqa: E731
    await env.until(settled, 2 * env.ttl + 2, "a renewal, or the loss")
    if member.held():
        return member
    return await env(group.join(member.capabilities, member=member.id, timeout=10))


@case()
async def a_group_is_made_joined_left_and_deleted(env: Env) -> None:
    """A group lives from its creation to its deletion, whoever is in it; a member from its join
    until it leaves, and nothing is left of it."""
    a, b = await env.connect(owner="a"), await env.connect(owner="b")
    name = env.name()
    ours, theirs = a.group(name), b.group(name)
    assert not await env(theirs.exists())
    await refused(env, theirs.members, tenure.GroupNotFound)
    await refused(env, theirs.delete, tenure.GroupNotFound)
    await env(ours.create())
    await refused(env, theirs.create, tenure.GroupExists)
    await env(theirs.create(exist_ok=True))
    assert await env(theirs.exists()) and len(await env(theirs.members())) == 0
    assert name in await env(b.groups())
    before = await env.footprint()
    one = await env(ours.join({"zone": "a"}))
    two = await env(theirs.join(member="second", create=False))
    assert (one.id, two.id, one.owner) == ("a", "second", "a")
    members = await env(ours.members())
    assert members.ids == ("a", "second") and "a" in members
    assert (members[0].capabilities, members[0].token) == ({"zone": "a"}, one.token)
    assert members.get("second").owner == "b"
    error = await refused(env, theirs.delete, tenure.GroupNotEmpty)
    assert "'second'" in str(error)
    await env(one.leave())
    await env(one.leave())
    assert one.state is tenure.State.RELEASED
    assert await ids(env, theirs) == ("second",)
    await env(two.release())
    assert await env.footprint() == before
    await env(theirs.delete())
    assert not await env(ours.exists()) and name not in await env(a.groups())


@case(timed=True)
async def capabilities_are_published_and_changed(env: Env) -> None:
    """Any JSON value comes out as it went in, also after a change; a member can be asked for
    alone, with when it was seen."""
    a, b = await env.connect(owner="a"), await env.connect()
    name = env.name()
    member = await env(a.group(name).join())
    for value in (None, {"zone": "é\n\0\U0001f512", "n": [1, 2.5, True, {}]}, "x" * 65_000):
        await env(member.update(value))
        info = await env(b.group(name).member("a"))
        assert info.capabilities == value and member.capabilities == value
        assert info.token == member.token and 0 <= info.last_seen < env.ttl + 1
    await refused(env, lambda: b.group(name).member("nobody"), tenure.MemberNotFound)
    await env(member.leave())
    await refused(env, lambda: b.group(name).member("a"), tenure.MemberNotFound)
    await refused(env, lambda: member.update(1), tenure.LeaseLost)


@case(6)
async def capabilities_that_cannot_be_are_refused(env: Env) -> None:
    """What JSON cannot say, or is too large, is refused by the name of its part, and nothing is
    left."""
    a = await env.connect()
    group = a.group(env.name())
    before = await env.footprint()
    for bad, word in (
        ({"load": [1, float("nan")]}, "['load'][1]"),
        ({"raw": b"x"}, "bytes"),
        ({1: 2}, "key 1"),
        ("x" * 70_000, "65,536"),
    ):
        error = await refused(env, functools.partial(group.join, bad), tenure.InvalidArgument)
        assert word in str(error)
    assert await env.footprint() == before and not await env(group.exists())
    member = await env(group.join(1))
    await refused(env, lambda: member.update({2}), tenure.InvalidArgument)
    assert member.held() and member.capabilities == 1
    await env(member.leave())


@case(8, 9)
async def an_id_has_one_member(env: Env) -> None:
    """A living member's id is refused to others, who may wait for it; the next one's token is
    greater."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    first = await env(a.group(name).join(member="one"))
    await refused(env, lambda: a.group(name).join(member="one"), tenure.AlreadyJoined)
    await refused(env, lambda: b.group(name).join(member="one"), tenure.MemberExists)
    await refused(env, lambda: b.group(name).join(member="one", timeout=0.05), tenure.MemberExists)
    waiter = env.spawn(lambda: env(b.group(name).join(2, member="one", timeout=20)))
    await env.pause(0.05)
    assert not waiter.done() and first.held()
    await env(first.leave())
    second = await waiter.result(10)
    assert second.token > first.token
    assert [each.capabilities for each in await env(a.group(name).members())] == [2]
    await env(second.leave())


@case(6)
async def hostile_names_are_groups_and_members(env: Env) -> None:
    """Groups and members of any name work, and none meets another, however they run together."""
    a, b = await env.connect(), await env.connect()
    names = [*HOSTILE_NAMES[::3], "s", "s/t", "1:s"]
    group = a.group("s")
    joined = [await env(a.group(name).join(member=name)) for name in names]
    joined += [await env(group.join(member=id)) for id in names if id != "s"]
    assert (await env(b.group("s/t").members())).ids == ("s/t",)
    assert set(await ids(env, b.group("s"))) == set(names)
    assert set(names) <= set(await env(b.groups()))
    for member in joined:
        await env(member.leave())


@case(6)
async def a_join_that_fails_leaves_nothing(env: Env) -> None:
    """Joining a group that does not exist, without making it, leaves neither claim nor group."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    before = await env.footprint()
    group = a.group(name)
    await refused(env, lambda: group.join(create=False), tenure.GroupNotFound)
    assert await env.footprint() == before and not await env(group.exists())
    member = await env(group.join())
    await env(member.leave())
    await env(b.group(name).delete())
    await refused(env, lambda: group.join(create=False), tenure.GroupNotFound)
    assert await env.footprint() == before


@case(6, flavours=("asyncio",))
async def a_cancelled_join_leaves_nothing(env: Env) -> None:
    """A join that is cancelled after 0, 1, 2 … steps of the loop leaves no member behind, and no
    estate."""
    a = await env.connect()
    group = a.group(env.name())
    await env((await env(group.join())).leave())
    base = await env.footprint()
    for steps in range(60):
        task = asyncio.ensure_future(group.join(member="one", estate=1, timeout=10))
        for _ in range(steps):
            await asyncio.sleep(0 if steps < 40 else 0.0005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await env((await task).leave())
    await env.until_footprint(lambda count: count == base, 10, "the backend to be clean")
    assert await ids(env, group) == () and await env(group.orphans()) == ()
    await env((await env(group.join(member="one", timeout=5))).leave())


@case()
async def who_joins_is_never_deleted(env: Env) -> None:
    """Of a join and a deletion at the same time, exactly one succeeds, and the group is as that
    says."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    ours, theirs = a.group(name), b.group(name)

    async def join() -> Any:
        try:
            return await env(ours.join(create=False))
        except tenure.GroupNotFound:
            return None

    async def delete() -> bool:
        try:
            await env(theirs.delete())
        except tenure.GroupNotEmpty:
            return False
        return True

    for _ in range(8):
        await env(ours.create(exist_ok=True))
        joining, deleting = env.spawn(join), env.spawn(delete)
        member, deleted = await joining.result(), await deleting.result()
        assert (member is None) == deleted, f"joined: {member}, deleted: {deleted}"
        assert await env(theirs.exists()) != deleted
        if member is not None:
            assert len(await env(theirs.members())) == 1
            await env(member.leave())
    member = await env(theirs.join())  # whatever was left half done does not keep one out
    await env(member.leave())


@case(8)
async def a_deletion_by_force_removes_the_members(env: Env) -> None:
    """Members of a group that is deleted by force vanish at once, and learn of it at their next
    call; what else they hold is not touched."""
    a, b = await env.connect(owner="a"), await env.connect()
    name = env.name()
    lock = await env(a.lock(env.name()).acquire())
    member = await env(a.group(name).join(estate=1))
    before = await env.footprint()
    await env(b.group(name).delete(force=True))
    assert not await env(a.group(name).exists())
    await refused(env, lambda: member.update(1), tenure.LeaseLost)
    assert not member.held() and "removed" in member.reason
    lock.check()
    again = await env(a.group(name).join(timeout=5))
    assert again.token > member.token and again.estate is None
    assert await ids(env, b.group(name)) == ("a",)
    await env.until_footprint(lambda count: count == before, 5, "the first member's claims to go")
    await env(again.leave())
    await env(lock.release())


@case()
async def fifty_members_are_all_seen(env: Env) -> None:
    """Fifty members of three coordinators are in everybody's view, in one order, and gone from it
    when they have left."""
    clients = [await env.connect() for _ in range(3)]
    name = env.name()
    joined: list[Any] = []

    async def join(client: int) -> None:
        for number in range(client, 50, 3):
            group = clients[client].group(name)
            joined.append(await env(group.join(number, member=f"m{number}")))

    for task in [env.spawn(functools.partial(join, client)) for client in range(3)]:
        await task.result()
    views = [await env(client.group(name).members()) for client in clients]
    assert len(views[0]) == 50 and views[0].ids == views[1].ids == views[2].ids
    assert all(each.id == f"m{each.capabilities}" for each in views[0])
    for member in joined:
        await env(member.leave())
    assert len(await env(clients[0].group(name).members())) == 0


@case()
async def what_others_wrote_harms_nobody(env: Env) -> None:
    """Entries in a group that Tenure did not write are counted, and nothing else."""
    a, b = await env.connect(owner="a"), await env.connect()
    name = env.name()
    member = await env(a.group(name).join())
    session = env.session_of(b)
    life = await session.life()
    bodies = ("{", "[1]", '{"id":7}', "{}" + "[" * 50_000, '{"id":"x","token":"y","at":0}')
    for body in bodies:
        await session.driver.claim(life.id, f"@group/{name}", life.next_id(), body, None)
    members = await env(b.group(name).members())
    assert members.ids == ("a",) and members.unreadable == len(bodies)
    await refused(env, b.group(name).delete, tenure.GroupNotEmpty)
    await env(member.leave())


@case(3, 7, needs=(PROCESSES,), timed=True)
async def a_killed_member_is_gone_in_time(env: Env) -> None:
    """A member whose process is killed is in nobody's view any more after the TTL, and its id can
    be had again."""
    a = await env.connect()
    name = env.name()
    actor = await env.ready_actor()
    joined = actor.do("join", group=name, member="one", capabilities=[1])
    assert "token" in joined, joined
    assert await ids(env, a.group(name)) == ("one",)
    actor.kill()
    await until_ids(env, a.group(name), set(), env.death + 1.5)
    member = await env(a.group(name).join(member="one", timeout=env.ttl))
    assert member.token > joined["token"]
    await env(member.leave())


@case(3, needs=(PROCESSES, EXPIRES), timed=True)
async def a_paused_member_is_gone_and_knows(env: Env) -> None:
    """A member that is stopped for longer than the TTL is gone from the view, and knows at its
    first question when it wakes."""
    a = await env.connect()
    name = env.name()
    actor = await env.ready_actor()
    actor.do("join", group=name, member="one")
    assert await ids(env, a.group(name)) == ("one",)
    actor.stop()
    await env.pause(env.ttl)
    if not env.traits.frees_on_death:
        await until_ids(env, a.group(name), set(), env.death - env.ttl + 1.5)
    actor.resume()
    assert not actor.do("state", name=name)["held"]


@case(3, 4, needs=(SERVER, OUTLIVES_CONNECTION), timed=True)
async def a_member_that_is_cut_off_joins_again(env: Env) -> None:
    """A member that is cut off has lost its membership before others see it go; when it is back
    it can join again."""
    proxy = env.proxy()
    a, b = await env.connect(env.url_through(proxy), owner="a"), await env.connect()
    name = env.name()
    member = await env(a.group(name).join())
    lost: list[float] = []
    member.on_lost(lambda lease: lost.append(tenure.now()))
    proxy.black_hole()
    await until_ids(env, b.group(name), set(), env.death + 1.5)
    assert lost and not member.held()
    proxy.heal()
    again = await env(a.group(name).join(timeout=10))
    assert again.token > member.token and await ids(env, b.group(name)) == ("a",)
    await env(again.leave())


@case(9, needs=(SERVER,))
async def members_survive_a_restart_or_are_told(env: Env) -> None:
    """After a restart of the server a member is still seen by others, or it knows that it is not
    a member and can be one again."""
    a, b = await env.connect(owner="a"), await env.connect()
    name = env.name()
    member = await env(a.group(name).join(1))
    member = await restarted(env, a.group(name), member)
    await until_ids(env, b.group(name), {"a"}, 2)
    await env(member.leave())
    await until_ids(env, b.group(name), set(), 2)


@case(7)
async def who_lost_its_session_joins_again(env: Env) -> None:
    """A member whose session the backend has ended is told, and joins again under its id."""
    a, b = await env.connect(owner="a"), await env.connect()
    name = env.name()
    member = await env(a.group(name).join())
    await end_session(env, a)
    assert await ids(env, b.group(name)) == ()
    await refused(env, lambda: member.update(1), tenure.LeaseLost)
    again = await env(a.group(name).join(timeout=5))
    assert again.token > member.token and await ids(env, b.group(name)) == ("a",)
    await env(again.leave())
