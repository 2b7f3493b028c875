"""The warnings of the policy. They are no errors: `connect` goes on after each."""

from __future__ import annotations


class PolicyWarning(UserWarning):
    """The base of what `connect` warns of; attributed to the line that has connected."""


class DriverLevelWarning(PolicyWarning):
    """The driver is below stable. Given once per process and driver."""


class BackendVersionWarning(PolicyWarning):
    """Nothing is known about the driver on the version of the backend that has answered."""


class DeprecatedDriverWarning(PolicyWarning):
    """The driver is going to be removed; the message names what replaces it."""
