"""What a history is made of, and how it is shown to a person."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["ok", "failed", "unknown"]
"""`failed` has certainly not been carried out; `unknown` may have been, or may yet be."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call, as the client saw it.

    process: who called. A process calls one after another, but what has an unknown outcome
        may take effect at any time after its call.
    kind: what a model knows. Of records: `read`, whose result is the value or None for
        nothing; `write` of `value`; `swap`, whose `value` is what was expected and what is
        to be, and whose result is whether it was done. Of locks: `acquire`, whose result is
        the token; `holds` and `release`, whose `value` is the token.
    called, returned: seconds on one clock; infinite if it has not returned.
    """

    process: str
    kind: str
    key: str
    called: float
    returned: float = math.inf
    value: Any = None
    result: Any = None
    outcome: Outcome = "ok"
    endpoint: str = ""

    def text(self, since: float) -> str:
        """One line; times are in seconds since then."""
        end = "..." if math.isinf(self.returned) else f"{self.returned - since:.3f}"
        place = f" at {self.endpoint}" if self.endpoint else ""
        return f"{self.called - since:.3f}-{end} {self.process}{place}: {self._what()}"

    def _what(self) -> str:
        if self.kind == "swap":
            old, new = self.value
            what = f"{self.key} from {old!r} to {new!r}"
            answer = "done" if self.result else "refused"
        else:
            what = self.key if self.value is None else f"{self.key} {self.value!r}"
            answer = repr(self.result) if self.kind in ("read", "acquire") else "done"
        return f"{self.kind} {what}: {answer if self.outcome == 'ok' else self.outcome}"


@dataclass(frozen=True, slots=True)
class Violation:
    """What cannot have been: `text` says why, and the operations are all that it takes."""

    text: str
    operations: tuple[Operation, ...]

    def __str__(self) -> str:
        return f"{self.text}: {told(self.operations)}"


def told(operations: Iterable[Operation]) -> str:
    """The operations in the order of their calls; times in seconds since the first."""
    ordered = sorted(operations, key=lambda each: each.called)
    since = ordered[0].called if ordered else 0.0
    return "; ".join(each.text(since) for each in ordered)
