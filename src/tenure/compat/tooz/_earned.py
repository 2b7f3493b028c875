"""What Tooz calls a driver's characteristics: here, those that experiments have corroborated."""

from __future__ import annotations

from typing import Any

from ..._url import Url
from ...drivers import registry
from ...errors import UnknownDriver
from ...policy import standing
from ._events import Characteristics


def earned(url: Url) -> tuple[Characteristics, ...]:
    """What the driver of a URL claims and no experiment has refuted, by the evidence about it.

    Nothing, if its client library is not installed.
    """
    try:
        registry.find(url)
        entry = registry.entry(url)
    except UnknownDriver:
        return ()
    found = standing.of(entry, url.options).characteristics
    return tuple(
        each
        for each in Characteristics
        if (line := found.get(each.name)) and line["claimed"] and line["verdict"] == "corroborated"
    )


class Earned:
    """The attribute `CHARACTERISTICS` of a driver's class, read when somebody asks for it."""

    def __get__(self, instance: Any, owner: Any) -> tuple[Characteristics, ...]:
        return earned(Url(owner.SCHEME))
