"""What the wires over plain sockets share: time that is left, TLS, and letting go after a fork."""

from __future__ import annotations

import os
import ssl
import time
from dataclasses import dataclass

from ..errors import InvalidURL


@dataclass(frozen=True, slots=True)
class Tls:
    """How to verify the server, and what to show it: paths of PEM files."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify: bool = True
    name: str = ""
    """What an error begins with, if anything."""

    def context(self) -> ssl.SSLContext:
        """Read the files; `InvalidURL` if they cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.cert is not None:
                # A password for the key would be asked for on the terminal: refuse instead.
                context.load_cert_chain(self.cert, self.key, password="")
        except (OSError, ssl.SSLError) as error:
            begin = f"{self.name}: " if self.name else ""
            raise InvalidURL(f"{begin}the TLS files cannot be used: {error}") from error
        return context


def left(until: float) -> float:
    """Seconds to go on the monotonic clock; never none, since 0 would mean for ever."""
    return max(0.001, until - time.monotonic())


def late(patience: float) -> TimeoutError:
    """The reason for giving up: nothing came in so many seconds."""
    return TimeoutError(f"none within {patience:.3g} s")


def reason(error: Exception) -> str:
    """What an error says, or else what it is."""
    return str(error) or type(error).__name__


def void(descriptor: int) -> None:
    """Close what a descriptor refers to, and keep its number occupied.

    A finalizer that closes the number later then closes nothing else. Nothing is sent:
    the connection lives on in the process that shares it.
    """
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor, inheritable=False)
    os.close(null)
