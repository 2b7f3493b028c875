"""Records on Redis: hashes of a text and a version, which the namespace's counter gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .._model import Record
from ..wires.redis import Reply, Wire
from ._redis_keys import Keys
from ._redis_lua import RECORD
from ._redis_replies import listed, text_of, utf8
from .base import Records


class HashRecords(Records):
    """The records of one namespace. `run` carries out a script."""

    def __init__(self, keys: Keys, wire: Wire[Any], run: Callable[..., Awaitable[Reply]]) -> None:
        self._keys = keys
        self._wire = wire
        self._run = run

    async def recall(self, name: str) -> Record | None:
        reply = await self._wire.command(b"HMGET", self._keys.of_record(name), b"text", b"version")
        text, version = listed(reply, 2)
        return None if version is None else Record(text_of(text), int(version))

    async def record(self, name: str, text: str | None, version: Any) -> Any:
        keys = (2, self._keys.of_record(name), self._keys.counter)
        words = (self._keys.of_channel(name), b"" if version is None else b"%d" % version)
        more = () if text is None else (utf8(text),)
        return await self._run(RECORD, *keys, *words, *more)

    async def recorded(self, prefix: str) -> Sequence[str]:
        return await self._keys.names(self._wire, self._keys.of_record(""), prefix)
