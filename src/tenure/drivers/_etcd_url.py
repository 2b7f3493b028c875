"""What an etcd URL says to gRPC's wire."""

from __future__ import annotations

from pathlib import Path

from .._url import Host, Url
from ..errors import InvalidURL
from ..wires.etcd import Settings
from ._etcd_options import PORT, check

__all__ = ["check", "settings"]


def settings(url: Url, patience: float) -> Settings:
    """The wire's settings; reads the files that the URL names."""
    hosts = url.hosts or (Host("127.0.0.1"),)
    return Settings(
        tuple(f"dns:///{host.or_port(PORT)}" for host in hosts),
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
