"""Records on ZooKeeper: nodes that no session takes along.

A node's version begins at 0 again when it is deleted and created anew. So a record is
two nodes: its own, and a child that is named by a word that nobody used before. The word
stands in the data, too; every write demands that the child is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .._model import Record
from .._runtime.base import Runtime
from ..errors import StorageError
from ..wires._zookeeper_api import BadVersion, Link, NodeExists, NoNode, NotEmpty, Reply
from ._zookeeper_names import Paths, name_of
from .base import Records


class NodeRecords(Records):
    """The records of one namespace."""

    def __init__(
        self,
        paths: Paths,
        runtime: Runtime,
        link: Callable[[], Awaitable[Link]],
        wait: Callable[..., Awaitable[Any]],
        make: Callable[[Link, str], Awaitable[None]],
    ) -> None:
        self._paths = paths
        self._runtime = runtime
        self._link = link
        self._wait = wait
        self._make = make

    async def recall(self, name: str) -> Record | None:
        link, path = await self._link(), self._paths.of_record(name)
        try:
            data, stat = await self._wait(link, link.sync(path), link.get(path))
        except NoNode:
            return None
        word, _, text = data.decode(errors="replace").partition("\n")
        return Record(text, (word, stat.version))

    async def record(self, name: str, text: str | None, version: Any) -> Any:
        link, path = await self._link(), self._paths.of_record(name)
        word, number = (self._runtime.unique(), -1) if version is None else version
        data = checked(f"{word}\n{text}".encode(), "a record")
        mark = f"{path}/{word}"
        if version is None and text is None:
            try:
                return None if await self._wait(link, link.exists(path)) else (word, number)
            except NoNode:
                return word, number
        while True:
            try:
                await self._wait(link, self._write(link, path, mark, data, text, number))
                return word, number + 1
            except NoNode:
                if version is not None:
                    return None
                await self._make(link, self._paths.records)
            except (BadVersion, NodeExists, NotEmpty):
                return None

    def _write(
        self, link: Link, path: str, mark: str, data: bytes, text: str | None, number: int
    ) -> Reply:
        if number < 0:
            return link.all(("create", path, data), ("create", mark, b""))
        if text is None:
            return link.all(("delete", mark, 0), ("delete", path, number))
        return link.all(("check", mark, 0), ("set", path, data, number))

    async def recorded(self, prefix: str) -> Sequence[str]:
        link, path = await self._link(), self._paths.records
        try:
            nodes, _ = await self._wait(link, link.sync(path), link.children(path))
        except NoNode:
            return ()
        return sorted(name for node in nodes if (name := name_of(node)).startswith(prefix))


def checked(data: bytes, what: str) -> bytes:
    """The data, if the server takes so much; it ends the connection of who sends more."""
    if len(data) > _DATA_MAX:
        raise StorageError(
            f"zookeeper: {what} of {len(data)} bytes is too long; at most {_DATA_MAX}"
        )
    return data


_DATA_MAX = 1_000_000
