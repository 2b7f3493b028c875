"""Tooz's URLs and options, translated to Tenure's URLs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qs, quote, urlencode, urlsplit

from ..._url import Host, Url
from ...drivers import registry
from ...errors import InvalidURL
from ._errors import InvalidOption, rethrow
from ._options import BLANK, TRANSLATIONS, Given, inert

logger = logging.getLogger("tenure")

TTL_OPTIONS = ("timeout", "lock_timeout", "membership_timeout", "leader_timeout")


MEMCACHED_TTL_MAX = 30.0
TTL_MAX = 86_400.0
"""The longest that Tenure takes, in seconds; over memcached, unless `ttl_max` says another."""


class Target(NamedTuple):
    """What to connect to, and how. `url` may have a password in it."""

    url: str
    namespace: str | None
    ttl: float | None
    """The TTL that was asked for, in seconds."""
    join_timeout: float = 0.0
    """How long, in seconds, joining waits for a member of the same id to go."""
    min_level: str | None = None
    """The level that the driver must have earned; see `tenure.connect`."""
    allow: tuple[str, ...] = ()
    """The drivers that need not have earned any."""

    def __repr__(self) -> str:
        return f"<target {Url.parse(self.url)}>"


class ToozUrl(SplitResult):
    """A URL as a driver of Tooz's gets it: taken apart, with a method for its options."""

    def params(self, collapse: bool = True) -> dict[str, Any]:
        """The options behind the question mark; the last value of each, or lists of all.

        Those without a value are left out.
        """
        found = parse_qs(self.query)
        return {key: values[-1] for key, values in found.items()} if collapse else dict(found)


def split(text: str) -> ToozUrl:
    """Take a URL apart."""
    if not isinstance(text, str):
        raise InvalidOption(f"a backend URL is text, not {type(text).__name__}")
    return ToozUrl(*urlsplit(text))


def options_of(parsed: ToozUrl, given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """All options, each with its values: those of the call, and of the URL those that it lacks.

    Blank ones are there if they may be Tenure's own, whose drivers say what they think of them.
    """
    found = parse_qs(parsed.query, keep_blank_values=True)
    options: dict[str, list[Any]] = {
        key: kept
        for key, values in found.items()
        if (kept := [value for value in values if value or key not in BLANK])
    }
    return options | {key: [value] for key, value in given.items()}


def translate(parsed: Any, options: Mapping[str, Any]) -> Target:
    """What a URL of Tooz's, or of Tenure's own, means with these options.

    Raises `InvalidOption` for what cannot work, or cannot be done.
    """
    try:
        if parsed.fragment:
            raise InvalidURL(f"{parsed.scheme}: in a URL, '#' is written %23")
        url = Url.parse(f"{parsed.scheme}://{parsed.netloc}{parsed.path}")
        given = Given(url.scheme, options)
        namespace = given.text("namespace")
        ttl, join_timeout = given.number("ttl"), given.number("join_timeout") or 0.0
        min_level = given.text("min_level")
        allow = tuple(",".join(given.values("allow")).split(",")) if given.has("allow") else ()
        times = [time for time in map(given.number, TTL_OPTIONS) if time is not None]
        translation = TRANSLATIONS.get(url.scheme)
        if translation is not None:
            url = translation(url, given)
        for name in given.drop(inert(url.scheme)):
            logger.info("tenure: %s: the option %r has no effect", url.scheme, name)
        for name in given.left():
            # Tenure's own, or nobody's: then its driver says so.
            url.options[name] = given.text(name) or ""
        if ttl is None and times:
            # One session keeps all that a coordinator holds: what ends first, ends it.
            ttl = _possible(url, min(times))
    except InvalidURL as error:
        rethrow(error)
    return Target(unparsed(url), namespace, ttl, join_timeout, min_level, allow)


def _possible(url: Url, ttl: float) -> float:
    """The TTL that is closest to one and that the backend can keep."""
    ttl = max(ttl, registry.find(url).traits.min_ttl)
    if url.scheme == "memcached":
        return min(ttl, url.number("ttl_max", MEMCACHED_TTL_MAX))
    return min(ttl, TTL_MAX)


def unparsed(url: Url) -> str:
    """The text of a URL, with its password."""
    user = "" if url.username is None else quote(url.username, safe="")
    if url.password is not None:
        user += f":{quote(url.password, safe='')}"
    hosts = ",".join(map(_host, url.hosts))
    text = f"{url.scheme}://{user}{'@' if user else ''}{hosts}{quote(url.path, safe='/')}"
    return f"{text}?{urlencode(url.options)}" if url.options else text


def _host(host: Host) -> str:
    name = f"[{host.name}]" if ":" in host.name else quote(host.name, safe="")
    return f"{name}:{host.port}" if host.port else name
