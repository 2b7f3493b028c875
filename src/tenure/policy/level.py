"""The levels by themselves, for who needs no more of the policy than their names."""

from __future__ import annotations

from enum import IntEnum

from ..errors import InvalidArgument


class Level(IntEnum):
    """How much of the policy a driver is known to meet. Levels can be compared."""

    UNVERIFIED = 0
    EXPERIMENTAL = 1
    PREVIEW = 2
    STABLE = 3

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, text: str, what: str = "a level") -> Level:
        """The level of that name; `InvalidArgument` lists those that there are."""
        try:
            return cls[text.upper().replace("TECHNICAL PREVIEW", "PREVIEW")]
        except (KeyError, AttributeError):
            raise InvalidArgument(
                f"{what} is one of {', '.join(map(str, cls))}, not {text!r}"
            ) from None
