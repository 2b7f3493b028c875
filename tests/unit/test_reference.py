"""The reference names everything that is public, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tenure
import tenure.aio
from tenure import errors

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def sections(page: str) -> dict[str, str]:
    """The page's sections by their headings."""
    parts = re.split(r"^## (.+)$", (REFERENCE / page).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def first_cells(section: str) -> set[str]:
    """The names in the first column of a section's table."""
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`@?([a-z_]+)[`(=]", row)}


def public(*kinds: type) -> set[str]:
    """The public members of the classes."""
    names = {name for kind in kinds for each in kind.__mro__ for name in vars(each)}
    return {name for name in names if not name.startswith("_")}


def test_every_name_has_a_section() -> None:
    """Whatever `tenure` exports is a section of the API's page or a line of the errors'."""
    exported = set(tenure.__all__) - set(errors.__all__)
    assert exported <= sections("api.md").keys()


@pytest.mark.parametrize(
    "name",
    [
        "Coordinator",
        "Lock",
        "Loss",
        "RWLock",
        "Semaphore",
        "Barrier",
        "Latch",
        "MultiLock",
        "MultiLease",
        "Election",
        "LeaderWatch",
        "Ring",
        "Claims",
        "HashRing",
    ],
)
def test_every_member_has_a_line(name: str) -> None:
    """The tables of members are complete for both APIs, and have no member that is not there."""
    real = public(getattr(tenure, name), getattr(tenure.aio, name, object))
    shown = first_cells(sections("api.md")[name])
    assert shown - {"with", "lock", "bool"} == real - {"lock"}


def test_every_member_of_a_term_has_a_line() -> None:
    """The table of a term has what a term adds to a lease."""
    real = public(tenure.Term, tenure.aio.Term) - public(tenure.Lease, tenure.aio.Lease)
    assert first_cells(sections("api.md")["Term"]) == real


def test_every_member_of_a_lease_has_a_line() -> None:
    """The table is complete but for what only the session calls."""
    internal = {"doubt", "end", "release_at_close", "tell", "unsure"}
    real = public(tenure.Lease, tenure.aio.Lease) - internal
    assert first_cells(sections("api.md")["Lease"]) == real


@pytest.mark.parametrize("name", ["Member", "Orphan"])
def test_what_a_kind_of_lease_has_besides_has_a_line(name: str) -> None:
    """The table has what this kind of lease has, and other leases have not."""
    real = public(getattr(tenure, name)) - public(tenure.Lease)
    assert first_cells(sections("api.md")[name]) == real


def test_fields_and_states_are_named() -> None:
    """The fields of an event and of a holder, and the states, are all there."""
    api = sections("api.md")
    assert first_cells(api["Event"]) == set(tenure.Event._fields)
    assert first_cells(api["Change"]) == set(tenure.Change._fields)
    assert first_cells(api["Status"]) == set(tenure.Status._fields)
    for field in tenure.MemberInfo._fields:
        assert f"`{field}`" in api["MemberInfo"]
    for field in ("before", "after", "joined", "left", "moves"):
        assert f"`{field}" in api["RingChange"]
    for field in tenure.Move._fields:
        assert f"`{field}`" in api["Move"]
    for field in tenure.Holder._fields:
        assert f"`{field}`" in api["Holder"]
    for state in tenure.State:
        assert f"`State.{state.name}`" in api["State"]
        assert f"`{state}`" in api["State"]


def test_errors_are_what_they_are() -> None:
    """The table of errors is complete, and says of each what it derives from."""
    page = (REFERENCE / "errors.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    shown = {
        row[1].strip().strip("`"): re.findall(r"`(\w+)`", row[2])
        for row in rows
        if row[1].strip().strip("`") in errors.__all__
    }
    real = {
        name: [base.__name__ for base in getattr(errors, name).__bases__] for name in errors.__all__
    }
    assert shown == real
