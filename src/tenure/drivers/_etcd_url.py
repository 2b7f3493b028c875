"""What an etcd URL says."""

from __future__ import annotations

from pathlib import Path

from .._url import Host, Url
from ..errors import InvalidURL
from ..wires.etcd import Settings

_PORT = 2379


def check(url: Url) -> None:
    """`InvalidURL` if the URL has something in it that cannot work."""
    url.check_options(("ca", "cert", "key"))
    if url.path.strip("/"):
        raise InvalidURL(f"{url.scheme}: the URL takes no path")
    if (url.username is None) != (url.password is None):
        raise InvalidURL(f"{url.scheme}: a user name and a password come together")
    if url.scheme != "etcds" and url.options:
        given = ", ".join(sorted(url.options))
        raise InvalidURL(f"{url.scheme}: {given}: for TLS the URL begins with etcds://")
    if ("cert" in url.options) != ("key" in url.options):
        raise InvalidURL(f"{url.scheme}: the options 'cert' and 'key' come together")


def settings(url: Url, patience: float) -> Settings:
    """The wire's settings; reads the files that the URL names."""
    hosts = url.hosts or (Host("127.0.0.1"),)
    return Settings(
        tuple(f"dns:///{host.or_port(_PORT)}" for host in hosts),
        patience,
        None if url.username is None else (url.username, url.password or ""),
        url.scheme == "etcds",
        _file(url, "ca"),
        _file(url, "cert"),
        _file(url, "key"),
    )


def _file(url: Url, option: str) -> bytes | None:
    path = url.options.get(option)
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidURL(
            f"{url.scheme}: the file of option {option!r} cannot be read: {error.strerror}"
        ) from error
