"""Whether the policy's gate is lifted: asked at every connect, before anything of it is loaded."""

from __future__ import annotations

import os

from ._url import truth
from .errors import InvalidArgument

UNGATED = "TENURE_UNGATED"
"""The variable that lifts the gate. It is for tests and tools, and lifts no explicit demand."""


def ungated() -> bool:
    """Whether the variable lifts the gate; `InvalidArgument` if it says neither yes nor no."""
    text = os.environ.get(UNGATED, "").strip()
    found = truth(text) if text else False
    if found is None:
        raise InvalidArgument(f"{UNGATED} is 1 or 0, true or false, not {text!r}")
    return found
