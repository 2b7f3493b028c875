"""Watching a group, and inheriting from its dead."""

from __future__ import annotations

import functools
from typing import Any

import tenure

from ._base import OUTLIVES_CONNECTION, PROCESSES, SERVER, Env, case
from .group import end_session, ids, refused, restarted, until_ids


def told(change: tenure.Change | None) -> tuple[str, str]:
    """The kind of a change, and the member's id."""
    assert change is not None, "no change came"
    return change.kind, "" if change.member is None else change.member.id


async def watching(env: Env, group: Any, **options: Any) -> Any:
    """A watch that has begun."""
    watch = group.watch(**options)
    await env(watch.__aenter__() if env.flavour == "asyncio" else watch.__enter__())
    return watch


class Replay:
    """A view of a group that knows what its watch has told, and nothing else."""

    def __init__(self, env: Env, watch: Any, known: tuple[str, ...] = ()) -> None:
        self._env = env
        self._watch = watch
        self.ids = set(known)
        self.changes: list[tenure.Change] = []

    async def until(self, wanted: set[str], seconds: float) -> None:
        """Follow the watch until its view is this one."""
        give_up = tenure.now() + seconds
        while self.ids != wanted:
            assert tenure.now() < give_up, f"after {seconds:g} s: {self.ids}, not {wanted}"
            self.add(await self._env(self._watch.next(timeout=0.2)))

    def add(self, change: tenure.Change | None) -> None:
        """Apply a change; it must make sense where the view stands."""
        if change is None:
            return
        self.changes.append(change)
        kind, id = told(change)
        if kind == "joined":
            assert id not in self.ids, f"{id} joined twice"
            self.ids.add(id)
        elif kind == "left":
            assert id in self.ids, f"{id} left twice"
            self.ids.remove(id)
        elif kind == "changed":
            assert id in self.ids, f"{id} changed, and is no member"


@case()
async def changes_are_told_in_order(env: Env) -> None:
    """A watcher hears of every join, change and departure of another client, once and in order."""
    a, b = await env.connect(owner="a"), await env.connect()
    name = env.name()
    watch = await watching(env, b.group(name))
    assert await env(watch.next(timeout=0)) is None
    member = await env(a.group(name).join(1))
    joined = await env(watch.next(timeout=10))
    assert told(joined) == ("joined", "a") and joined.member.token == member.token
    await env(member.update(2))
    changed = await env(watch.next(timeout=10))
    assert told(changed) == ("changed", "a")
    assert (changed.before.capabilities, changed.member.capabilities) == (1, 2)
    await env(member.leave())
    left = await env(watch.next(timeout=10))
    assert told(left) == ("left", "a") and left.member.capabilities == 2
    assert await env(watch.next(timeout=0)) is None
    await env(watch.close())


@case()
async def a_watch_begins_at_a_snapshot(env: Env) -> None:
    """What changed since a snapshot is told, also what changed before anybody watched."""
    a, b = await env.connect(owner="a"), await env.connect(owner="b")
    name = env.name()
    one = await env(a.group(name).join(1))
    snapshot = await env(b.group(name).members())
    await env(one.leave())
    one = await env(a.group(name).join(2))
    two = await env(b.group(name).join())
    watch = b.group(name).watch(since=snapshot)
    changes = [await env(watch.next(timeout=5)) for _ in range(3)]
    # The same id with another token is another member.
    assert [told(each) for each in changes] == [("left", "a"), ("joined", "a"), ("joined", "b")]
    assert changes[0].member.token < changes[1].member.token
    assert await env(watch.next(timeout=0)) is None
    await env(watch.close())
    try:
        b.group(env.name()).watch(since=snapshot)
        raise AssertionError("the snapshot of another group was accepted")
    except tenure.InvalidArgument as error:
        assert name in str(error)
    for member in (one, two):
        await env(member.leave())


@case(12)
async def a_watch_ends_when_it_is_closed(env: Env) -> None:
    """Whoever waits for a change gets none when the watch is closed; with its coordinator, the
    error that says so."""
    a = await env.connect()
    group = a.group(env.name())
    watch = await watching(env, group)
    waiter = env.spawn(lambda: env(watch.next()))
    await env.pause(0.05)
    await env(watch.close())
    assert await waiter.result(5) is None
    assert await env(watch.next(timeout=5)) is None
    count = 0
    if env.flavour == "asyncio":
        async for _ in watch:
            count += 1
    else:
        for _ in watch:
            count += 1
    assert count == 0
    second = await watching(env, group)
    waiter = env.spawn(lambda: env(second.next()))
    await env.pause(0.05)
    await env(a.close())
    try:
        await waiter.result(5)
        raise AssertionError("a watch outlived its coordinator")
    except tenure.ClosedError:
        pass


@case()
async def a_watcher_needs_no_session(env: Env) -> None:
    """A client that only watches has no session at the backend, and none to lose."""
    a, b = await env.connect(owner="a"), await env.connect()
    name = env.name()
    watch = await watching(env, b.group(name))
    member = await env(a.group(name).join())
    assert told(await env(watch.next(timeout=10))) == ("joined", "a")
    assert env.session_of(b).alive is None
    await env(watch.close())
    await env(member.leave())


@case(12)
async def a_slow_consumer_is_told(env: Env) -> None:
    """Who sleeps through more wake-ups than the buffer holds hears that first, and then what has
    become of the group."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    watch = await watching(env, b.group(name), buffer=1)
    slept = watch._watch._watch  # to see how many wake-ups came
    for number in range(8):
        await env((await env(a.group(name).join(member=f"m{number}"))).leave())
    last = await env(a.group(name).join(member="last"))

    async def next_step() -> tuple[str, str]:
        # Wake-ups that are late make it say once more that it lagged.
        while (step := told(await env(watch.next(timeout=5)))) == ("lagged", ""):
            pass
        return step

    if env.traits.push:
        await env.until(lambda: slept.woken > 1, 5, "the wake-ups")
        assert told(await env(watch.next(timeout=5))) == ("lagged", "")
    assert await next_step() == ("joined", "last")
    await env(last.leave())
    assert await next_step() == ("left", "last")
    await env(watch.close())


@case(11)
async def callbacks_come_in_order(env: Env) -> None:
    """A callback is called for each change, its errors harm nothing, and after its end it is not
    called any more."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    heard: list[tuple[str, str]] = []

    def hear(change: tenure.Change) -> None:
        heard.append(told(change))
        raise RuntimeError("a broken callback")

    async def hear_slowly(change: tenure.Change) -> None:
        await env.pause(0)
        hear(change)

    group = b.group(name)
    subscription = await env(group.on_change(hear_slowly if env.flavour == "asyncio" else hear))
    wanted: list[tuple[str, str]] = []
    for number in range(3):
        member = await env(a.group(name).join(member=f"m{number}"))
        await env.until(lambda: len(heard) == len(wanted) + 1, 10, "the join")  # noqa: B023
        await env(member.leave())
        wanted += [("joined", f"m{number}"), ("left", f"m{number}")]
        await env.until(lambda: len(heard) == len(wanted), 10, "the departure")  # noqa: B023
    assert heard == wanted
    await env(subscription.close())
    member = await env(a.group(name).join())
    await env.pause(0.05)
    assert heard == wanted
    await env(member.leave())


@case()
async def a_storm_ends_in_the_truth(env: Env) -> None:
    """However members come and go, what watchers were told adds up to who is there in the end."""
    clients = [await env.connect() for _ in range(4)]
    name = env.name()
    replays = [Replay(env, await watching(env, client.group(name))) for client in clients[:3]]
    over: list[bool] = []

    async def follow(replay: Replay) -> None:
        while not over:
            replay.add(await env(replay._watch.next(timeout=0.05)))

    async def come_and_go(number: int) -> None:
        group = clients[number].group(name)
        for turn in range(6):
            member = await env(group.join(turn, member=f"m{number}"))
            await env(member.update([turn]))
            if turn < 5 or number % 2:
                await env(member.leave())

    followers = [env.spawn(functools.partial(follow, replay)) for replay in replays]
    for task in [env.spawn(functools.partial(come_and_go, number)) for number in range(4)]:
        await task.result()
    over.append(True)
    for follower in followers:
        await follower.result()
    assert set(await ids(env, clients[0].group(name))) == {"m0", "m2"}
    for replay in replays:
        await replay.until({"m0", "m2"}, 5)
        await env(replay._watch.close())


@case(3, 7, timed=True)
async def a_death_is_told(env: Env) -> None:
    """A watcher hears that a member is gone whose session ended, and that it came back."""
    a, b = await env.connect(owner="a"), await env.connect()
    name = env.name()
    member = await env(a.group(name).join())
    watch = await watching(env, b.group(name))
    replay = Replay(env, watch, ("a",))
    await end_session(env, a)
    await replay.until(set(), env.ttl + 1)
    await refused(env, lambda: member.update(1), tenure.LeaseLost)
    again = await env(a.group(name).join(timeout=5))
    await replay.until({"a"}, env.ttl)
    assert [each.kind for each in replay.changes] == ["left", "joined"]
    await env(again.leave())
    await env(watch.close())


@case(12, needs=(SERVER,), timed=True)
async def a_watch_outlives_its_connection(env: Env) -> None:
    """What changed while a watcher was cut off is told when it is back, and nothing twice."""
    proxy = env.proxy()
    a, b = await env.connect(), await env.connect(env.url_through(proxy))
    name = env.name()
    stays = await env(a.group(name).join(member="stays"))
    goes = await env(a.group(name).join(member="goes"))
    watch = await watching(env, b.group(name))
    replay = Replay(env, watch, ("stays", "goes"))
    proxy.reset()
    changed = await env(a.group(name).join(member="comes"))
    await env(goes.leave())
    await replay.until({"stays", "comes"}, 2 * env.ttl + 2)
    proxy.cut()
    await env(changed.leave())
    last = await env(a.group(name).join(member="last"))
    assert await env(watch.next(timeout=0.1)) is None
    proxy.heal()
    await replay.until({"stays", "last"}, 2 * env.ttl + 2)
    assert len(replay.changes) == 4
    for member in (stays, last):
        await env(member.leave())
    await env(watch.close())


@case(12, needs=(SERVER,), timed=True)
async def a_watch_outlives_a_restart(env: Env) -> None:
    """After a restart of the server a watcher's view becomes the truth again, and nothing is told
    twice."""
    a, b = await env.connect(owner="a"), await env.connect()
    name = env.name()
    member = await env(a.group(name).join())
    watch = await watching(env, b.group(name))
    replay = Replay(env, watch, ("a",))
    member = await restarted(env, a.group(name), member)
    await until_ids(env, a.group(name), {"a"}, 10)
    other = await env(a.group(name).join(member="b", timeout=10))
    await replay.until({"a", "b"}, 2 * env.ttl + 2)
    for each in (member, other):
        await env(each.leave())
    await env(watch.close())


# -- estates -------------------------------------------------------------------------


@case(7, timed=True)
async def one_survivor_inherits(env: Env) -> None:
    """When a member dies, exactly one of the survivors is given its estate, with a greater token;
    when it leaves, none."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    name = env.name()
    heard: list[tuple[str, Any, int]] = []

    def inherit(orphan: Any) -> None:
        assert orphan.held()
        heard.append((orphan.member, orphan.estate, orphan.token))

    leaves = await env(a.group(name).join(member="leaves", estate="nobody's"))
    dies = await env(a.group(name).join(member="dies", estate={"jobs": []}))
    await env(dies.bequeath({"jobs": [1, 2]}))
    survivors = [await env(each.group(name).on_orphan(inherit)) for each in (b, c)]
    await env(leaves.leave())
    assert dies.estate == {"jobs": [1, 2]} and await env(b.group(name).orphans()) == ()
    await end_session(env, a)
    await env.until(lambda: heard, env.ttl + 1, "an heir")
    give_up = tenure.now() + 5
    while await env(b.group(name).orphans()):
        assert tenure.now() < give_up, "the estate was not settled"
        await env.pause(0.01)
    assert await env(c.group(name).inherit()) is None
    assert len(heard) == 1 and heard[0][:2] == ("dies", {"jobs": [1, 2]})
    assert heard[0][2] > dies.token
    await refused(env, lambda: dies.bequeath("too late"), tenure.LeaseLost)
    for survivor in survivors:
        await env(survivor.close())


@case(7, 8, timed=True)
async def another_inherits_when_the_heir_dies(env: Env) -> None:
    """An heir that fails or dies halfway leaves the estate to another; the late one can neither
    settle nor write it."""
    a, b, c = await env.connect(), await env.connect(), await env.connect()
    name = env.name()
    dead = await env(a.group(name).join(member="dead", estate=[1]))
    assert await env(b.group(name).inherit()) is None
    await end_session(env, a)
    first = await env(b.group(name).inherit())
    assert first.estate == [1] and "dead" in repr(first)
    assert await env(c.group(name).inherit()) is None, "two heirs at once"
    assert await env(c.group(name).orphans()) == ("dead",)
    await refused(env, lambda: c.group(name).join(member="dead"), tenure.MemberExists)
    await end_session(env, b)
    second = await env(c.group(name).inherit())
    assert second.estate == [1] and second.token > first.token > dead.token
    await refused(env, first.settle, tenure.LeaseLost)
    assert await env(c.group(name).orphans()) == ("dead",)
    await env(second.release())  # it does not want it
    third = await env(c.group(name).inherit())
    await env(third.settle())
    assert third.state is tenure.State.RELEASED
    assert await env(c.group(name).inherit()) is None
    await refused(env, lambda: dead.bequeath(2), tenure.LeaseLost)
    assert await env(c.group(name).orphans()) == ()
    await env(c.group(name).delete())


@case(7)
async def who_comes_back_first_keeps_its_estate(env: Env) -> None:
    """A member that comes back under its id before anybody inherited has the estate that it left,
    and a group with an estate is not deleted."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    await env(a.group(name).join(member="one", estate="half done"))
    await end_session(env, a)
    error = await refused(env, b.group(name).delete, tenure.GroupNotEmpty)
    assert "inherited" in str(error)
    back = await env(b.group(name).join(member="one", estate="new"))
    assert back.estate == "half done"
    assert await env(b.group(name).orphans()) == ()
    assert await env(b.group(name).inherit()) is None
    await env(back.bequeath(None))
    assert back.estate is None
    await end_session(env, b)
    assert await env(a.group(name).orphans()) == ()
    await env(a.group(name).delete())


@case(7, needs=(PROCESSES, OUTLIVES_CONNECTION), timed=True)
async def a_killed_member_has_an_heir(env: Env) -> None:
    """A member whose process is killed is inherited within the TTL and a second."""
    a = await env.connect()
    name = env.name()
    heard: list[Any] = []
    subscription = await env(a.group(name).on_orphan(lambda orphan: heard.append(orphan.estate)))
    actor = await env.ready_actor()
    assert "token" in actor.do("join", group=name, member="one", estate="jobs")
    actor.kill()
    killed = tenure.now()
    await env.until(lambda: heard, 2 * env.death + 1, "the heir")
    assert tenure.now() - killed < 1.5 * env.death + 1.5
    assert heard == ["jobs"]
    await env(subscription.close())
