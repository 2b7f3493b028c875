"""The pages that are made from manifests and evidence, and what they say; and the index.

    python -m tenure.policy.pages            writes them
    python -m tenure.policy.pages --check    says which are stale, with exit code 1

A page of a driver and the front page are written by hand, but for what stands between two
marks. Nothing in a page depends on the day on which it is made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from . import deprecation, index
from .badges import badge
from .characteristics import Characteristic
from .evidence import Evidence
from .home import built_in
from .levels import POLICY, Level, Standing, StrategyStanding, Unmet
from .manifest import Strategy
from .requirements import REQUIREMENTS
from .survey import Surveyed, lifts, matrix, survey, told

BEGIN = "<!-- made from the evidence, by scripts/pages: begin -->\n"
END = "<!-- made from the evidence, by scripts/pages: end -->\n"

_MADE = "This page is made by `scripts/pages` from the manifests and the evidence in the tree."


class Unmarked(ValueError):
    """A page that should have a part made from the evidence has no marks for it."""


def pages(root: Path, found: Sequence[Surveyed]) -> dict[Path, str]:
    """Every page that is made, and every page with a part that is, by its path."""
    policy = root / "docs" / "policy"
    made = {
        policy / "matrix.md": matrix_page(found),
        policy / "ledger.md": ledger_page(found),
        policy / "requirements.md": requirements_page(found),
        policy / "deprecations.md": deprecations_page(found),
    }
    for name, part in (("README.md", front), ("docs/guides/choose-a-backend.md", choice)):
        made[root / name] = _between(root / name, part(found))
    for folder in {each.home.evidence for each in found}:
        known = [index.known(each.home) for each in found if each.home.evidence == folder]
        made[folder / "index.json"] = index.render(index.build(known))
    for each in found:
        name = each.manifest.driver
        made[policy / "badges" / f"{name}.svg"] = badge(name, each.assessment.level)
        page = root / each.manifest.page
        made[page] = _between(page, standing(each))
    return made


def _between(path: Path, part: str) -> str:
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Unmarked(f"{path}: a part of it is made, and has no place: write {BEGIN}{END}")
    return f"{before}{BEGIN}\n{part.strip()}\n\n{END}{after}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(each.replace('|', chr(92) + '|') for each in cells)} |"


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield _row(*row)
        if number == 0:
            yield _row(*("---" for _ in row))


def _page(title: str, *parts: Iterable[str] | str) -> str:
    lines = [f"# {title}", "", _MADE]
    for part in parts:
        lines += ["", *([part] if isinstance(part, str) else part)]
    return "\n".join(lines) + "\n"


# -- what would lift a driver ------------------------------------------------------------------


def front(found: Sequence[Surveyed]) -> str:
    """The front page's table: how each driver stands, and what would lift it."""
    rows = [("driver", "level", "what would lift it")]
    for each in found:
        for strategy, stands in each.strategies():
            goal, missing = lifts(stands)
            what = f"for {_named(goal)}: {_short(missing)}" if missing else "nothing is missing"
            rows.append((each.title(strategy), _named(stands.level), what))
    return "\n".join(_table(rows))


def _named(level: Level) -> str:
    return "technical preview" if level is Level.PREVIEW else str(level)


def _short(missing: Sequence[Unmet]) -> str:
    reasons: dict[str, str] = {}
    for unmet in missing:
        reasons.setdefault(unmet.requirement, unmet.reason)
    return "; ".join(f"{reason} ({id})" for id, reason in reasons.items())


def standing(each: Surveyed) -> str:
    """A driver page's part: its levels, what it lacks, and what its experiments found."""
    lines = ["## Standing", ""]
    name = each.manifest.driver
    today = each.assessment.today
    version = deprecation.version_of(each.manifest.schemes[0], outside=False)
    if banner := deprecation.banner(name, each.manifest.deprecation, version, today):
        lines += [banner]
    lines += [
        f"![{name}: {each.assessment.level}](../policy/badges/{name}.svg)",
        "",
        f"{name} is **{_named(each.assessment.level)}**, the lowest level over its profiles.",
        "Levels are computed from [evidence](../policy/matrix.md).",
    ]
    for strategy, stands in each.strategies():
        title = "As it comes" if strategy.is_default else f"With `{_choice(strategy.when)}`"
        lines += ["", f"### {title}: {_named(stands.level)}", ""]
        rows = [("profile", "level")]
        rows += [(profile, _named(of.level)) for profile, of in stands.profiles.items()]
        rows += [(profile, f"unsupported: {why}") for profile, why in strategy.unsupported.items()]
        lines += _table(rows)
        lines += ["", *_why_not(stands.profiles)]
        lines += ["", *_table(_experiments(strategy, stands))]
    return "\n".join(lines)


def _choice(when: Mapping[str, str]) -> str:
    return "?" + "&".join(f"{key}={value}" for key, value in when.items())


def _why_not(profiles: Mapping[str, Standing]) -> Iterator[str]:
    missing: dict[tuple[str, str, str], list[str]] = {}
    for profile, of in profiles.items():
        for unmet in of.unmet:
            key = unmet.requirement, unmet.reason, unmet.waived
            missing.setdefault(key, []).append(profile)
    if not missing:
        yield "Nothing is missing."
        return
    yield "Why not stable:"
    yield ""
    for (id, reason, waived), where in sorted(missing.items(), key=_by_level):
        scope = "" if len(where) == len(profiles) else f" ({', '.join(where)})"
        let_go = f" Waived: {waived}." if waived else ""
        yield f"- [{id}](../policy/requirements.md), {_asked(id)}: {reason}{scope}.{let_go}"


def _by_level(item: tuple[tuple[str, str, str], list[str]]) -> tuple[int, str]:
    id = item[0][0]
    return REQUIREMENTS[id].level, id


def _asked(id: str) -> str:
    return f"for {_named(REQUIREMENTS[id].level)}"


def _experiments(strategy: Strategy, stands: StrategyStanding) -> Iterator[tuple[str, str]]:
    yield "characteristic", "found"
    for characteristic in Characteristic:
        yield f"`{characteristic}`", told(strategy, stands, characteristic)


def choice(found: Sequence[Surveyed]) -> str:
    """The guide's table: for each characteristic, whose experiments said what of it."""
    rows: list[tuple[str, ...]] = [
        ("whoever needs that", "finds it corroborated for", "and refuted for")
    ]
    for characteristic in Characteristic:
        by: dict[str | None, list[str]] = {}
        for each in found:
            for strategy, stands in each.strategies():
                verdict = stands.ledger[characteristic].verdict
                by.setdefault(verdict, []).append(each.title(strategy))
        if "corroborated" in by or "refuted" in by:
            need = characteristic.meaning.rstrip(".")
            need = f"{need[0].lower()}{need[1:]} (`{characteristic}`)"
            rows.append((need, *("; ".join(by.get(v, ())) for v in ("corroborated", "refuted"))))
    return "\n".join(_table(rows))


# -- the pages that are made as a whole --------------------------------------------------------


def matrix_page(found: Sequence[Surveyed]) -> str:
    """The compatibility matrix."""
    head, *rows = matrix(found)
    levels = [("driver", "backends", *head[3:])]
    for each in found:
        for strategy, stands in each.strategies():
            cells = [
                _named(stands.profiles[profile].level)
                if profile in stands.profiles
                else "unsupported"
                for profile in head[3:]
            ]
            backends = sorted({support.backend.text for support in strategy.supports})
            levels.append((each.title(strategy), "; ".join(backends), *cells))
    return _page(
        "Compatibility matrix",
        "Which uses of which driver have been seen to work, on what. The level of a driver is the "
        "lowest over its profiles; see [the requirements](requirements.md).",
        "## Levels",
        _table(levels),
        "## What passed",
        "So many of the runs of a profile's cases have passed, with threads and with asyncio, in "
        "the newest run of each cell. A question mark is no evidence, a dash is unsupported.",
        _table([head, *rows]),
        "## Where and when",
        _table(_origins(found)),
    )


def _origins(found: Sequence[Surveyed]) -> Iterator[tuple[str, ...]]:
    yield "driver", "cell", "run", "commit", "seconds", "coverage", "p99 with 1, 16, 64 contenders"
    for each in found:
        for strategy, _ in each.strategies():
            for evidence in each.record.cells(strategy.name):
                marks = evidence.benchmark
                p99 = [marks.get(f"p99_seconds_{count}") for count in POLICY.p99_seconds_max]
                times = [f"{1000 * each:.3g} ms" if each is not None else "?" for each in p99]
                covered = evidence.coverage_percent
                yield (
                    each.title(strategy),
                    _where(evidence),
                    str(evidence.started.date()),
                    evidence.run.commit[:7] + (", changed" if evidence.run.dirty else ""),
                    f"{evidence.run.seconds:.0f}",
                    "?" if covered is None else f"{covered:.0f} %",
                    ", ".join(times),
                )


def _where(evidence: Evidence) -> str:
    cell = evidence.cell
    return f"{cell.os}, Python {cell.python}, {cell.backend} {cell.backend_version}"


def ledger_page(found: Sequence[Surveyed]) -> str:
    """The ledger of characteristics: claimed, corroborated, refuted."""
    meanings = [("characteristic", "it promises"), *((f"`{c}`", c.meaning) for c in Characteristic)]
    titles = [each.title(s) for each in found for s, _ in each.strategies()]
    rows = [("characteristic", *titles)]
    for characteristic in Characteristic:
        cells = [
            told(s, stands, characteristic) for each in found for s, stands in each.strategies()
        ]
        rows.append((f"`{characteristic}`", *cells))
    return _page(
        "Ledger of characteristics",
        "What each driver claims, and what experiments made of it. An experiment runs whatever is "
        "claimed. *Corroborated* means that it was not refuted in so many trials under faults that "
        "were seen to bite; nothing here is proven. A claim that was refuted is withdrawn.",
        _table(meanings),
        "## The ledger",
        _table(rows),
        "## Refuted",
        _refuted(found),
        "## Untestable",
        _untestable(found),
    )


def _refuted(found: Sequence[Surveyed]) -> Iterator[str]:
    yield "What refutes each, so that it can be followed. Who claimed it once no longer does."
    for each in found:
        for strategy, stands in each.strategies():
            withdrawn = {line.characteristic: line for line in strategy.withdrawn}
            for characteristic, line in stands.ledger.items():
                if line.verdict != "refuted" or line.judgement is None:
                    continue
                of = line.judgement
                was = withdrawn.get(characteristic)
                claim = f"Claimed once, withdrawn on {was.on}: {was.reason}" if was else ""
                if line.claimed:
                    claim = "It is claimed."
                yield ""
                yield f"### {each.title(strategy)}: {characteristic}"
                yield ""
                yield claim or "It was never claimed."
                yield f"Experiment `{of.experiment}`, {line.cell},"
                yield f"seed {of.seed}, {of.trials} trials in {of.seconds:.1f} s."
                yield ""
                yield "```text"
                yield of.counterexample
                yield "```"


def _untestable(found: Sequence[Surveyed]) -> Iterator[str]:
    reasons: dict[tuple[Characteristic, str], list[str]] = {}
    for each in found:
        for strategy, stands in each.strategies():
            for characteristic, line in stands.ledger.items():
                if line.verdict == "untestable" and line.judgement is not None:
                    key = characteristic, line.judgement.reason
                    reasons.setdefault(key, []).append(each.title(strategy))
    yield from _table(
        [
            ("characteristic", "why", "drivers"),
            *((f"`{c}`", why, ", ".join(where)) for (c, why), where in sorted(reasons.items())),
        ]
    )


def requirements_page(found: Sequence[Surveyed]) -> str:
    """The requirements, with the sentences of the founding documents that they serve."""
    rows = [("id", "level", "holds when", "serves", "met by")]
    whole = sum(len(s.profiles) for each in found for s in each.manifest.strategies)
    for id, each in REQUIREMENTS.items():
        unmet = sum(
            any(one.requirement == id for one in of.unmet)
            for driver in found
            for _, stands in driver.strategies()
            for of in stands.profiles.values()
        )
        serves = f"{each.document}: \N{LEFT DOUBLE QUOTATION MARK}{each.sentence}"
        serves += "\N{RIGHT DOUBLE QUOTATION MARK}"
        met = f"{whole - unmet} of {whole}"
        rows.append((id, _named(each.level), each.text, serves, met))
    return _page(
        "Requirements",
        "What a driver must meet for each level. Levels are inclusive. Each requirement is a "
        "predicate in `src/tenure/policy/requirements.py` that a program decides, for each profile "
        "of each strategy; the last column counts those.",
        _table(rows),
        "Requirements that no program decides yet: 0.",
    )


def deprecations_page(found: Sequence[Surveyed]) -> str:
    """The calendar of deprecations."""
    rows = [("driver", "since", "removed in", "use instead", "why")]
    for each in found:
        of = each.manifest.deprecation
        if of is not None:
            since = f"{of.since} ({of.since_date})"
            rows.append((each.manifest.driver, since, of.remove_in, of.replacement, of.reason))
    lines = list(_table(rows)) if len(rows) > 1 else ["No driver is deprecated."]
    return _page("Deprecation calendar", lines)


# -- the command -------------------------------------------------------------------------------


def write(made: Mapping[Path, str]) -> None:
    """Write what has changed."""
    for path in stale(made):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path], encoding="utf-8")


def stale(made: Mapping[Path, str]) -> list[Path]:
    """Those pages that do not say what they should."""
    return [
        path
        for path, text in made.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the pages of a checkout, or check them."""
    parser = argparse.ArgumentParser(
        prog="scripts/pages", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="only say which pages are stale")
    given = parser.parse_args(arguments)
    root = Path(__file__).parents[3]
    made = pages(root, survey(found=built_in()))
    if not given.check:
        write(made)
        return 0
    found = stale(made)
    for path in found:
        sys.stderr.write(f"stale: {path.relative_to(root)}; scripts/pages makes it anew\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
