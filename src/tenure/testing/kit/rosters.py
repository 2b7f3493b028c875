"""The roster contract, as recipes rely on it: claims, their order, who waits, and the dead."""

from __future__ import annotations

import contextlib
import functools
import json
from typing import Any

import tenure

from ... import _names
from ..._model import Claim
from ._base import PROCESSES, SHARED, Env, case
from ._party import Party, refused
from .basic import HOSTILE_NAMES

DEAD_SECONDS_MAX = 1.5
"""How much longer than they linger the dead may count: a second, and half for a loaded machine."""


# -- claims ------------------------------------------------------------------------------------


@case(5)
async def a_claim_is_entered_once(env: Env) -> None:
    """The same claim, entered again because a reply was lost, is the same one: same token, same
    place."""
    a, b = await Party.join(env), await Party.join(env)
    roster, id = env.name(), a.id()
    first = await a.enter(roster, "x", id=id)
    assert first.mine is not None
    behind = await b.entered(roster)
    for width in (None, 1):
        again = await a.enter(roster, "x", width, id=id)
        assert again.mine == first.mine
        assert again.rank == 0
    assert await a.census(roster) == (id, behind.id)


@case(5)
async def a_claim_that_is_entered_twice_at_once_stands_once(env: Env) -> None:
    """Two requests to enter one claim that arrive together leave one claim."""
    a = await Party.join(env)
    roster, id = env.name(), a.id()
    tasks = [env.spawn(lambda: a.enter(roster, id=id)) for _ in range(4)]
    rolls = [await task.result() for task in tasks]
    assert len({roll.mine.token for roll in rolls}) == 1
    assert await a.census(roster) == (id,)


@case(9)
async def claims_stand_in_the_order_of_their_tokens(env: Env) -> None:
    """Whoever comes next has a greater token and a higher rank, and knows who is before it."""
    a, b = await Party.join(env), await Party.join(env)
    roster = env.name()
    before, tokens = None, [0]
    for rank in range(6):
        roll = await (a, b)[rank % 2].enter(roster)
        assert roll.mine is not None
        assert (roll.rank, roll.before) == (rank, before)
        assert roll.claims[0].id == ((await a.census(roster))[0])
        assert (roll.mine.owner, roll.mine.session) in ((a.owner, a.session), (b.owner, b.session))
        before = roll.mine.id
        tokens.append(roll.mine.token)
    assert tokens == sorted(set(tokens)), tokens


@case(9)
async def tokens_rise_in_a_roster_that_was_empty(env: Env) -> None:
    """A roster that everybody has left goes on counting."""
    a, b = await Party.join(env), await Party.join(env)
    roster, tokens = env.name(), [0]
    for party in (a, b, a):
        claim = await party.entered(roster, width=1)
        tokens.append(claim.token)
        await party.leave(claim)
        assert await party.census(roster) == ()
    assert tokens == sorted(set(tokens)), tokens


@case(13)
async def claims_that_come_together_have_one_order(env: Env) -> None:
    """Eight claims that arrive at once have eight ranks, and all see the same order."""
    parties = [await Party.join(env) for _ in range(4)]
    roster = env.name()
    works = [functools.partial(party.entered, roster) for party in parties * 2]
    tasks = [env.spawn(work) for work in works]
    claims = [await task.result() for task in tasks]
    claims.sort(key=lambda claim: int(claim.token))
    assert await parties[0].census(roster) == tuple(claim.id for claim in claims)
    before = None
    for rank, claim in enumerate(claims):
        roll = await parties[3].driver.read(claim.session, roster, claim.id)
        assert (roll.mine, roll.rank, roll.before) == (claim, rank, before)
        assert roll.claims[0] == claims[0]
        before = claim.id


@case(6)
async def a_refused_claim_writes_nothing(env: Env) -> None:
    """A claim whose rank would not be under the width is not there, and left nothing."""
    a, b = await Party.join(env), await Party.join(env)
    roster = env.name()
    claims = [await a.entered(roster, width=3) for _ in range(3)]
    before = await env.footprint()
    for width in (1, 2, 3) * 5:
        roll = await b.enter(roster, "public", width)
        assert roll.mine is None
        assert roll.claims[0] == claims[0]
    assert await b.census(roster) == tuple(claim.id for claim in claims)
    assert await env.footprint() == before
    assert (await b.enter(roster, width=4)).rank == 3


@case(13)
async def a_width_is_kept_by_those_who_race(env: Env) -> None:
    """Of twelve claims that come at once for three places, three are entered."""
    parties = [await Party.join(env) for _ in range(4)]
    for _ in range(3):
        roster = env.name()
        works = [functools.partial(party.enter, roster, width=3) for party in parties * 3]
        tasks = [env.spawn(work) for work in works]
        rolls = [await task.result() for task in tasks]
        assert sorted(roll.rank for roll in rolls if roll.mine) == [0, 1, 2]
        assert len(await parties[0].census(roster)) == 3


@case(8)
async def withdrawing_is_idempotent(env: Env) -> None:
    """A claim that is withdrawn twice, or was never entered, takes no other with it."""
    a, b = await Party.join(env), await Party.join(env)
    roster = env.name()
    first, second = await a.entered(roster), await b.entered(roster)
    await a.driver.withdraw(a.session, roster, a.id())
    assert (await b.read(second)).rank == 1
    for _ in range(2):
        await a.leave(first)
        assert await b.census(roster) == (second.id,)
    roll = await b.read(second)
    assert (roll.mine, roll.rank, roll.before) == (second, 0, None)
    gone = await a.read(first)
    assert gone.mine is None
    assert gone.claims[0] == second
    await b.leave(second)
    assert (await b.read(second)).claims == ()


@case(7)
async def the_dead_enter_nothing(env: Env) -> None:
    """A session that has ended is told so at whatever it tries, and ending it again is no error."""
    a, b = await Party.join(env), await Party.join(env)
    roster = env.name()
    other = await b.entered(roster)
    claim = await a.entered(roster, "mine")
    await a.driver.end(a.session)
    await refused(a.enter(roster), tenure.SessionLost)
    await refused(a.enter(roster, "again", id=claim.id), tenure.SessionLost)
    await refused(a.driver.renew(a.session), tenure.SessionLost)
    await refused(a.driver.amend(claim, "changed"), tenure.SessionLost)
    await a.driver.end(a.session)
    assert await b.census(roster) == (other.id,)


@case(8)
async def the_end_of_a_session_frees_all_that_it_held(env: Env) -> None:
    """When a session ends, its claims are gone from every roster at once, and nobody else's."""
    a, b = await Party.join(env), await Party.join(env)
    rosters = [env.name() for _ in range(4)]
    mine = []
    for roster in rosters:
        await a.entered(roster, "public" if roster in rosters[:2] else "")
        mine.append(await b.entered(roster))
        await a.entered(roster)
    await a.driver.end(a.session)
    for roster, claim in zip(rosters, mine, strict=True):
        assert (await b.read(claim)).rank == 0
        assert await b.census(roster) == (claim.id,)


# -- bodies ------------------------------------------------------------------------------------


@case(5)
async def an_amendment_is_compared_and_idempotent(env: Env) -> None:
    """A body is replaced if it is still the one that was known; the same again is success."""
    a, b = await Party.join(env), await Party.join(env)
    roster = env.name()
    await b.entered(roster, "other")
    claim = await a.entered(roster, "one")
    behind = await b.entered(roster, "one")
    amended = await a.driver.amend(claim, "two")
    assert amended == claim._replace(body="two")
    assert await a.driver.amend(claim, "two") == amended
    await refused(a.driver.amend(claim, "three"), tenure.SessionLost)
    assert (await b.driver.census(roster))[1:] == (amended, behind)
    final = await a.driver.amend(amended, "one")
    assert final == claim
    await a.leave(final)
    await refused(a.driver.amend(final, "four"), tenure.SessionLost)
    assert [each.body for each in await b.driver.census(roster)] == ["other", "one"]


@case(5)
async def of_amendments_that_race_one_succeeds(env: Env) -> None:
    """Of eight who replace the same body at once one succeeds, and its body stands."""
    a = await Party.join(env)
    claim = await a.entered(env.name(), "old")
    done: list[Claim] = []

    async def amend(body: str) -> None:
        with contextlib.suppress(tenure.SessionLost):
            done.append(await a.driver.amend(claim, body))

    tasks = [env.spawn(functools.partial(amend, f"new {number}")) for number in range(8)]
    for task in tasks:
        await task.result()
    assert len(done) == 1, done
    assert await a.driver.census(claim.roster) == (done[0],)


@case()
async def a_body_may_be_any_text(env: Env) -> None:
    """Quotes, line ends, control characters, emoji, JSON and 20,000 letters come back as they
    were."""
    a, b = await Party.join(env), await Party.join(env)
    roster = env.name()
    bodies = [
        " ",
        "a\nb\r\n\tc",
        "\x01\x1e\x1f\x7f",
        "'\"`\\ \\x00 \\u0000 %s {} $1 :a",
        "\U0001f512 e\u0301 \u00e9 \u202egnp",
        json.dumps({"zone": "a", "list": [1, None, "\u00e9\x00"], "deep": {"": "\n"}}),
        "x" * 20_000,
        "\u20ac" * 5_000,
    ]
    claims = [await a.entered(roster, body) for body in bodies]
    assert [claim.body for claim in claims] == bodies
    assert await b.driver.census(roster) == tuple(claims)
    changed = [
        await a.driver.amend(claim, body)
        for claim, body in zip(claims, reversed(bodies), strict=True)
    ]
    assert await b.driver.census(roster) == tuple(changed)
    assert [claim.body for claim in changed] == bodies[::-1]


# -- the census --------------------------------------------------------------------------------


@case()
async def a_census_is_complete_and_ordered(env: Env) -> None:
    """Three hundred claims of three sessions are all there, whole, and in the order of tokens."""
    parties = [await Party.join(env, owner=f"owner-{number}") for number in range(3)]
    roster = env.name()
    assert await parties[0].driver.census(roster) == ()

    async def fill(party: Party) -> list[Claim]:
        return [await party.entered(roster, f"{party.owner} {number}") for number in range(100)]

    tasks = [env.spawn(functools.partial(fill, party)) for party in parties]
    claims: list[Claim] = []
    for task in tasks:
        claims += await task.result()
    claims.sort(key=lambda claim: claim.token)
    assert await parties[1].driver.census(roster) == tuple(claims)
    for claim in claims[::2]:
        await parties[int(claim.owner[-1])].leave(claim)
    assert await parties[2].driver.census(roster) == tuple(claims[1::2])


@case(needs=(SHARED,))
async def a_census_shows_every_kind_of_claim(env: Env) -> None:
    """Shared and exclusive claims, with a body and without, stand in one order."""
    a, b = await Party.join(env), await Party.join(env)
    roster = env.name()
    claims = [
        await (a, b)[number % 2].entered(roster, body, shared=shared)
        for number, (body, shared) in enumerate(
            (("", True), ("x", False), ("y", True), ("", False), ("z", True), ("", True))
        )
    ]
    assert [claim.shared for claim in claims] == [True, False, True, False, True, True]
    assert await a.driver.census(roster) == tuple(claims)


@case()
async def rosters_are_listed_by_prefix(env: Env) -> None:
    """Names with NUL, globs, slashes or emoji are listed as they are, sorted, while they have a
    claim."""
    a, b = await Party.join(env), await Party.join(env)
    names = [_names.of("group", name) for name in HOSTILE_NAMES]
    claims = [await a.entered(name, "x") for name in names]
    others = ["x@group/a", _names.of("leader", "a")]
    for other in others:
        await a.entered(other, "x")
    assert list(await b.driver.rosters("@group/")) == sorted(names)
    for prefix in ("@group/a", "@group/*", "@group/[a]", "@group/%", "@group/a\x00", "@group/\\"):
        expected = sorted(name for name in names if name.startswith(prefix))
        assert list(await b.driver.rosters(prefix)) == expected, prefix
    assert list(await b.driver.rosters("")) == sorted([*names, *others])
    for claim in claims[1:]:
        await a.leave(claim)
    assert list(await b.driver.rosters("@group/")) == names[:1]
    assert await b.census(names[0]) == (claims[0].id,)


@case()
async def rosters_of_two_namespaces_never_meet(env: Env) -> None:
    """The same roster, or the same path to it, in two namespaces is two rosters and two records."""
    space = env.namespace
    spaces = (space, space + "/x", f"{{{space}}}", space + "%b", "../" + space)
    parties = [await Party.join(env, namespace=space) for space in spaces]
    name = _names.of("group", "x/one")
    claims = [await party.entered(name, "x", width=1) for party in parties]
    other = await parties[1].entered(_names.of("group", "one"), "x", width=1)
    for party, claim in zip(parties, claims, strict=True):
        assert await party.driver.census(name) == (claim,)
        assert name in await party.driver.rosters("")
        assert await party.driver.recall(name) is None
        assert await party.driver.record(name, party.session, None) is not None
    for party in parties:
        record = await party.driver.recall(name)
        assert record is not None
        assert record.text == party.session
        assert await party.driver.record(name, None, record.version) is not None
    await parties[1].leave(other)
    assert await parties[0].census(name) == (claims[0].id,)


# -- the dead ----------------------------------------------------------------------------------


async def _until_buried(env: Env, looks: dict[str, Any]) -> None:
    """Each of the looks comes true before the dead have counted for too long."""
    give_up = tenure.now() + env.death + DEAD_SECONDS_MAX
    while looks:
        for what in list(looks):
            if await looks[what]():
                del looks[what]
        assert not looks or tenure.now() < give_up, f"the dead still count: {list(looks)}"
        await env.pause(0.02)


def _under(party: Party, claim: Claim, width: int) -> Any:
    async def look() -> bool:
        roll = await party.read(claim, width)
        assert roll.mine == claim
        return roll.rank < width

    return look


@case(12, needs=(SHARED,), timed=True)
async def the_dead_never_count_for_long(env: Env) -> None:
    """A session that is renewed no more counts for a TTL at most: at the head, in the middle of a
    semaphore, as a writer between readers, in a try, and in the census."""
    a, b = await Party.join(env), await Party.join(env)
    ghost = await a.ghost()
    looks: dict[str, Any] = {}

    head = env.name()
    await ghost.entered(head)
    looks["the head of a queue"] = _under(b, await b.entered(head), 1)

    middle = env.name()
    await a.entered(middle)
    await ghost.entered(middle)
    await a.entered(middle)
    looks["in the middle of three places"] = _under(b, await b.entered(middle), 3)

    readers = env.name()
    await a.entered(readers, shared=True)
    await ghost.entered(readers)
    looks["a writer between readers"] = _under(b, await b.entered(readers, shared=True), 1)

    tried = env.name()
    await ghost.entered(tried)

    async def let_in() -> bool:
        return (await b.enter(tried, width=1)).mine is not None

    looks["a try"] = let_in

    public = env.name()
    before = await a.entered(public, "x")
    shown = await ghost.entered(public, "y")
    behind = await b.entered(public, "z")
    assert await b.census(public) == (before.id, shown.id, behind.id)

    async def counted() -> bool:
        return await b.census(public) == (before.id, behind.id)

    looks["a census"] = counted
    await ghost.die()
    await _until_buried(env, looks)
    for roster in (head, middle, readers, tried, public):
        assert all(claim.owner != "ghost" for claim in await b.driver.census(roster))


@case(needs=(PROCESSES,), timed=True)
async def a_killed_process_leaves_the_census(env: Env) -> None:
    """Claims of a process that was killed are gone within a TTL, and at once where the driver says
    so."""
    actor = await env.ready_actor(owner="killed")
    a = await Party.join(env)
    roster = env.name()
    mine = await a.entered(roster, "mine")
    for _ in range(3):
        assert "error" not in (answer := actor.do("enter", roster=roster, body="public")), answer
    behind = await a.entered(roster)
    found = await a.driver.census(roster)
    assert [claim.owner for claim in found] == [a.owner, *["killed"] * 3, a.owner]
    actor.kill()

    async def gone() -> bool:
        return await a.census(roster) == (mine.id, behind.id)

    killed = tenure.now()
    await _until_buried(env, {"the census of a killed process": gone})
    if env.traits.frees_on_death:
        assert tenure.now() - killed < 1.0
    assert (await a.read(behind)).rank == 1


@case(timed=True)
async def an_operator_sees_when_a_session_was_renewed(env: Env) -> None:
    """Anybody can ask how long ago a session, of whomever, was renewed; of an ended one nothing."""
    a, b = await Party.join(env), await Party.join(env)
    for party in (a, b):
        seconds = await party.driver.last_seen(a.session)
        assert seconds is not None
        assert 0 <= seconds <= env.ttl + DEAD_SECONDS_MAX
    await a.driver.end(a.session)
    assert await b.driver.last_seen(a.session) is None
    assert await b.driver.last_seen(b.session) is not None
