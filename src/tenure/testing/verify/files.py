"""Where evidence is written to, and what of an older file stays in its place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ...errors import InvalidArgument, StorageError
from ...policy import evidence as evidence_
from ...policy.evidence import Cell, Evidence
from .subject import Subject, checkout


class Files:
    """The files of a run: one for each cell, or none.

    out: a folder, or a file whose name ends in `.json`, which only one cell can be written to;
        None for the default, which is beside the driver in a checkout, else `evidence` here.
    """

    def __init__(self, out: Path | None) -> None:
        self._out = out

    def folder(self, subject: Subject) -> Path:
        """The folder in which the folders of drivers are."""
        if self._out is not None:
            return self._out.parent if self.is_file else self._out
        if checkout(subject.home.folder) is not None:
            return subject.home.evidence
        return Path("evidence")

    @property
    def is_file(self) -> bool:
        """Whether one file was named, and not a folder."""
        return self._out is not None and self._out.suffix == ".json" and not self._out.is_dir()

    def path(self, subject: Subject, cell: Cell) -> Path:
        """The file of a cell."""
        if self._out is not None and self.is_file:
            return self._out
        return (
            self.folder(subject) / subject.home.name / subject.strategy.name / f"{cell.name}.json"
        )

    def check(self, subjects: list[Subject], cells: int) -> None:
        """Before the work starts: can be written what is going to be?

        Raises `StorageError` if not, and `InvalidArgument` if one file was named for many cells.
        """
        if self.is_file and cells > 1:
            raise InvalidArgument(f"{self._out}: there are {cells} cells; name a folder for them")
        for subject in subjects:
            folder = self.folder(subject)
            if not self.is_file:
                folder = folder / subject.home.name / subject.strategy.name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
                if self.is_file and self._out is not None and self._out.exists():
                    self._out.open("a").close()
            except OSError as error:
                raise StorageError(f"{folder}: {error.strerror or error}") from error


def old(path: Path) -> Evidence | None:
    """The evidence that is going to be replaced; `InvalidEvidence` if it is none."""
    return evidence_.load(path) if path.exists() else None


def carried(new: Evidence, old: Evidence | None) -> Evidence:
    """The new evidence, with what was refuted in the old, if it is about the same code.

    A refutation stays until the driver's code or the backend's version changes: that the same
    experiment found nothing this time proves nothing.
    """
    if old is None or old.source_hash != new.source_hash:
        return new
    same = (new.driver, new.strategy, new.cell.backend, new.cell.backend_version)
    if (old.driver, old.strategy, old.cell.backend, old.cell.backend_version) != same:
        return new
    refuted = {each.characteristic: each for each in old.characteristics if _refuted(each)}
    kept = [
        each if _refuted(each) else refuted.pop(each.characteristic, each)
        for each in new.characteristics
    ]
    known = {each.characteristic for each in kept}
    kept += [each for each in refuted.values() if each.characteristic not in known]
    return new._replace(characteristics=tuple(kept))


def _refuted(judgement: evidence_.Judgement) -> bool:
    return judgement.verdict == "refuted"


def write(path: Path, evidence: Evidence) -> None:
    """Write a file of evidence, whole or not at all; `StorageError` if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with open(handle, "w", encoding="utf-8") as file:
            file.write(evidence_.dump(evidence))
            os.fchmod(handle, 0o644)
        Path(name).replace(path)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
