"""The policy's gate is lifted for all tests, which judge drivers; those of the gate close it.

After a run of the whole kit, the committed table of conformance must say what it found.

`scripts/test` sets TENURE_KIT_TABLE to the page, when it runs everything.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tenure.policy import gate
from tenure.testing._signals import heed_the_keyboard
from tenure.testing.kit import table

# The tests, and the processes that they start, also connect to what has earned nothing yet.
gate.lift()

heed_the_keyboard()

_STALE = pytest.StashKey[str]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that passed, but found something else than the page says."""
    if hasattr(session.config, "workerinput"):
        return  # a part of the run; the whole is judged by the process that shared it out
    results, page = (os.environ.get(f"TENURE_KIT_{name}") for name in ("RESULTS", "TABLE"))
    if not results or not page or exitstatus != pytest.ExitCode.OK:
        return
    try:
        found = table.render(table.load(Path(results)))
        stale = "" if found == Path(page).read_text() else "it does not say what this run found"
    except (OSError, ValueError) as error:
        stale = str(error)
    if stale:
        session.config.stash[_STALE] = f"{page}: {stale}; scripts/test --accept makes it anew"
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say so, above the last line of the run."""
    stale = config.stash.get(_STALE, None)
    if stale is not None:
        terminalreporter.section("conformance", red=True)
        terminalreporter.line(stale)
