"""Records, which outlive every session, and watchers of rosters and records."""

from __future__ import annotations

import functools
from typing import Any

from ... import _names
from ..._model import Record
from ._base import Env, case
from ._party import Bell, Party
from .basic import HOSTILE_NAMES

# -- records -----------------------------------------------------------------------------------


@case(5)
async def a_record_is_written_by_compare_and_set(env: Env) -> None:
    """A record is written only by who names its version, and begun only where there is none."""
    a, b = await Party.join(env), await Party.join(env)
    name = env.name()
    assert await a.driver.recall(name) is None
    first = await a.driver.record(name, "one", None)
    assert first is not None
    assert await b.driver.recall(name) == Record("one", first)
    assert await b.driver.record(name, "two", None) is None, "a record was begun twice"
    second = await b.driver.record(name, "two", first)
    assert second is not None
    assert await a.driver.record(name, "three", first) is None, "an old version was written over"
    assert await a.driver.record(name, None, first) is None, "an old version was deleted"
    assert await a.driver.recall(name) == Record("two", second)
    same = await a.driver.record(name, "two", second)
    assert same not in (None, second), "a write of the same text is a write"
    assert await a.driver.record(name, None, same) is not None
    assert await b.driver.recall(name) is None


@case(9)
async def a_version_is_never_used_twice(env: Env) -> None:
    """Also over deletion and a new beginning, no old version can be written over."""
    a, b = await Party.join(env), await Party.join(env)
    name = env.name()
    versions: list[Any] = []
    for number in range(4):
        begun = await (a, b)[number % 2].driver.record(name, "same", None)
        written = await a.driver.record(name, "same", begun)
        for old in versions:
            assert await b.driver.record(name, "stale", old) is None
            assert await b.driver.record(name, None, old) is None
        for version in (begun, written):
            assert version is not None
            assert version not in versions
            versions.append(version)
        assert await b.driver.recall(name) == Record("same", written)
        deleted = await b.driver.record(name, None, written)
        assert deleted is not None
        assert await a.driver.record(name, "stale", written) is None, "what is deleted was written"
        assert await a.driver.recall(name) is None
        versions.append(deleted)


@case(13)
async def eight_writers_of_a_record_count_right(env: Env) -> None:
    """Eight writers that add to a number in a record, each reading again when it was beaten, lose
    nothing."""
    parties = [await Party.join(env) for _ in range(4)]
    name, times = env.name(), 5

    async def count(party: Party) -> None:
        done = 0
        while done < times:
            record = await party.driver.recall(name)
            text, version = record or ("0", None)
            await env.pause(0)
            if await party.driver.record(name, str(int(text) + 1), version) is not None:
                done += 1

    tasks = [env.spawn(functools.partial(count, party)) for party in parties * 2]
    for task in tasks:
        await task.result()
    record = await parties[0].driver.recall(name)
    assert record is not None
    assert record.text == str(8 * times)


@case(13)
async def one_of_those_who_race_begins_a_record(env: Env) -> None:
    """Of eight who begin the same record at once, one does; of eight who delete it, one does."""
    parties = [await Party.join(env) for _ in range(4)]
    name = env.name()

    async def race(text: str | None, version: Any) -> list[Any]:
        works = [
            functools.partial(party.driver.record, name, text and f"{text} {number}", version)
            for number, party in enumerate(parties * 2)
        ]
        tasks = [env.spawn(work) for work in works]
        results = [await task.result() for task in tasks]
        return [number for number, each in enumerate(results) if each is not None]

    for _ in range(2):
        winners = await race("begun by", None)
        record = await parties[0].driver.recall(name)
        assert record is not None
        assert [f"begun by {winner}" for winner in winners] == [record.text]
        assert len(await race(None, record.version)) == 1
        assert await parties[1].driver.recall(name) is None


@case()
async def records_outlive_every_session(env: Env) -> None:
    """A record stays when the session ends that wrote it, and needs no claim in its roster."""
    a, b = await Party.join(env), await Party.join(env)
    name = env.name()
    version = await a.driver.record(name, "stays", None)
    await a.entered(name, "goes")
    await a.driver.end(a.session)
    assert await b.census(name) == ()
    assert await b.driver.recall(name) == Record("stays", version)
    assert name in await b.driver.recorded("")
    assert name not in await b.driver.rosters("")
    claim = await b.entered(name, "x")
    await b.leave(claim)
    assert await b.driver.recall(name) == Record("stays", version)
    assert await b.driver.record(name, None, version) is not None
    assert list(await b.driver.recorded(name)) == []


@case()
async def a_record_may_be_any_text(env: Env) -> None:
    """Nothing at all, line ends, quotes, emoji and 60,000 letters come back as they were."""
    a, b = await Party.join(env), await Party.join(env)
    name, version = env.name(), None
    texts = (
        "",
        "0",
        " \n\r\n\t ",
        "\x01\x1e\x1f\x7f",
        "'\"`\\ \\x00 %s {} $1 :a",
        "\U0001f512 e\u0301 \u00e9",
        "x" * 60_000,
        "\u20ac" * 20_000,
    )
    for text in texts:
        version = await a.driver.record(name, text, version)
        assert version is not None
        assert await b.driver.recall(name) == Record(text, version)


@case()
async def records_are_listed_by_prefix(env: Env) -> None:
    """Records with hostile names are listed as they are, sorted, and none is taken for another."""
    a, b = await Party.join(env), await Party.join(env)
    names = [_names.of("group", name) for name in HOSTILE_NAMES]
    versions = [await a.driver.record(name, name, None) for name in names]
    assert all(versions)
    others = sorted(["x@group/a", _names.of("latch", "a")])
    for other in others:
        assert await a.driver.record(other, "x", None) is not None
    assert list(await b.driver.recorded("@group/")) == sorted(names)
    for prefix in ("@group/a", "@group/*", "@group/[a]", "@group/%", "@group/a\x00", "@group/\\"):
        expected = sorted(name for name in names if name.startswith(prefix))
        assert list(await b.driver.recorded(prefix)) == expected, prefix
    for name, version in zip(names, versions, strict=True):
        assert await b.driver.recall(name) == Record(name, version)
        assert await b.driver.record(name, None, version) is not None
    assert list(await b.driver.recorded("")) == others
    assert list(await b.driver.rosters("")) == []


# -- watchers ----------------------------------------------------------------------------------


@case(12)
async def a_watcher_is_woken_by_every_change(env: Env) -> None:
    """Entry, change and end of a public claim, and each write of the record, wake a watcher that
    has no session."""
    a, watcher = await Party.join(env), await Party.join(env)
    roster = env.name()
    bell = await watcher.watch(roster)
    claim = await a.entered(roster, "one")
    await bell.heard("the entry of a public claim")
    amended = await a.driver.amend(claim, "two")
    await bell.heard("an amendment")
    assert await watcher.driver.census(roster) == (amended,)
    await a.leave(amended)
    await bell.heard("a withdrawal")
    version = await a.driver.record(roster, "one", None)
    await bell.heard("the first write of the record")
    version = await a.driver.record(roster, "two", version)
    await bell.heard("a write of the record")
    assert await a.driver.record(roster, None, version) is not None
    await bell.heard("the record's deletion")
    bell.stop()


@case(12)
async def a_watcher_hears_what_comes_at_once(env: Env) -> None:
    """Whoever listens hears of a change that another client makes right afterwards."""
    a, watcher = await Party.join(env), await Party.join(env)
    for _ in range(5):
        roster = env.name()
        bell = await watcher.watch(roster)
        await a.entered(roster, "x")
        await bell.heard("an entry right after the listening")
        bell.stop()


@case(12)
async def a_watcher_is_woken_by_the_end_of_a_session(env: Env) -> None:
    """The end of a session that has a public claim wakes the roster's watchers, wherever it
    stands."""
    a, b, watcher = await Party.join(env), await Party.join(env), await Party.join(env)
    roster = env.name()
    first = await a.entered(roster, "x")
    await b.entered(roster, "y")
    last = await a.entered(roster, "z")
    bell = await watcher.watch(roster)
    await b.driver.end(b.session)
    await bell.heard("the end of a session")
    assert await watcher.census(roster) == (first.id, last.id)


@case(12)
async def every_watcher_is_woken(env: Env) -> None:
    """Several watchers of one roster, of one client and of others, all hear; who has stopped does
    not."""
    a, b = await Party.join(env), await Party.join(env)
    roster = env.name()
    bells = [await party.watch(roster) for party in (a, a, b, b)]
    claim = await a.entered(roster, "x")
    for bell in bells:
        await bell.heard("an entry")
    stopped = bells[::2]
    for bell in stopped:
        bell.stop()
    counts = [bell.rung for bell in stopped]
    await b.driver.amend(claim, "y")
    await _all_heard(bells[1::2], "an amendment")
    assert [bell.rung for bell in stopped] == counts
    for bell in bells:
        bell.stop()
    again = await b.watch(roster)
    await a.leave(claim)
    await again.heard("a withdrawal, after all had stopped")


@case(12)
async def a_watcher_sleeps_through_what_is_not_its_own(env: Env) -> None:
    """Changes of other rosters, also of those whose names begin alike, wake nobody here."""
    a, watcher = await Party.join(env), await Party.join(env)
    group = _names.of("group", "a")
    others = (group + "/b", group[:-1], group + "\x00", _names.of("leader", "a"), "a")
    quiet = await watcher.watch(group)
    loud = [await watcher.watch(other) for other in others]
    count = quiet.rung
    for other, bell in zip(others, loud, strict=True):
        claim = await a.entered(other, "x")
        await a.driver.amend(claim, "y")
        await a.driver.record(other, "x", None)
        await bell.heard("an entry")
    # One in vain is no fault: a new connection, say, wakes everybody.
    assert quiet.rung <= count + 1, f"woken {quiet.rung - count} times by others"
    await a.entered(group, "x")
    await quiet.heard("an entry of its own")


async def _all_heard(bells: list[Bell], what: str) -> None:
    for bell in bells:
        await bell.heard(what)
