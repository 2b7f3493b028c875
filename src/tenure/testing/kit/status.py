"""What an operator sees: everything that is held, by whom, and who waits."""

from __future__ import annotations

from typing import Any

import tenure

from ._base import SHARED, Env, case
from .group import end_session


async def told(env: Env, coordinator: Any, kind: str, name: str) -> tenure.Status | None:
    """What the status says of one name."""
    for each in await env(coordinator.status()):
        if each.kind == kind and each.name == name:
            found: tenure.Status = each
            return found
    return None


def owners(status: tenure.Status | None) -> list[str]:
    """Who holds it."""
    return [] if status is None else [holder.owner for holder in status.holders]


@case()
async def a_status_tells_everything(env: Env) -> None:
    """Locks, permits, leaders, members, parties and counts are told with owners and tokens."""
    a, b = await env.connect(owner="first"), await env.connect(owner="second")
    name = "\N{SNOWMAN} 3:a/b\n@"
    assert await env(a.status()) == ()
    lease = await env(a.lock(name).acquire())
    # A lock of the backend's own may go without its name at first, and without its token.
    (lock,) = await env(b.status())
    assert (lock.kind, owners(lock), lock.limit) == ("lock", ["first"], None)
    assert lock.name in (name, None)
    assert lock.holders[0].token in (lease.token, None)

    permits = [await env(each.semaphore(name, 3).acquire()) for each in (a, b)]
    term = await env(a.election(name).campaign(value={"port": 1}))
    members = [await env(each.group(name).join({"zone": 1}, estate=0)) for each in (a, b)]
    await env(b.latch(name, 3).count_down())
    assert await env(b.barrier(name, 3).waiting()) == 0
    assert [each.kind for each in await env(b.status()) if each.name == name][-5:] == [
        *("semaphore", "election", "group", "barrier", "latch")
    ]
    semaphore = await told(env, b, "semaphore", name)
    assert semaphore is not None
    assert (semaphore.limit, semaphore.waiters) == (3, 0)
    assert [(each.owner, each.token) for each in semaphore.holders] == [
        (permit.owner, permit.token) for permit in permits
    ]
    election = await told(env, b, "election", name)
    assert election is not None
    assert (owners(election), election.value) == (["first"], {"port": 1})
    assert election.holders[0].token == term.token
    assert election.holders[0].since is not None
    group = await told(env, b, "group", name)
    assert group is not None
    assert group.members == tuple(await env(a.group(name).members()))
    assert group.orphans == ()
    latch = await told(env, b, "latch", name)
    assert latch is not None
    assert (latch.value, latch.limit) == (2, 3)
    barrier = await told(env, b, "barrier", name)
    assert barrier is not None
    assert (barrier.waiters, barrier.limit) == (0, 3)

    for each in (lease, *permits, term, *members):
        await env(each.release())
    left = await env(b.status())
    assert [each.kind for each in left] == ["semaphore", "group", "barrier", "latch"]
    assert not any(each.holders or each.members or each.orphans for each in left)


@case()
async def a_status_counts_who_waits(env: Env) -> None:
    """Who waits for a permit or to lead is counted, and is no holder."""
    a, b = await env.connect(owner="first"), await env.connect(owner="second")
    name = env.name()
    permit = await env(a.semaphore(name, 1).acquire())
    term = await env(a.election(name).campaign())

    async def next_permit() -> Any:
        return await env(b.semaphore(name, 1).acquire(30))

    async def next_term() -> Any:
        return await env(b.election(name).campaign(30))

    tasks = [env.spawn(next_permit), env.spawn(next_term)]
    for kind in ("semaphore", "election"):
        give_up = tenure.now() + 20
        while True:
            found = await told(env, a, kind, name)
            assert owners(found) == ["first"]
            if found is not None and found.waiters == 1:
                break
            assert tenure.now() < give_up, f"nobody waits for the {kind}"
            await env.pause(0.01)
    await env(permit.release())
    await env(term.release())
    for task in tasks:
        await env((await task.result()).release())


@case(needs=(SHARED,))
async def a_status_tells_who_shares(env: Env) -> None:
    """All readers of a lock are told."""
    a, b = await env.connect(owner="first"), await env.connect(owner="second")
    name = env.name()
    leases = [await env(each.lock(name, shared=True).acquire()) for each in (a, b)]
    (found,) = await env(a.status())
    assert (found.kind, found.shared, len(found.holders)) == ("lock", True, 2)
    assert {"first", "second"} & set(owners(found))
    for lease in leases:
        await env(lease.release())
    assert await env(a.status()) == ()


@case(timed=True)
async def a_status_tells_orphans(env: Env) -> None:
    """The estate of a dead member is told until somebody has settled it."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    await env(b.group(name).join(member="3:a/b", estate={"job": 7}))
    await end_session(env, b)
    give_up = tenure.now() + 2 * env.ttl + 2
    while not (found := await told(env, a, "group", name)) or not found.orphans:
        assert tenure.now() < give_up, f"no orphan: {found}"
        await env.pause(0.01)
    assert (found.members, found.orphans) == ((), ("3:a/b",))
    orphan = await env(a.group(name).inherit())
    await env(orphan.settle())
    found = await told(env, a, "group", name)
    assert found is not None
    assert found.orphans == ()
