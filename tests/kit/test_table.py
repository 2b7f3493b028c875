"""The table of conformance says what was recorded, and nothing more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tenure.testing.backends import BACKENDS, FileBackend, MemoryBackend
from tenure.testing.kit import CASES, Case, table


def named(name: str) -> Case:
    """The case of that name."""
    return next(case for case in CASES if case.name == name)


def everything() -> set[table.Result]:
    """The results of a run in which everything passed."""
    return {
        (backend.name, case.name, flavour)
        for backend in BACKENDS
        for case in CASES
        for flavour in case.flavours
        if case.unmet(backend.traits()) is None
    }


def test_every_rule_has_a_case() -> None:
    """Each of the thirteen rules is defended by some case, and no case names another rule."""
    assert list(table.RULES) == list(range(1, 14))
    assert {rule for case in CASES for rule in case.rules} == set(table.RULES)


def test_a_rule_without_a_case_is_refused() -> None:
    """No page is made while a rule is defended by nobody."""
    with pytest.raises(ValueError, match="rule 10"):
        table.render(set(), cases=[case for case in CASES if 10 not in case.rules])


def test_cells() -> None:
    """A mark for each run that passed, a cross for each that did not, else the reason."""
    everywhere, asyncio_only = named("tokens_rise"), named("the_body_is_cancelled_on_loss")
    results = {("memory", "tokens_rise", "asyncio"), ("file", "tokens_rise", "thread")}
    assert table.cell(everywhere, MemoryBackend, results) == "✗ ✓"
    assert table.cell(everywhere, FileBackend, results) == "✓ ✗"
    assert table.cell(everywhere, FileBackend, everything()) == "✓ ✓"
    assert table.cell(asyncio_only, MemoryBackend, set()) == "✗"
    assert table.cell(asyncio_only, MemoryBackend, everything()) == "✓"
    restart = named("a_restart_of_the_server_is_survived")
    assert table.cell(restart, MemoryBackend, everything()) == "no server"


def test_the_page_is_whole() -> None:
    """Every case has one row, with its sentence, its rules and a cell for each driver."""
    page = table.render(everything())
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(CASES)
    for case in CASES:
        (row,) = (row for row in rows if row.startswith(f"| `{case.name}`"))
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert case.text in cells[0]
        assert cells[1] == ", ".join(map(str, case.rules))
        assert len(cells) == 2 + len(BACKENDS)
        assert "✗" not in row


def test_the_summary_counts_runs() -> None:
    """The first table tells how many of the runs that a driver's traits allow have passed."""
    records = [case for case in CASES if case.body.__module__.endswith(".records")]
    runs = sum(len(case.flavours) for case in records)
    found = {("memory", records[0].name, "asyncio"), ("memory", "another", "thread")}
    page = table.render(found, [MemoryBackend, FileBackend])
    title = "The roster contract: records and watchers"
    assert f"| {title} | 1 of {runs} | 0 of {runs} |" in page.splitlines()


def test_results_make_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command reads what the kit records; what it cannot read is an error."""
    results = tmp_path / "results.jsonl"
    lines = [
        json.dumps({"driver": driver, "case": case, "runtime": runtime}) + "\n"
        for driver, case, runtime in sorted(everything())
    ]
    results.write_text("".join(lines))
    assert table.main(["--results", str(results)]) == 0
    assert capsys.readouterr().out == table.render(everything())
    results.write_text("not JSON\n")
    assert table.main(["--results", str(results)]) == 1
    assert "line 1" in capsys.readouterr().err
