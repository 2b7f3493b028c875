"""Which driver is judged: its manifest, its strategy, and where all of it lies."""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from ... import __version__
from ..._url import Url
from ...drivers import registry
from ...errors import InvalidArgument
from ...policy import standing
from ...policy.home import Home, NoManifest, home, homes
from ...policy.manifest import Manifest, Strategy
from ..backends import Backend


class Subject(NamedTuple):
    """One strategy of one driver.

    entry: the entry point of its first scheme.
    root: the folder that the paths of pages and unit tests begin at: that of the checkout, or
        what the driver's package was installed into.
    """

    home: Home
    manifest: Manifest
    strategy: Strategy
    entry: registry.Entry
    root: Path

    @property
    def in_tree(self) -> bool:
        """Whether it is one of Tenure's own drivers."""
        return not standing.outside(self.entry)

    @property
    def version(self) -> str:
        """The version of the distribution that the driver came with; empty if it came with none."""
        if self.in_tree:
            return __version__
        top = self.entry.module.partition(".")[0]
        for name in metadata.packages_distributions().get(top, ()):
            return metadata.version(name)
        return ""

    @property
    def name(self) -> str:
        """As on the command line."""
        return f"{self.manifest.driver}/{self.strategy.name}"

    def backends(self) -> list[type[Backend]]:
        """The recipes that bring up its backend."""
        return [backend_class(each) for each in self.strategy.provision]


def backend_class(recipe: str) -> type[Backend]:
    """The class that a recipe of a manifest names; `InvalidArgument` if it names none."""
    module, _, attribute = recipe.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise InvalidArgument(f"the recipe {recipe!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise InvalidArgument(f"the recipe {recipe!r} is no class derived from Backend")
    return found


def named(text: str, strategy: str | None = None) -> list[Subject]:
    """The strategies that `DRIVER` or `DRIVER/STRATEGY` names; `InvalidArgument` if none is."""
    driver, _, given = text.partition("/")
    wanted = strategy or given
    known: dict[str, Home] = {}
    for each in homes():  # Tenure's own come first, and nobody takes their names
        known.setdefault(each.name, each)
    if driver not in known:
        raise InvalidArgument(
            f"there is no driver {driver!r} that has a manifest; there are {', '.join(known)}"
        )
    place = known[driver]
    manifest = place.load()
    names = [each.name for each in manifest.strategies]
    if wanted and wanted not in names:
        raise InvalidArgument(f"{driver} has no strategy {wanted!r}; it has {', '.join(names)}")
    return [
        _subject(place, manifest, each)
        for each in manifest.strategies
        if not wanted or each.name == wanted
    ]


def of_url(url: Url) -> Subject:
    """The driver and strategy that a URL chooses; `NoManifest` if nothing is known about it."""
    registry.find(url)  # an unknown scheme, or a missing client library, is told from here
    place = home(registry.entry(url).module)
    if not place.manifest.exists():
        raise NoManifest(f"{url.scheme}: its driver comes without a manifest")
    manifest = place.load()
    return _subject(place, manifest, manifest.strategy(url.options))


def entry_of(scheme: str) -> registry.Entry | None:
    """The entry point of a scheme; None if nobody has it."""
    return next((each for each in registry.entries() if each.scheme == scheme), None)


def _subject(home: Home, manifest: Manifest, strategy: Strategy) -> Subject:
    found = entry_of(manifest.schemes[0])
    if found is None:
        raise InvalidArgument(
            f"{home.manifest}: no entry point has the scheme {manifest.schemes[0]}"
        )
    return Subject(home, manifest, strategy, found, _root(home.folder))


def checkout(folder: Path) -> Path | None:
    """The checkout in which a driver lies, where its evidence is kept; None if it is installed."""
    root = _root(folder)
    return root if (root / ".git").exists() else None


def _root(folder: Path) -> Path:
    for parent in folder.parents:
        if parent.name in ("site-packages", "dist-packages"):
            return parent  # a virtual environment may lie in the checkout of something else
        if (parent / "pyproject.toml").exists():
            return parent
    return folder.parent
