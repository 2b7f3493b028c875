"""The page of the calls and drivers is up to date, and complete."""

from __future__ import annotations

from pathlib import Path

from tenure.testing.backends import BACKENDS

from . import table
from .suite import CASES

PAGE = Path(__file__).parents[2] / "docs" / "compat-tooz.md"


def test_the_page_is_up_to_date() -> None:
    """The page says what the suite tests; `python -m compat.table` makes it anew."""
    assert PAGE.read_text() == table.render()


def test_every_call_has_a_row() -> None:
    """Whatever any driver of Tooz's implements is in the table, once."""
    rows = [row for case in CASES for row in case.rows]
    assert len(rows) == len(set(rows))
    calls = {call for implemented in table.implemented().values() for call in implemented}
    assert calls <= set(rows)


def test_nothing_that_tooz_can_do_is_refused_but_breaking_semaphores() -> None:
    """Where Tooz's driver has a call, Tenure's has it, too, save `break_` on ipc."""
    refused = {
        (backend.name, row)
        for backend in BACKENDS
        for case in CASES
        for row in case.rows
        if not case.applies(backend)
        and backend.name in table.implemented()
        and row in table.implemented()[backend.name]
    }
    assert refused == {("ipc", "lock.break_")}
