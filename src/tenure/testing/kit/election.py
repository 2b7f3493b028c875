"""Elections: one leader at a time, replaced when it goes, and seen by all."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Any

import tenure

from ..._runtime.thread import drive
from ._base import EXPIRES, OUTLIVES_CONNECTION, PROCESSES, SEES_DEATH, SERVER, Env, Task, case
from .processes import AT_ONCE_SECONDS_MAX, DIES_BY_TTL


async def _campaign(env: Env, client: Any, name: str, timeout: float = 20, **more: Any) -> Any:
    return await env(client.election(name).campaign(timeout, **more))


async def _candidate(env: Env, client: Any, name: str, timeout: float = 20) -> Task:
    """A campaign in the background, once it is listed."""
    task = env.spawn(functools.partial(_campaign, env, client, name, timeout))
    await _listed(env, client, name, client.owner)
    return task


async def _listed(env: Env, client: Any, name: str, owner: str) -> None:
    async def there() -> bool:
        waiting = await env(client.election(name).candidates())
        return owner in [each.owner for each in waiting]

    await _until(env, there, 10, f"{owner} to be a candidate")


async def _until(env: Env, condition: Any, seconds: float, what: str) -> None:
    give_up = tenure.now() + seconds
    while not await condition():
        assert tenure.now() < give_up, f"waited {seconds:g} s in vain for {what}"
        await env.pause(0.005)


async def _leads(env: Env, client: Any, name: str, term: Any) -> None:
    """Everybody reads that the term's holder leads."""
    leader = await env(client.election(name).leader())
    assert leader is not None
    assert (leader.owner, leader.token) == (term.owner, term.token), leader


class _Sight:
    """An observer in the background, and all that it has seen."""

    def __init__(self, env: Env, client: Any, name: str) -> None:
        self._env = env
        self.seen: list[Any] = []
        self._watch = client.election(name).observe()
        self._task = env.spawn(self._look)

    async def _look(self) -> None:
        while await self._env(self._watch.wait()):
            self.seen.append(self._watch.leader)

    async def until(self, what: Any, seconds: float) -> None:
        """Wait until the last that was seen is a leader's owner, or None."""

        def there() -> bool:
            last = self.seen[-1] if self.seen else ...
            return bool((last.owner if isinstance(last, tenure.Leader) else last) == what)

        await self._env.until(there, seconds, f"{what!r} to be seen last, not {self.seen}")

    async def close(self) -> list[Any]:
        """What was seen, in order; never the same twice in a row, and tokens rise."""
        await self._env(self._watch.close())
        await self._task.result()
        assert all(one != two for one, two in zip(self.seen, self.seen[1:], strict=False))
        tokens = [each.token for each in self.seen if each is not None]
        assert tokens == sorted(tokens), self.seen
        return [each and each.owner for each in self.seen]


@case(1, 9)
async def one_leads_and_is_seen(env: Env) -> None:
    """Who wins has a token, is read by all with its value, and leaves nothing when it resigns."""
    a, b = await env.connect(owner="a"), await env.connect(owner="b")
    name = env.name()
    election = b.election(name)
    before = await env.footprint()
    assert await env(election.leader()) is None
    old = 0
    for value in (None, {"port": 8080, "zone": "\u00fc\n\x00"}):
        term = await _campaign(env, a, name, value=value)
        assert term.held() and term.token > old
        old = term.token
        await _leads(env, b, name, term)
        assert (await env(election.leader())).value == term.value == value
        assert await env(election.try_campaign()) is None
        assert await env(election.candidates()) == ()
        await env(term.resign())
        assert not term.held()
        assert await env(election.leader()) is None
        assert await env.footprint() == before


@case()
async def a_value_is_published(env: Env) -> None:
    """What a leader publishes is read by all until it resigns; a value that cannot be is
    refused."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    term = await _campaign(env, a, name, value=1)
    for value in ([1, 2.5, None], "x" * 20_000, {"deep": [{"a": True}]}, None):
        await env(term.publish(value))
        leader = await env(b.election(name).leader())
        assert leader.value == term.value == value
    for bad in (float("nan"), b"bytes", {1: 2}, "x" * 70_000):
        try:
            await env(term.publish(bad))
            raise AssertionError(f"{str(bad)[:20]} was published")
        except tenure.InvalidArgument as error:
            assert "value" in str(error)
    assert term.held() and (await env(b.election(name).leader())).value is None
    await env(term.resign())
    try:
        await env(term.publish(1))
        raise AssertionError("published after the end")
    except tenure.LeaseLost:
        pass
    assert await env(b.election(name).leader()) is None


@case(1, 13)
async def twenty_candidates_one_leader(env: Env) -> None:
    """Of twenty candidates on five clients one leads at a time, and each leads once."""
    clients = [await env.connect() for _ in range(5)]
    name = env.name()
    before = await env.footprint()
    leading = 0
    tokens: list[int] = []

    async def stand(client: Any) -> None:
        nonlocal leading
        term = await _campaign(env, client, name, 60)
        leading += 1
        assert leading == 1, "two lead at once"
        assert not tokens or term.token > tokens[-1]
        tokens.append(term.token)
        await env.pause(0.001)
        assert term.held()
        leading -= 1
        await env(term.resign())

    tasks = [env.spawn(functools.partial(stand, clients[each % 5])) for each in range(20)]
    for task in tasks:
        await task.result(60)
    assert len(tokens) == 20
    assert await env(clients[0].election(name).leader()) is None
    await env.until_footprint(lambda count: count == before, 5, "nothing to be left")


@case(6)
async def a_campaign_that_ends_leaves_nothing(env: Env) -> None:
    """A campaign that timed out left no candidacy, no place in the queue and no post."""
    a, b = await env.connect(), await env.connect()
    name = env.name()
    term = await _campaign(env, a, name)
    before = await env.footprint()
    for timeout in (0, 0.1):
        try:
            await _campaign(env, b, name, timeout)
            raise AssertionError("two lead at once")
        except tenure.AcquireTimeout as error:
            assert name in str(error)
    await env.until_footprint(lambda count: count == before, 5, "the election to be as it was")
    assert await env(a.election(name).candidates()) == ()
    await env(term.resign())
    await env((await env(b.election(name).try_campaign())).resign())


@case(6, flavours=("asyncio",))
async def a_campaign_cancelled_at_every_await_leaves_nothing(env: Env) -> None:
    """A campaign that is cancelled after 0, 1, 2 … steps of the loop leaves nothing behind."""
    a, b = await env.connect(), await env.connect()
    free, taken = env.name(), env.name()
    blocker = await _campaign(env, b, taken)
    await env((await _campaign(env, a, free)).resign())
    base = await env.footprint()
    for name in (free, taken):
        for steps in range(40):
            task = asyncio.ensure_future(a.election(name).campaign(10))
            for _ in range(steps):
                await asyncio.sleep(0 if steps < 25 else 0.001)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await env((await task).resign())
    await env.until_footprint(lambda count: count == base, 10, "the backend to be clean")
    assert await env(b.election(free).leader()) is None
    await env(blocker.resign())
    for name in (free, taken):
        await env((await _campaign(env, b, name, 5)).resign())


@case()
async def observers_see_every_change_in_order(env: Env) -> None:
    """Two observers see each leader and each gap once, in order, and one callback the same."""
    a, b, c = [await env.connect(owner=each) for each in "abc"]
    name = env.name()
    called: list[Any] = []
    callback = await env(c.election(name).on_change(called.append))
    sights = [_Sight(env, client, name) for client in (b, c)]

    async def all_see(owner: str | None) -> None:
        for sight in sights:
            await sight.until(owner, 5)
        await env.until(
            lambda: called and (called[-1] and called[-1].owner) == owner, 5, "the callback"
        )

    await all_see(None)
    for client in (a, b, a):
        term = await _campaign(env, client, name)
        await all_see(client.owner)
        await env(term.resign())
        await all_see(None)
    expected = [None, "a", None, "b", None, "a", None]
    await env(callback.close())
    assert [each and each.owner for each in called] == expected
    for sight in sights:
        assert await sight.close() == expected


@case()
async def fast_changes_are_seen_in_order(env: Env) -> None:
    """Leaders that change faster than one can look are seen in order, and the last one always."""
    clients = [await env.connect(owner=each) for each in "abc"]
    name = env.name()
    sight = _Sight(env, clients[0], name)
    await sight.until(None, 5)
    for client in clients * 5:
        term = await _campaign(env, client, name)
        await env(term.publish(client.owner))
        await env(term.resign())
    term = await _campaign(env, clients[0], name, value="last")
    await env.until(lambda: sight.seen[-1] and sight.seen[-1].value == "last", 5, "the last")
    await sight.close()
    assert all(each is None or each.value in (None, each.owner, "last") for each in sight.seen)
    await env(term.resign())


@case()
async def who_is_chosen_leads(env: Env) -> None:
    """A leader that stands down hands over to the candidate that it names, by owner or by id,
    though others came before."""
    clients = [await env.connect(owner=each) for each in "abcd"]
    a, b, c, d = clients
    name = env.name()
    before = await env.footprint()
    term = await _campaign(env, a, name)
    tasks = {client.owner: await _candidate(env, client, name) for client in (b, c, d)}
    waiting = await env(a.election(name).candidates())
    assert [each.owner for each in waiting] == ["b", "c", "d"]
    assert await env(term.stand_down(to="d"))
    assert not term.held()
    second = await tasks.pop("d").result()
    await _leads(env, a, name, second)
    assert second.token > term.token
    third_id = next(each.id for each in waiting if each.owner == "c")
    assert await env(second.stand_down(to=third_id))
    third = await tasks.pop("c").result()
    await _leads(env, a, name, third)
    await env(third.resign())
    last = await tasks.pop("b").result()
    await env(last.resign())
    await env.until_footprint(lambda count: count == before, 5, "nothing to be left")


@case()
async def who_is_not_there_cannot_be_chosen(env: Env) -> None:
    """Standing down for somebody who does not wait is refused, and the leader still leads."""
    a, b = await env.connect(owner="a"), await env.connect(owner="b")
    name = env.name()
    term = await _campaign(env, a, name)
    task = await _candidate(env, b, name)
    for nobody in ("nobody", "a"):
        try:
            await env(term.stand_down(to=nobody))
            raise AssertionError("handed over to nobody")
        except tenure.CandidateNotFound as error:
            assert repr(nobody) in str(error) and "'b'" in str(error)
    term.check()
    await env(term.resign())
    await env((await task.result()).resign())


@case(timed=True)
async def who_is_chosen_and_gives_up_keeps_nobody_waiting(env: Env) -> None:
    """If the chosen candidate never takes the lead, the others stand aside for a bounded time."""
    a, b = await env.connect(owner="a"), await env.connect(owner="b")
    name = env.name()
    term = await _campaign(env, a, name)
    # A candidate that is listed, and never takes what it is given.
    session = env.session_of(a)
    life = await session.life()
    roster = "@candidate/" + name
    ghost = life.next_id()
    await session.driver.claim(life.id, roster, ghost, '{"since":1}', None)
    task = await _candidate(env, b, name)
    stood_down = env.spawn(lambda: env(term.stand_down(to=ghost, timeout=20)))
    await env.until(lambda: not term.held(), 5, "the leader to resign")
    await env.pause(0.1)
    assert not task.done(), "elected though another was chosen"
    assert await env(b.election(name).try_campaign()) is None
    await session.driver.withdraw(life.id, roster, ghost)
    second = await task.result(5)
    assert not await stood_down.result(5)
    # And if it stays in the list without ever leading.
    await session.driver.claim(life.id, roster, ghost + ".again", '{"since":1}', None)
    third = await _candidate(env, a, name)
    began = tenure.now()
    assert not await env(second.stand_down(to=ghost + ".again", timeout=0.3))
    assert 0.3 <= tenure.now() - began < 5
    await env((await third.result(5)).resign())
    await session.driver.withdraw(life.id, roster, ghost + ".again")


@case(9, needs=(PROCESSES, SEES_DEATH), timed=True)
async def a_killed_leader_is_replaced_at_once(env: Env) -> None:
    """After SIGKILL of the leader the next candidate leads at once, and observers see it."""
    await _killed(env, AT_ONCE_SECONDS_MAX)


@case(9, needs=(PROCESSES, DIES_BY_TTL), timed=True)
async def a_killed_leader_is_replaced_after_its_ttl(env: Env) -> None:
    """After SIGKILL of the leader the next candidate leads within the TTL plus one second."""
    await _killed(env, env.death + 1.0)


async def _killed(env: Env, seconds: float) -> None:
    a = await env.connect(owner="a")
    name = env.name()
    actor = await env.ready_actor(owner="actor")
    old = actor.do("campaign", name=name, value="first")["token"]
    sight = _Sight(env, a, name)
    await sight.until("actor", 5)
    task = await _candidate(env, a, name)
    actor.kill()
    killed = tenure.now()
    term = await task.result()
    assert tenure.now() - killed <= seconds, f"replaced after {tenure.now() - killed:.2f} s"
    assert term.token > old
    await _leads(env, a, name, term)
    await sight.until("a", 5)
    seen = await sight.close()
    assert seen in (["actor", "a"], ["actor", None, "a"]), seen
    await env(term.resign())


@case(9, needs=(PROCESSES,), timed=True)
async def who_is_chosen_and_killed_is_passed_over(env: Env) -> None:
    """If the chosen candidate is killed, the election has another leader soon."""
    a, b = await env.connect(owner="a"), await env.connect(owner="b")
    name = env.name()
    term = await _campaign(env, a, name)
    actor = await env.ready_actor(owner="actor")
    actor.send(do="campaign", name=name, timeout=30)
    await _listed(env, a, name, "actor")
    task = await _candidate(env, b, name)
    actor.stop()
    stood_down = env.spawn(lambda: env(term.stand_down(to="actor", timeout=30)))
    await env.until(lambda: not term.held(), 5, "the leader to resign")
    actor.kill()
    limit = AT_ONCE_SECONDS_MAX if env.traits.frees_on_death else env.death * 1.3 + 1.5
    killed = tenure.now()
    second = await task.result()
    assert tenure.now() - killed <= limit, f"after {tenure.now() - killed:.2f} s"
    assert not await stood_down.result()
    await env(second.resign())


@case(3, 4, 9, needs=(PROCESSES, EXPIRES, DIES_BY_TTL), timed=True)
async def a_paused_leader_is_fenced_and_knows(env: Env) -> None:
    """Stopped beyond its TTL, a leader is replaced; its first question on waking says so, and it
    can publish nothing."""
    actor = await env.ready_actor(owner="actor")
    name = env.name()
    old = actor.do("campaign", name=name, value="old")["token"]
    actor.stop()
    b = await env.connect(owner="b")
    term = await _campaign(env, b, name, env.ttl + 6, value="new")
    assert term.token > old, "the paused leader could not be fenced off"
    actor.send(do="state", name=name)
    actor.resume()
    state = actor.answer()
    assert not state["held"] and state["reason"], state
    assert actor.do("publish", name=name, value="late")["error"] == "LeaseLost"
    assert actor.do("release", name=name)["error"] == "LeaseLost"
    leader = await env(b.election(name).leader())
    assert (leader.owner, leader.value) == ("b", "new")
    await env(term.resign())


@case(3, 4, needs=(SERVER, OUTLIVES_CONNECTION), timed=True)
async def a_leader_cut_off_knows_before_another_leads(env: Env) -> None:
    """Cut off, a leader's term is lost by its deadline, and only then another's begins."""
    proxy = env.proxy()
    a, b = await env.connect(env.url_through(proxy), owner="a"), await env.connect(owner="b")
    name = env.name()
    term = await _campaign(env, a, name)
    lost: list[float] = []
    term.on_lost(lambda _: lost.append(tenure.now()))
    task = await _candidate(env, b, name)
    proxy.black_hole()
    second = await task.result(20)
    began = tenure.now()
    assert lost and lost[0] <= began, "two lead at once"
    assert not term.held() and second.token > term.token
    await _leads(env, b, name, second)
    proxy.heal()
    assert await env(b.election(name).try_campaign()) is None
    await env(second.resign())


@case(4)
async def work_is_run_by_the_leader_again(env: Env) -> None:
    """`run_as_leader` runs the work, again after a loss, and returns what it returned."""
    a, b = await env.connect(owner="a"), await env.connect(owner="b")
    name = env.name()
    terms: list[Any] = []
    cancelled: list[int] = []

    async def work(term: Any) -> str:
        terms.append(term)
        if len(terms) == 1:
            env.session_of(a).lose(term._life, "an experiment")
            try:
                await env(term.lost.wait(10))
                if env.flavour == "asyncio":
                    await asyncio.sleep(10)
            except asyncio.CancelledError:
                cancelled.append(term.token)
                raise
            term.check()
        assert term.held()
        return "done"

    def blocking(term: Any) -> str:
        return drive(work(term))

    chosen = work if env.flavour == "asyncio" else blocking
    result = await env.spawn(lambda: env(a.election(name).run_as_leader(chosen))).result()
    assert result == "done"
    first, second = terms
    assert not first.held() and second.token > first.token
    assert second.state is tenure.State.RELEASED
    assert len(cancelled) == (1 if env.flavour == "asyncio" else 0)
    await env((await _campaign(env, b, name, 5)).resign())
