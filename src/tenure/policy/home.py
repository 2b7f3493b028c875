"""Where a driver's manifest and evidence lie, and how they are read.

Beside the module `package/redis.py` of a driver lie

    package/redis.toml                             its manifest
    package/evidence/redis/default/<cell>.json     what runs of the suite found, by strategy
    package/evidence/runs.jsonl                    the ledger of runs, for all drivers in there
    package/evidence/index.json                    what follows from them; see `index`

so that they are installed with it. Nothing here imports the driver.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from ..drivers import registry
from ..errors import TenureError
from . import evidence as evidence_
from . import manifest as manifest_
from .evidence import Evidence, InvalidEvidence
from .levels import Record, RecordedRun
from .manifest import InvalidManifest, Manifest

logger = logging.getLogger("tenure")

_SUITE = (
    *("kit", "experiments", "servers", "backends"),
    *("histories.py", "_linearize.py", "_operations.py", "proxy.py", "_relay.py"),
)
"""What finds out, and judges, what a driver does: all that the kit and the experiments use."""


class NoManifest(TenureError):
    """A driver comes without a manifest, so nothing is known about it."""


class Home(NamedTuple):
    """The folder of a driver, and its name in there."""

    folder: Path
    name: str

    @property
    def manifest(self) -> Path:
        """Where the manifest is, if there is one."""
        return self.folder / f"{self.name}.toml"

    @property
    def evidence(self) -> Path:
        """The folder of the evidence about all drivers here."""
        return self.folder / "evidence"

    @property
    def runs(self) -> Path:
        """The ledger of runs."""
        return self.evidence / "runs.jsonl"

    @property
    def outside(self) -> bool:
        """Whether it is of another distribution, whose author has written the evidence himself."""
        return self.folder not in {home(each.module).folder for each in registry.BUILT_IN.values()}

    @property
    def index_file(self) -> Path:
        """What follows from manifests and evidence."""
        return self.evidence / "index.json"

    def load(self) -> Manifest:
        """The manifest; `NoManifest` if there is none."""
        if not self.manifest.exists():
            raise NoManifest(f"{self.name}: there is no manifest {self.manifest}")
        found = manifest_.load(self.manifest)
        if found.driver != self.name:
            raise InvalidManifest(
                f"{self.manifest}: 'driver' is {found.driver!r}; by the file's name it is "
                f"{self.name!r}"
            )
        return found

    def record(self) -> Record:
        """All evidence and runs, with the hashes of today's code and suite.

        That of another distribution is self-reported, whatever its files say: nobody but their
        author has looked on.
        """
        manifest = self.load()
        return Record(
            tuple(self._evidence()),
            tuple(run for run in load_runs(self.runs) if run.driver == self.name),
            self.source_hash(manifest),
            suite_hash(),
        )

    def sources(self, manifest: Manifest) -> list[Path]:
        """The files of the driver's own code."""
        found = {path for each in manifest.sources for path in self.folder.glob(each)}
        missing = [each for each in manifest.sources if not list(self.folder.glob(each))]
        if missing:
            raise InvalidManifest(f"{self.manifest}: no file is {missing[0]!r}, under `sources`")
        return sorted(path.resolve() for path in found)

    def source_hash(self, manifest: Manifest) -> str:
        """A hash of the driver's own code."""
        return hash_of(self.sources(manifest))

    def _evidence(self) -> Iterator[Evidence]:
        outside = self.outside
        for path in sorted((self.evidence / self.name).glob("*/*.json")):
            found = evidence_.load(path)
            if (found.driver, found.strategy) != (self.name, path.parent.name):
                raise InvalidEvidence(
                    f"{path}: it is about {found.driver}/{found.strategy}, not about where it lies"
                )
            _has_been(found.started, f"{path}.run.started")
            yield found._replace(provenance="self-reported") if outside else found


def hash_of(paths: list[Path]) -> str:
    """A hash of files, their names among it; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        data = path.read_bytes()
        digest.update(f"{path.name}:{len(data)}:".encode() + data)
    return digest.hexdigest()[:16]


@functools.cache
def suite_hash() -> str:
    """A hash of the suite: the kit's cases and the experiments, with what they stand on."""
    testing = Path(__file__).parents[1] / "testing"
    return hash_of(sorted(path for name in _SUITE for path in _files(testing / name)))


def _files(path: Path) -> Iterator[Path]:
    return path.rglob("*.py") if path.is_dir() else iter([path])


def home(module: str) -> Home:
    """The home of the driver in a module, whose package is imported for it."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise NoManifest(f"{module}: there is no such module")
    return Home(Path(found.origin).parent, module.rpartition(".")[2])


def homes() -> list[Home]:
    """The homes of all installed drivers that have a manifest, in the order of the registry."""
    found: dict[str, Home] = {}
    for entry in (*registry.BUILT_IN.values(), *registry.entries()):
        if entry.module not in found:
            try:
                found[entry.module] = home(entry.module)
            except Exception:
                # Whatever another's package does when it is imported; `tenure drivers` tells it.
                logger.debug("tenure: %s cannot be found", entry.module, exc_info=True)
    return [each for each in found.values() if each.manifest.exists()]


def built_in() -> list[Home]:
    """The homes of the drivers that come with Tenure."""
    modules = dict.fromkeys(entry.module for entry in registry.BUILT_IN.values())
    return [home(module) for module in modules]


def load_runs(path: Path) -> list[RecordedRun]:
    """The ledger of runs; empty if there is none yet."""
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        where = f"{path}:{number}"
        run: RecordedRun = evidence_.made(RecordedRun, evidence_.read(line, where), where)
        _has_been(run.began, f"{where}.started")
        found.append(run)
    return found


def _has_been(began: datetime, where: str) -> None:
    """Refuse what is yet to come, a day of clocks that differ aside."""
    if began > now() + timedelta(days=1):
        raise InvalidEvidence(f"{where}: {began.isoformat()} is yet to come")


def now() -> datetime:
    """The time by which records are read: that of UTC."""
    return datetime.now(UTC)


def append_run(path: Path, run: RecordedRun) -> None:
    """Add a line to the ledger; lines are never changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(run._asdict()) + "\n")
