"""SERIALIZABLE: do operations on several keys behave as if they had run one after another?"""

from __future__ import annotations

from ...policy.characteristics import Characteristic
from ._base import Found, Target, Untestable, experiment


@experiment(Characteristic.SERIALIZABLE)
def operations_on_several_keys(target: Target, found: Found) -> None:
    """Would run operations that read and write several keys at once, and look for a cycle among
    them. The drivers' contract has none: each call reads or writes one record or one roster, and
    what lists names promises no snapshot."""
    raise Untestable(
        "the contract of drivers has no operation on several keys: each call reads or writes one"
        " record or one roster"
    )
