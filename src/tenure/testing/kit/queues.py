"""The roster contract: readers, writers and widths, and who is woken when somebody goes."""

from __future__ import annotations

import functools

from ._base import SHARED, Env, case
from ._party import Party

# -- shared claims -----------------------------------------------------------------------------


@case(needs=(SHARED,))
async def shared_claims_count_only_who_stands_in_their_way(env: Env) -> None:
    """For a reader, only the writers before it count; for a writer, everybody does."""
    a, b = await Party.join(env), await Party.join(env)
    roster = env.name()
    order = (True, True, False, True, False, True)
    rolls = [await a.enter(roster, shared=shared) for shared in order]
    claims = [roll.mine for roll in rolls if roll.mine is not None]
    r1, r2, w1, r3, w2, _ = claims
    assert [claim.shared for claim in claims] == list(order)
    expected = [(0, None), (0, None), (2, r2.id), (1, w1.id), (4, r3.id), (2, w2.id)]
    assert [(roll.rank, roll.before) for roll in rolls] == expected
    seen = [await b.driver.read(a.session, roster, claim.id) for claim in claims]
    assert [(roll.rank, roll.before) for roll in seen] == expected
    assert [roll.mine for roll in seen] == claims
    await a.leave(r1)
    assert [(await a.read(claim)).rank for claim in claims[1:]] == [0, 1, 1, 3, 2]
    await a.leave(w1)
    assert [(await a.read(claim)).rank for claim in (r2, r3, w2)] == [0, 0, 2]
    assert (await a.read(claims[5])).before == w2.id
    await a.leave(r3)
    assert (await a.read(w2)).before == r2.id


@case(needs=(SHARED,))
async def a_reader_that_tries_is_let_in_beside_readers_alone(env: Env) -> None:
    """A shared claim of width one is entered beside shared ones, not beside or behind a writer."""
    a, b = await Party.join(env), await Party.join(env)
    roster = env.name()
    one = await a.entered(roster, width=1, shared=True)
    two = await b.entered(roster, width=1, shared=True)
    assert (await b.enter(roster, width=1)).mine is None, "a writer came in beside readers"
    writer = await b.entered(roster)
    assert (await a.enter(roster, width=1, shared=True)).mine is None, "a reader overtook a writer"
    await a.leave(one)
    await b.leave(two)
    assert (await b.read(writer)).rank == 0
    assert (await a.enter(roster, width=1, shared=True)).mine is None, "beside a writer"
    await b.leave(writer)
    assert (await a.enter(roster, width=1, shared=True)).mine is not None


@case(13, needs=(SHARED,))
async def readers_and_writers_who_race_keep_apart(env: Env) -> None:
    """Of readers and writers who try at once, either one writer is let in, or only readers."""
    parties = [await Party.join(env) for _ in range(4)]
    for _ in range(4):
        roster = env.name()
        works = [
            functools.partial(party.enter, roster, width=1, shared=bool(number % 4))
            for number, party in enumerate(parties * 2)
        ]
        tasks = [env.spawn(work) for work in works]
        rolls = [await task.result() for task in tasks]
        inside = [roll.mine.shared for roll in rolls if roll.mine is not None]
        assert inside
        assert inside == [False] or all(inside), inside


# -- who waits ---------------------------------------------------------------------------------


@case(12)
async def a_withdrawal_wakes_the_next(env: Env) -> None:
    """When the head goes, the claim behind it is woken; the one behind that need not be."""
    a, b = await Party.join(env), await Party.join(env)
    for _ in range(3):
        roster = env.name()
        head = await a.entered(roster)
        waiter = await b.wait_for(await b.entered(roster))
        await a.leave(head)
        await waiter.granted("the withdrawal of the head")


@case(12)
async def one_that_gives_up_makes_way(env: Env) -> None:
    """When a claim in the middle goes, and then the head, the one behind both is granted."""
    a, b, c = await Party.join(env), await Party.join(env), await Party.join(env)
    roster = env.name()
    head, middle = await a.entered(roster), await b.entered(roster)
    waiter = await c.wait_for(await c.entered(roster))
    await b.leave(middle)
    assert not await waiter.looks()
    await a.leave(head)
    await waiter.granted("the withdrawal of both")


@case(12)
async def the_fourth_of_three_places_is_woken_whoever_goes(env: Env) -> None:
    """Where three may hold, the fourth is woken when the first of them goes, the second, or the
    third."""
    a, b = await Party.join(env), await Party.join(env)
    for place in range(3):
        roster = env.name()
        claims = [await a.entered(roster, width=3) for _ in range(3)]
        waiter = await b.wait_for(await b.entered(roster), width=3)
        fifth = await b.entered(roster)
        await a.leave(claims[place], width=3)
        await waiter.granted(f"the withdrawal of claim {place + 1} of 3")
        assert (await b.read(fifth, width=3)).rank == 3


@case(12)
async def every_place_that_comes_free_wakes_somebody(env: Env) -> None:
    """Where two may hold, two who go let in the two who wait, whatever the order."""
    a, b = await Party.join(env), await Party.join(env)
    for last_first in (False, True):
        roster = env.name()
        claims = [await a.entered(roster, width=2) for _ in range(2)]
        waiters = [await b.wait_for(await b.entered(roster), width=2) for _ in range(2)]
        for claim in reversed(claims) if last_first else claims:
            await a.leave(claim, width=2)
        for waiter in waiters:
            await waiter.granted("two withdrawals")


@case(12, needs=(SHARED,))
async def a_writer_that_goes_wakes_every_reader(env: Env) -> None:
    """When a writer goes, all readers up to the next writer are woken, and that writer after
    them."""
    a, b = await Party.join(env), await Party.join(env)
    roster = env.name()
    writer = await a.entered(roster)
    readers = [await (a, b)[number % 2].entered(roster, shared=True) for number in range(4)]
    waiters = [await (a, b)[number % 2].wait_for(claim) for number, claim in enumerate(readers)]
    last = await b.wait_for(await b.entered(roster))
    await a.leave(writer)
    for waiter in waiters:
        await waiter.granted("the writer's withdrawal")
    for number, claim in enumerate(readers):
        assert not await last.looks()
        await (a, b)[number % 2].leave(claim)
    await last.granted("the withdrawal of the last reader")


@case(12, needs=(SHARED,))
async def a_writer_that_gives_up_lets_the_readers_behind_it_in(env: Env) -> None:
    """A reader that waits behind a waiting writer is woken when that writer gives up."""
    a, b = await Party.join(env), await Party.join(env)
    roster = env.name()
    await a.entered(roster, shared=True)
    writer = await a.entered(roster)
    waiters = [await b.wait_for(await b.entered(roster, shared=True)) for _ in range(2)]
    await a.leave(writer)
    for waiter in waiters:
        await waiter.granted("a waiting writer's withdrawal")
