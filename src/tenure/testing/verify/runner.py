"""The runner itself: from the name of a driver, or a URL, to evidence and a level."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ..._model import Traits
from ..._url import Url
from ...drivers import registry
from ...errors import InvalidArgument, Unavailable
from ...policy import index
from ...policy.evidence import Check, Evidence, Judgement, Provenance, Run
from ...policy.home import suite_hash
from ...policy.levels import POLICY, evaluate
from . import cells, checks, files, suite
from ._coverage import Coverage
from ._crew import Source, Up, Worker, WorkFailed
from ._rounds import Rounds
from ._tasks import NOT_RUN
from .events import Began, Checked, Found, Hear, Left, Measured, Standing
from .subject import Subject, named, of_url
from .suite import Suite

SEEDS = 2**32


class Options(NamedTuple):
    """How to run.

    profiles: these only, of those that are claimed; all, if empty.
    experiments: whether to run any.
    out: where to write evidence to; None for the default.
    jobs: how many cases to run at a time, each with a backend of its own.
    seed: what experiments draw their chances from; None for any.
    """

    profiles: Sequence[str] = ()
    experiments: bool = True
    out: Path | None = None
    jobs: int = 1
    seed: int | None = None
    suite: Suite = Suite()

    @property
    def partial(self) -> bool:
        """Whether something is left out: evidence of that is not put where all of it belongs."""
        return bool(self.profiles) or not self.experiments or self.suite != Suite()


class _Booted(NamedTuple):
    """A source, and what its backend said of itself."""

    source: Source
    up: Up


def verify_driver(name: str, strategy: str | None, options: Options, hear: Hear) -> list[Found]:
    """Verify a driver, or one strategy of it, on backends that are started for it.

    Raises `InvalidArgument` for a name that is none, `StorageError` if evidence cannot be
    written where it should, both before any work; `Unavailable` if no recipe brings up a
    backend.
    """
    subjects = named(name, strategy)
    where = None if options.partial and options.out is None else files.Files(options.out)
    for subject in subjects:
        _profiles(subject, options)
    if where is not None:
        where.check(subjects, sum(len(each.strategy.provision) for each in subjects))
    found: list[Found] = []
    for subject in subjects:
        found += _strategy(subject, where, options, hear)
    evidence = subjects[0].home.evidence
    if where is not None and index.same(where.folder(subjects[0]), evidence):
        index.refresh(evidence)  # it is what `connect` reads
    _tell_standing(subjects, found, options, hear)
    return found


def verify_url(url: str, options: Options, hear: Hear) -> list[Found]:
    """Verify the driver of a URL on that very server, and leave nothing there.

    Evidence is written only where `options.out` says. Raises what `connect` raises.
    """
    parsed = Url.parse(url)
    traits = registry.find(parsed).traits
    subject = of_url(parsed)
    _profiles(subject, options)
    where = None if options.out is None else files.Files(options.out)
    if where is not None:
        where.check([subject], 1)
    booted = _boot(Source(url=url))
    if isinstance(booted, str):
        raise Unavailable(f"{parsed}: {booted}")
    work = _Work(subject, booted, options, hear, "self-reported")
    with contextlib.ExitStack() as stack:
        if traits.scope != "threads":
            stack.callback(lambda: [hear(Left(each)) for each in work.rounds.sweep()])
        evidence = work.done({}, [])
    found = [_finished(evidence, where, subject, hear)]
    _tell_standing([subject], found, options, hear)
    return found


def _strategy(
    subject: Subject, where: files.Files | None, options: Options, hear: Hear
) -> Iterator[Found]:
    subject.backends()  # a recipe that names no class is told before anything is started
    booted, down = list[_Booted](), list[str]()
    for recipe in subject.strategy.provision:
        each = _boot(Source(recipe=recipe))
        if isinstance(each, str):
            down.append(f"{recipe} brought up no backend: {each}")
        else:
            booted.append(each)
    if not booted:
        raise Unavailable(f"{subject.name}: {'; '.join(down) or 'no recipe'}")
    recipes: dict[str, str] = {}
    for each in booted:
        name, recipe = cells.cell(each.up.server).name, each.source.recipe
        if recipes.setdefault(name, recipe) != recipe:
            raise InvalidArgument(
                f"{subject.name}: {recipes[name]} and {recipe} bring up the same cell, {name}; "
                "evidence of one would take the place of the other's"
            )
    for each in booted:
        seconds = f"{each.source.recipe.rpartition(':')[2]} was up in {each.up.seconds:.1f} s"
        e2 = Check(not down, "; ".join(down) or seconds)
        path = where.path(subject, cells.cell(each.up.server)) if where else None
        if path is not None:
            files.old(path)  # one that cannot be read is told now, and not after all the work
        provenance: Provenance = "in-tree" if subject.in_tree else "self-reported"
        work = _Work(subject, each, options, hear, provenance)
        yield _finished(work.done({"E2": e2}, down), where, subject, hear)


def _boot(source: Source) -> _Booted | str:
    """Start a backend once, to see that it can be; or why it cannot."""
    worker = Worker(source)
    try:
        return _Booted(source, worker.up())
    except WorkFailed as error:
        return str(error)
    finally:
        worker.close()


class _Work:
    """The work on one cell."""

    def __init__(
        self,
        subject: Subject,
        booted: _Booted,
        options: Options,
        hear: Hear,
        provenance: Provenance,
    ) -> None:
        self._subject = subject
        self._booted = booted
        self._options = options
        self._hear = hear
        self._provenance = provenance
        self._cell = cells.cell(booted.up.server)
        self._sources = subject.home.sources(subject.manifest)
        self._coverage = Coverage(self._sources)
        seed = random.randrange(SEEDS) if options.seed is None else options.seed
        self.rounds = Rounds(booted.source, options.jobs, self._coverage, seed)

    def done(self, known: Mapping[str, Check], down: Sequence[str]) -> Evidence:
        """Do all of it. `known` are checks that were made before, `down` recipes that failed."""
        subject, options, hear = self._subject, self._options, self._hear
        strategy, manifest = subject.strategy, subject.manifest
        began, started = time.monotonic(), cells.now()
        commit, dirty = cells.commit(subject.root)
        hashes = subject.home.source_hash(manifest), suite_hash()
        traits = _traits(subject, self._booted.source)
        plan = suite.planned(options.suite, _profiles(subject, options), traits)
        chosen = suite.tried(options.suite) if options.experiments else []
        hear(Began(manifest.driver, strategy.name, self._cell, len(plan), len(chosen)))
        with contextlib.closing(self._coverage):
            tests = self.rounds.cases(plan, hear)
            probed = self.rounds.probes(list(strategy.unsupported))
            judgements = self.rounds.experiments(chosen, strategy.claims, hear)
            if options.suite.unit_tests and not options.profiles:
                self._coverage.unit_tests(subject.root, manifest.unit_tests)
            coverage = self._coverage.percent()
        benchmark = self.rounds.benchmark(options.suite.contenders)
        hear(Measured(benchmark, coverage))
        found = dict(known) | {"E6": probed} | self._checks(down)
        for id, check in sorted(found.items()):
            hear(Checked(id, check))
        if hashes != (subject.home.source_hash(manifest), suite_hash()):
            # Each worker has imported what was there when it began: nobody can say what ran.
            raise Unavailable(
                f"{subject.name}: the driver's code, or the suite's, was changed while it was "
                "verified; nothing was written. Run it again, and leave the files alone meanwhile"
            )
        return Evidence(
            driver=manifest.driver,
            strategy=strategy.name,
            entry_point=subject.entry.target,
            driver_version=subject.version,
            source_hash=hashes[0],
            suite_version=suite.SUITE_VERSION,
            suite_hash=hashes[1],
            cell=self._cell,
            run=Run(commit, dirty, started, round(time.monotonic() - began, 1), voting=False),
            tests=tuple(tests),
            characteristics=tuple(judgements),
            checks=found,
            coverage_percent=coverage,
            benchmark=benchmark,
            provenance=self._provenance,
            planned=suite.counts(strategy, traits),
        )

    def _checks(self, down: Sequence[str]) -> dict[str, Check]:
        subject, rounds = self._subject, self.rounds

        def on_it(url: str) -> dict[str, Check]:
            found = {"P3": checks.quick_start(subject, url, rounds.namespace())}
            if self._options.suite.programs:
                found["S4"] = checks.programs(subject, url, rounds.namespace)
            return found

        found = {"E4": checks.unit_tests(subject), "E5": checks.page(subject)}
        if not self._booted.source.url:
            found["P6"] = checks.alive(subject, down)
        try:
            return found | rounds.with_url(on_it)
        except WorkFailed as error:
            return found | {id: Check(False, f"no backend: {error}") for id in ("P3", "S4")}


def _traits(subject: Subject, source: Source) -> Traits:
    if source.url:
        return registry.find(Url.parse(source.url)).traits
    recipes = dict(zip(subject.strategy.provision, subject.backends(), strict=True))
    return recipes[source.recipe].traits()


def _profiles(subject: Subject, options: Options) -> Collection[str]:
    """The profiles to run; `InvalidArgument` for one that the strategy does not claim."""
    claimed = subject.strategy.profiles
    for each in options.profiles:
        if each not in claimed:
            raise InvalidArgument(
                f"{subject.name} does not claim the profile {each!r}; it claims"
                f" {', '.join(claimed)}"
            )
    return options.profiles or claimed


def _finished(evidence: Evidence, where: files.Files | None, subject: Subject, hear: Hear) -> Found:
    path = None
    if where is not None:
        path = where.path(subject, evidence.cell)
        evidence = files.carried(evidence, files.old(path))
        files.write(path, evidence)
    found = Found(evidence, path, tuple(failures(evidence, subject)))
    hear(found)
    return found


def failures(evidence: Evidence, subject: Subject) -> Iterator[str]:
    """What was claimed, and was found not to hold.

    On somebody's own server, what could not be tried there is no failure.
    """
    ours = "E2" in evidence.checks
    for test in evidence.tests:
        if test.outcome != "passed" and (ours or not test.detail.startswith(NOT_RUN)):
            yield f"{test.case} ({test.runtime})"
    for judgement in evidence.characteristics:
        if judgement.characteristic in subject.strategy.claims and _broken(judgement, ours):
            yield f"{judgement.characteristic} {judgement.verdict}"
    for id in ("E2", "E6"):
        if id in evidence.checks and not evidence.checks[id].holds:
            yield f"{id}: {evidence.checks[id].detail}"


def _broken(judgement: Judgement, ours: bool) -> bool:
    return judgement.verdict == "refuted" or (ours and judgement.verdict != "corroborated")


def _tell_standing(
    subjects: Sequence[Subject], found: Sequence[Found], options: Options, hear: Hear
) -> None:
    """What all of it amounts to, with what was known before and is not about the same cells."""
    subject, new = subjects[0], [each.evidence for each in found]
    written = all(each.path is not None for each in found) and options.out is None
    record = subject.home.record()
    places = {(each.strategy, each.cell.name) for each in new}
    kept = [each for each in record.evidence if (each.strategy, each.cell.name) not in places]
    record = record._replace(evidence=tuple(kept + new)) if not written else record
    assessment = evaluate(subject.manifest, record, POLICY, datetime.now(UTC).date())
    hear(Standing(assessment, tuple(each.strategy.name for each in subjects)))
