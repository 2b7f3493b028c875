"""What a Redis URL says."""

from __future__ import annotations

import re

from .._url import Host, Url
from ..errors import InvalidURL
from ..wires.redis import Settings, Tls, slot_of

_TLS_OPTIONS = {"ca", "cert", "key", "verify"}


def settings(url: Url, patience: float, tag: bytes) -> Settings:
    """The wire's settings; `InvalidURL` if the URL does not fit its scheme.

    `tag` is what stands between braces in every key.
    """
    known = {"connections", "wait_replicas", "lock"}
    path = service = ""
    hosts = url.hosts
    if url.scheme == "unix":
        known |= {"db"}
        if hosts or not url.path:
            raise InvalidURL("unix: write unix:///path/of/the/socket?db=0")
        path, database = url.path, url.options.get("db", "")
    elif url.scheme == "redis+sentinel":
        known |= {"sentinel_username", "sentinel_password", "tls"} | _TLS_OPTIONS
        hosts = tuple(host.or_port(26379) for host in hosts)
        service, _, database = url.path.lstrip("/").partition("/")
        if not hosts or not service:
            raise InvalidURL("redis+sentinel: write redis+sentinel://host:26379/service/0")
    elif url.scheme == "redis+cluster":
        known |= {"tls"} | _TLS_OPTIONS
        hosts = tuple(host.or_port(6379) for host in hosts)
        database = url.path.lstrip("/")
        if not hosts or database not in ("", "0"):
            raise InvalidURL("redis+cluster: write redis+cluster://host:6379,host:6379")
    else:
        if url.scheme == "rediss":
            known |= _TLS_OPTIONS
        if len(hosts) > 1:
            raise InvalidURL(
                f"{url.scheme}: one host only; for several sentinels write redis+sentinel://, "
                "for a cluster redis+cluster://"
            )
        hosts = tuple(host.or_port(6379) for host in hosts) or (Host("localhost", 6379),)
        database = url.path.lstrip("/")
    url.check_options(known)
    return Settings(
        hosts=hosts,
        path=path,
        service=service,
        username=url.username,
        password=url.password,
        sentinel_username=url.options.get("sentinel_username"),
        sentinel_password=url.options.get("sentinel_password"),
        database=_database(url.scheme, database),
        slot=slot_of(tag) if url.scheme == "redis+cluster" else None,
        tls=_tls(url),
        patience=patience,
        connections=int(url.number("connections", 64, least=1)),
    )


def _database(scheme: str, text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise InvalidURL(f"{scheme}: a database is a number such as 0")
    return int(text)


def _tls(url: Url) -> Tls | None:
    if url.scheme != "rediss" and not url.flag("tls"):
        if _TLS_OPTIONS & url.options.keys():
            raise InvalidURL(f"{url.scheme}: TLS options have no effect without tls=true")
        return None
    option = url.options.get
    if option("key") is not None and option("cert") is None:
        raise InvalidURL(f"{url.scheme}: option 'key' needs 'cert' too")
    return Tls(option("ca"), option("cert"), option("key"), url.flag("verify", True), "redis")


def redlock(url: Url) -> bool:
    """Whether the URL asks for a lock over several masters; `InvalidURL` if it says it wrongly."""
    strategy = url.options.get("lock")
    if strategy not in (None, "roster", "redlock"):
        raise InvalidURL(f"{url.scheme}: option 'lock' is roster or redlock")
    return strategy == "redlock"


def each_master(url: Url, patience: float) -> list[Settings]:
    """The settings for each of several independent masters."""
    if url.scheme not in ("redis", "rediss"):
        raise InvalidURL(f"{url.scheme}: lock=redlock is for redis:// and rediss://")
    if len(set(url.hosts)) != len(url.hosts) or len(url.hosts) < 3 or len(url.hosts) % 2 == 0:
        raise InvalidURL(
            f"{url.scheme}: lock=redlock takes an odd number of masters, 3 at least, "
            f"each of them once; not {len(url.hosts)}"
        )
    options = {key: value for key, value in url.options.items() if key != "lock"}
    if "wait_replicas" in options:
        raise InvalidURL(f"{url.scheme}: wait_replicas has no effect with lock=redlock")
    return [
        settings(
            Url(url.scheme, (host,), url.path, options, url.username, url.password), patience, b""
        )
        for host in url.hosts
    ]


def escape(namespace: str) -> str:
    """The namespace as it stands between the braces that make it a hash tag."""
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", namespace)


_UNSAFE = re.compile(r"[{}%\x00-\x1f\x7f]")
