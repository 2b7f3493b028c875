"""What a memcached URL says."""

from __future__ import annotations

from .._url import Host, Url
from ..errors import InvalidArgument, InvalidURL
from ..wires.memcached import Settings

PORT = 11211
TTL_MOST_SECONDS = 30.0
"""The longest TTL in a namespace, if the URL does not say another."""


def settings(url: Url, patience: float) -> Settings:
    """The wire's settings; `InvalidURL` if the URL cannot work."""
    url.check_options({"connections", "ttl_max"})
    if len(url.hosts) > 1:
        raise InvalidURL(
            f"{url.scheme}: one server only; which of several keeps a name would depend on which "
            "of them a client can reach, and two clients could both be granted"
        )
    if url.path.strip("/"):
        raise InvalidURL(f"{url.scheme}: write memcached://host:{PORT}, without a path")
    for text, what in ((url.username, "user name"), (url.password, "password")):
        if text is not None and (" " in text or not text.isprintable()):
            raise InvalidURL(f"{url.scheme}: a {what} has no blanks and no control characters")
    host = url.hosts[0].or_port(PORT) if url.hosts else Host("localhost", PORT)
    return Settings(
        host=host,
        username=url.username,
        password=url.password,
        patience=patience,
        connections=int(url.number("connections", 64, least=1)),
    )


def ttl_most(url: Url, ttl: float) -> float:
    """The longest TTL that a client of the namespace may have; ours must not be longer."""
    most = url.number("ttl_max", TTL_MOST_SECONDS, least=0.1)
    if most > 86_400:
        raise InvalidURL(f"{url.scheme}: option 'ttl_max' must be at most 86400 seconds")
    if ttl > most:
        raise InvalidArgument(
            f"{url.scheme}: a ttl of {ttl:g} s is more than ttl_max, which is {most:g} s; give all "
            f"clients of the namespace the same option, such as ?ttl_max={ttl:g}"
        )
    return most
