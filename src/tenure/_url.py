"""Backend URLs: `scheme://user:password@host:port,host:port/path?option=value`.

The password can be read by a driver and by nobody else: `str` and `repr` mask it, and
no error message made here quotes the text of the URL.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from .errors import InvalidURL

_SECRET_OPTIONS = re.compile(r"pass|secret|token|credential", re.IGNORECASE)
_ESCAPES = "in a user name or password, '/', '@', ':' and '?' are written %2F %40 %3A %3F"
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", re.ASCII)


class Host(NamedTuple):
    """A host and a port; port 0 means the driver's default."""

    name: str
    port: int = 0

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{name}:{self.port}" if self.port else name

    def or_port(self, default: int) -> Host:
        """The same host with the driver's default port where none was given."""
        return self if self.port else Host(self.name, default)


class Url:
    """A parsed backend URL. Its `repr` and `str` are safe to log."""

    __slots__ = ("hosts", "options", "password", "path", "scheme", "username")

    def __init__(
        self,
        scheme: str,
        hosts: tuple[Host, ...] = (),
        path: str = "",
        options: dict[str, str] | None = None,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self.scheme = scheme
        self.hosts = hosts
        self.path = path
        self.options = options or {}
        self.username = username
        self.password = password

    @classmethod
    def parse(cls, text: str) -> Url:
        """Take a URL apart; `InvalidURL` says which part is wrong."""
        if not isinstance(text, str):
            raise InvalidURL(f"a backend URL is text such as 'file:///var/lock', not {type(text)}")
        match = _SCHEME.match(text)
        if match is None:
            raise InvalidURL(
                "a backend URL begins with a scheme and '://', such as 'redis://localhost:6379'"
            )
        scheme = match[1].lower()
        _check_characters(scheme, text)
        rest, _, query = text[match.end() :].partition("?")
        authority, slash, path = rest.partition("/")
        username = password = None
        if authority and "@" in path and "@" not in authority:
            # Most likely a password with an unescaped '/', which must not pass for a path.
            raise InvalidURL(f"{scheme}: in a path, '@' is written %40; {_ESCAPES}")
        if "@" in authority:
            userinfo, _, authority = authority.rpartition("@")
            user, colon, secret = userinfo.partition(":")
            username = unquote(user) if user else None
            password = unquote(secret) if colon else None
        options: dict[str, str] = {}
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        except ValueError:
            raise InvalidURL(
                f"{scheme}: what follows '?' must be option=value, joined by '&'"
            ) from None
        for key, value in pairs:
            if key in options:
                raise InvalidURL(f"{scheme}: option {key!r} is given twice")
            options[key] = value
        hosts = tuple(_host(scheme, part) for part in authority.split(",") if part)
        path = unquote(slash + path)
        _check_characters(scheme, "".join([path, *(host.name for host in hosts)]))
        return cls(scheme, hosts, path, options, username, password)

    @property
    def secrets(self) -> list[str]:
        """All that `str` masks: the password, and the values of secret options."""
        found = [value for key, value in self.options.items() if _SECRET_OPTIONS.search(key)]
        return [each for each in (self.password, *found) if each]

    def check_options(self, known: Collection[str]) -> None:
        """Refuse an option that is not among the known ones, and name those."""
        for key in self.options:
            if key not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise InvalidURL(f"{self.scheme}: unknown option {key!r}; known options: {listed}")

    def number(self, key: str, default: float, *, least: float = 0.0) -> float:
        """An option as a number that is not below `least`."""
        text = self.options.get(key)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            raise InvalidURL(
                f"{self.scheme}: option {key!r} must be a number from {least:g}, not {text!r}"
            )
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """An option that is on (1, true, yes, on) or off (0, false, no, off)."""
        text = self.options.get(key)
        if text is None:
            return default
        found = truth(text)
        if found is None:
            raise InvalidURL(f"{self.scheme}: option {key!r} must be true or false, not {text!r}")
        return found

    def __str__(self) -> str:
        user = "" if self.username is None else self.username
        if self.password is not None:
            user += ":***"
        at = "@" if self.username is not None or self.password is not None else ""
        shown = "&".join(
            f"{key}={'***' if _SECRET_OPTIONS.search(key) else value}"
            for key, value in self.options.items()
        )
        hosts = ",".join(map(str, self.hosts))
        return f"{self.scheme}://{user}{at}{hosts}{self.path}{'?' if shown else ''}{shown}"

    def __repr__(self) -> str:
        return f"<Url {self}>"


def truth(text: str) -> bool | None:
    """Whether a text says that something is on, or off; None if it says neither."""
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    return False if text.lower() in {"0", "false", "no", "off"} else None


def _check_characters(scheme: str, text: str) -> None:
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise InvalidURL(f"{scheme}: the URL has a control character in it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidURL(f"{scheme}: the URL has a character that UTF-8 cannot encode") from None


def _host(scheme: str, text: str) -> Host:
    if text.startswith("["):
        name, bracket, tail = text[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise InvalidURL(f"{scheme}: an IPv6 address is written [address]:port")
        port = tail[1:]
    else:
        name, _, port = text.partition(":")
    if not port:
        return Host(unquote(name))
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        # The text is not quoted: a password with an unescaped '/' or '@' ends up here.
        raise InvalidURL(f"{scheme}: a port is a number from 1 to 65535; {_ESCAPES}")
    return Host(unquote(name), int(port))
