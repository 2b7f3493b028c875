"""Two threads that connect at the same moment, at its narrowest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import tenure
from tenure._runtime.thread import drive

MEANWHILE_SECONDS = 0.3


class _Narrow(list[Any]):
    """The connections of a wire; while they are looked through, another thread connects."""

    def __init__(self, links: list[Any], connect: Any) -> None:
        super().__init__(links)
        self.other = threading.Thread(target=connect)

    def __iter__(self) -> Iterator[Any]:
        if self.other.ident is None:
            self.other.start()
            self.other.join(MEANWHILE_SECONDS)  # it may have to wait for its turn
        return super().__iter__()


def connected_at_once(url: str, wire_type: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Two connections that were made at once, after the coordinator of their wire was closed."""
    asked: list[Any] = []
    connect = wire_type.connect

    async def told(wire: Any, *details: Any) -> Any:
        asked.append(details)
        return await connect(wire, *details)

    monkeypatch.setattr(wire_type, "connect", told)
    made: list[Any] = []
    with tenure.connect(url, ttl=60) as coordinator:
        wire: Any = coordinator._session.driver._wire  # type: ignore[attr-defined]

        def another() -> None:
            made.append(drive(connect(wire, *asked[0])))

        wire._links = links = _Narrow(wire._links, another)
        another()
        links.other.join(30)
    return made
