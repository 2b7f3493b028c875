"""Backend URLs: what is read from them, what is refused, and that they keep their secret."""

from __future__ import annotations

import pytest

from tenure._url import Host, Url
from tenure.errors import InvalidURL


def test_every_part_is_read() -> None:
    """Scheme, user, password, several hosts, path and options end up where they belong."""
    url = Url.parse("Redis+Sentinel://app:s%40f%2Fe@a:1,b,[::1]:2/0?ttl=5&master=m%26m")
    assert url.scheme == "redis+sentinel"
    assert (url.username, url.password) == ("app", "s@f/e")
    assert url.hosts == (Host("a", 1), Host("b"), Host("::1", 2))
    assert url.path == "/0"
    assert url.options == {"ttl": "5", "master": "m&m"}


@pytest.mark.parametrize(
    "text, username, password",
    [
        ("redis://h", None, None),
        ("redis://me@h", "me", None),
        ("redis://:word@h", None, "word"),
        ("redis://me:@h", "me", ""),
        ("redis://me:a:b@h", "me", "a:b"),
        ("redis://me:a@b@h", "me", "a@b"),
        ("redis://me:%F0%9F%94%92%20%00@h", "me", "\U0001f512 \x00"),
    ],
)
def test_user_and_password(text: str, username: str | None, password: str | None) -> None:
    """No password is not an empty one, and any character can be in a password."""
    url = Url.parse(text)
    assert (url.username, url.password, url.hosts) == (username, password, (Host("h"),))


def test_a_path_alone() -> None:
    """A file's URL has no host, and its path is unescaped."""
    url = Url.parse("file:///var/lock/my%20app%3F")
    assert url.hosts == ()
    assert url.path == "/var/lock/my app?"
    assert str(url) == "file:///var/lock/my app?"


def test_default_ports() -> None:
    """A driver's default port fills in only where the URL has none."""
    assert Host("h").or_port(5) == Host("h", 5)
    assert Host("h", 1).or_port(5) == Host("h", 1)
    assert str(Host("::1", 7)) == "[::1]:7"
    assert str(Host("::1")) == "[::1]"


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "begins with a scheme"),
        ("redis", "begins with a scheme"),
        ("redis:/h", "begins with a scheme"),
        ("://h", "begins with a scheme"),
        ("1redis://h", "begins with a scheme"),
        ("r\u00e9dis://h", "begins with a scheme"),
        (" redis://h", "begins with a scheme"),
        ("redis://h:0", "a port is a number from 1 to 65535"),
        ("redis://h:65536", "a port is a number from 1 to 65535"),
        ("redis://h:x", "a port is a number from 1 to 65535"),
        ("redis://h:-1", "a port is a number from 1 to 65535"),
        ("redis://h:\u0661", "a port is a number from 1 to 65535"),
        ("redis://h:1:2", "a port is a number from 1 to 65535"),
        ("redis://[::1", "[address]:port"),
        ("redis://[::1]x", "[address]:port"),
        ("redis://h/\n", "control character"),
        ("redis://h/\x7f", "control character"),
        ("redis://h/%00", "control character"),
        ("redis://h%0a/", "control character"),
        ("file:///\ud800", "UTF-8"),
        ("redis://h/?ttl", "option=value"),
        ("redis://h/?ttl=1&&ttl=2", "option=value"),
        ("redis://h/?ttl=1&ttl=2", "'ttl' is given twice"),
    ],
)
def test_a_wrong_url_is_refused(text: str, says: str) -> None:
    """The error says which part is wrong, or what a URL looks like."""
    with pytest.raises(InvalidURL) as caught:
        Url.parse(text)
    assert says in str(caught.value)


@pytest.mark.parametrize("value", [None, 5, b"redis://h", ["redis://h"]])
def test_a_url_is_text(value: object) -> None:
    """What is no text is refused by its type, and is not shown."""
    with pytest.raises(InvalidURL, match="a backend URL is text") as caught:
        Url.parse(value)  # type: ignore[arg-type]
    assert "redis" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "redis://me:sec/ret@h",
        "redis://me:12/sec-ret@h",
        "redis://:12/sec-ret@h:6379/0",
        "redis://me:sec?ret@h",
        "redis://me:sec#ret@h:x",
        "redis://me:sec\nret@h",
        "redis://me:sec-ret@h:99999",
        "redis://me:sec-ret@[h",
        "redis://me:sec-ret@h?ttl",
    ],
)
def test_an_error_never_quotes_the_password(text: str) -> None:
    """However wrong a URL is, its error shows nothing of what may be the password."""
    with pytest.raises(InvalidURL) as caught:
        Url.parse(text)
    shown = repr(caught.value) + repr(caught.value.__cause__) + repr(caught.value.args)
    assert "sec" not in shown
    assert "ret" not in shown


def test_str_and_repr_hide_secrets() -> None:
    """The password and options that sound secret are masked, the rest is shown."""
    url = Url.parse("redis://me:hush1@h:1/0?ttl=5&sentinel_password=hush2&AuthToken=hush3")
    for text in (str(url), repr(url), f"{url}"):
        assert "hush" not in text
        assert "me:***@h:1/0?ttl=5&sentinel_password=***" in text
    assert url.password == "hush1"
    assert str(Url.parse("redis://:word@h")) == "redis://:***@h"
    assert str(Url.parse("redis://h")) == "redis://h"


def test_an_at_sign_in_a_path_is_a_path() -> None:
    """A path may have an '@' where no password can be meant."""
    assert Url.parse("file:///srv/a@b").path == "/srv/a@b"
    assert Url.parse("unix://me:word@/run/a@b").path == "/run/a@b"


def test_unknown_options_are_named() -> None:
    """An option that the driver does not know is named together with those that it knows."""
    url = Url.parse("redis://h?tll=5")
    with pytest.raises(InvalidURL, match="'tll'; known options: db, ttl"):
        url.check_options({"ttl", "db"})
    with pytest.raises(InvalidURL, match="known options: none"):
        url.check_options(())
    url.check_options({"tll"})


@pytest.mark.parametrize("text", ["x", "", "nan", "inf", "-inf", "0.5", "-1", "1e999"])
def test_a_number_is_a_number(text: str) -> None:
    """A number that is none, is not finite or is too small is refused with the least one."""
    url = Url("redis", options={"ttl": text})
    with pytest.raises(InvalidURL, match="'ttl' must be a number from 1"):
        url.number("ttl", 5.0, least=1.0)


def test_numbers_and_flags() -> None:
    """Options are read as numbers and switches, with a default where they are not given."""
    url = Url("redis", options={"n": "2.5", "yes": "On", "no": "FALSE", "odd": "2"})
    assert url.number("n", 1.0) == 2.5
    assert url.number("other", 1.0) == 1.0
    assert url.flag("yes") is True
    assert url.flag("no", default=True) is False
    assert url.flag("other", default=True) is True
    with pytest.raises(InvalidURL, match="'odd' must be true or false, not '2'"):
        url.flag("odd")
