"""A driver of the tests' own, with a manifest and evidence in a folder, and the gate closed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.policy import record, sample
from tenure.drivers import registry
from tenure.policy import gate, index
from tenure.policy.index import Known
from tenure.policy.levels import Record
from tenure.policy.manifest import Manifest

SOURCE = '''\
from tenure._model import Server
from tenure._url import Url
from tenure.drivers.memory import MemoryDriver


class Driver(MemoryDriver):
    """In memory; it says that it is whatever a test has told it to be."""

    traits = MemoryDriver.traits._replace(scope="processes")
    told = Server("sample", "7.2.1")
    asked = 0
    opened = 0

    def __init__(self, url, runtime, namespace, ttl):
        super().__init__(Url(url.scheme), runtime, namespace, ttl)
        self.url = url

    async def open(self):
        await super().open()
        Driver.opened += 1

    async def close(self):
        await super().close()
        Driver.opened -= 1

    async def server(self):
        Driver.asked += 1
        if isinstance(Driver.told, Exception):
            raise Driver.told
        return Driver.told
'''


class Sample:
    """The driver `sample` in a folder: its class, and what is known about it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "sample.py").write_text(SOURCE)
        self.driver: Any = importlib.import_module("sample").Driver
        self.entry = registry.Entry("sample", "sample", "Driver")

    def known(self, known: Record | None = None, of: Manifest | None = None) -> None:
        """Write the index of what is known; by default all that makes it stable."""
        found = Known(of or sample(), record() if known is None else known)
        index.write(self.folder / "evidence", [found])
        gate.forget()


def closed(folder: Path, monkeypatch: pytest.MonkeyPatch, *, inside: bool) -> Iterator[Sample]:
    """The sample, while the gate is closed; `inside` makes it one of Tenure's own drivers."""
    for name in ("TENURE_UNGATED", "TENURE_MIN_LEVEL", "TENURE_ALLOW"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    made = Sample(folder)
    where = "BUILT_IN" if inside else "_registered"
    monkeypatch.setattr(registry, where, {**getattr(registry, where), "sample": made.entry})
    gate.forget()
    yield made
    gate.forget()
    del sys.modules["sample"]
