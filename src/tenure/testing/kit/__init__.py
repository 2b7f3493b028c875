"""The conformance kit: the cases that judge a driver, in tree or out of it.

    from tenure.testing.kit import conformance

    TestMine = conformance(MyBackend)

gives pytest one test for each case and runtime, against the real backend that the
class starts. A case that the driver's traits rule out is not collected; for most of
those, a twin is, which checks that the driver refuses as it says.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

from ..backends import Backend
from . import (
    backend,
    barrier,
    basic,
    election,
    faults,
    group,
    objectlock,
    partition,
    processes,
    queues,
    records,
    rosters,
    rwlock,
    semaphore,
    status,
    watch,
)
from ._base import CASES, Case, Env, Flavour, case, run

__all__ = ["CASES", "Case", "Env", "case", "conformance", "run"]

_MODULES = (
    basic,
    faults,
    processes,
    rosters,
    queues,
    records,
    rwlock,
    semaphore,
    barrier,
    group,
    watch,
    election,
    partition,
    objectlock,
    status,
    backend,
)  # imported for the cases that they register


def conformance(backend_class: type[Backend]) -> type:
    """A test class for pytest with every case that applies to the driver."""
    import pytest

    traits = backend_class.traits()
    chosen = [
        (each, flavour) for each in CASES for flavour in each.flavours if each.unmet(traits) is None
    ]

    class Conformance:
        """Every case of the kit, on both runtimes."""

        @pytest.fixture(scope="class")
        @classmethod
        def backend(cls) -> Iterator[Backend]:
            backend = backend_class()
            backend.start()
            yield backend
            backend.stop()

        @pytest.mark.parametrize(
            "chosen", chosen, ids=[f"{each.name}-{flavour}" for each, flavour in chosen]
        )
        def test(self, backend: Backend, chosen: tuple[Case, Flavour]) -> None:
            """The driver keeps the promise that the case is named after."""
            each, flavour = chosen
            run(each, backend, flavour, f"kit-{uuid.uuid4().hex[:12]}")
            _record(backend_class.name, each.name, flavour)

    return Conformance


def _record(backend: str, name: str, flavour: str) -> None:
    """Append what passed to the file that TENURE_KIT_RESULTS names, for the table."""
    path = os.environ.get("TENURE_KIT_RESULTS")
    if path:
        line: dict[str, Any] = {"driver": backend, "case": name, "runtime": flavour}
        with open(path, "a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")
