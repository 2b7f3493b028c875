"""Tooz's URLs and options mean what they meant, or are refused."""

from __future__ import annotations

from typing import Any

import pytest

from tenure._url import Url
from tenure.compat.tooz import ToozError, coordination
from tenure.compat.tooz._urls import Target, options_of, split, translate, unparsed

TRANSLATED = {
    "redis://h": "redis://h",
    "redis://:s%2Fcret@h:1/2": "redis://:s%2Fcret@h:1/2",
    "redis://h?db=3": "redis://h/3",
    "redis://h/1?db=3&socket_timeout=9&encoding=utf8&executor=sync": "redis://h/3",
    "redis:///run/redis.sock?db=2": "unix:///run/redis.sock?db=2",
    "redis://h?ssl=true&ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k": (
        "rediss://h?ca=%2Fca&cert=%2Fc&key=%2Fk"
    ),
    "redis://h?ssl=false&ssl_ca_certs=/ca": "redis://h",
    "rediss://h?ca=/ca": "rediss://h?ca=%2Fca",
    "redis://:p@h:1?sentinel=m&sentinel_fallback=i:2&sentinel_fallback=j": (
        "redis+sentinel://:p@h:1,i:2,j/m"
    ),
    "redis://h?sentinel=m&db=4&sentinel_username=u&sentinel_password=x%26y&sentinel_ssl=1": (
        "redis+sentinel://h/m/4?tls=true&sentinel_username=u&sentinel_password=x%26y"
    ),
    "redis+sentinel://h/m?db=5": "redis+sentinel://h/m/5",
    "redis://a:1,b:2,c:3?lock=redlock": "redis://a:1,b:2,c:3?lock=redlock",
    "memcached://h:1?max_pool_size=7&use_ssl=false": "memcached://h:1?connections=7",
    "ipc://": "ipc://tooz",
    "ipc://mine": "ipc://mine",
    "file:///var/lib/locks": "file:///var/lib/locks",
    "file:///with%20space": "file:///with%20space",
    "postgresql://u:p@h:1/db": "postgresql://u:p@h:1/db",
    "postgresql://u@h/db?dbname=other&sslmode=require": "postgresql://u@h/other?sslmode=require",
    "postgresql://u@h:1/db?host=/run/pg": "postgresql://u@/db?host=%2Frun%2Fpg&port=1",
    "postgresql:///db?port=9": "postgresql:///db?port=9",
    "postgresql://h?lock=row": "postgresql://h?lock=row",
    "mysql://u:p@h/db": "mysql://u:p@h/db",
    "mysql:///db": "mysql://localhost/db",
    "mysql://u@h/db?unix_socket=/run/m.sock": "mysql://u@/db?socket=%2Frun%2Fm.sock",
    "mysql://h/db?ssl_ca=/ca&ssl_verify_mode=none&ssl_check_hostname=0": (
        "mysql://h/db?ca=%2Fca&tls=true&verify=false"
    ),
    "mysql://h/db?ssl_verify_mode=CERT_REQUIRED": "mysql://h/db?tls=true&verify=true",
    "zookeeper://a:1,b:2/chroot": "zookeeper://a:1,b:2/chroot",
    "kazoo://u:p@a?hosts=b:2,c&randomize_hosts=true&handler=threading": "kazoo://u:p@a,b:2,c",
    "zookeeper://a?use_ssl=true&ca=/ca&certfile=/c&keyfile=/k&verify_certs=false": (
        "zookeeper://a?tls=true&ca=%2Fca&cert=%2Fc&key=%2Fk&verify=false"
    ),
    "zookeeper://a?verify_certs=true&certfile=/c": "zookeeper://a",
    "zake://": "zake://",
    "etcd://h": "etcd://h",
    "etcd://h:1?protocol=https": "etcds://h:1",
    "etcd3://h?ca_cert=/ca": "etcds://h?ca=%2Fca",
    "etcd3+http://h:1?api_version=v3": "etcd3+http://h:1",
    "etcd3+https://h?ca_cert=/ca&cert_cert=/c&cert_key=/k": (
        "etcd3+https://h?ca=%2Fca&cert=%2Fc&key=%2Fk"
    ),
    "consul://h:1?acl_token=t%2Fk&datacenter=east": "consul://:t%2Fk@h:1?dc=east",
    "memory://x": "memory://x",
    "sqlite:///f.db?sentinel=m": "sqlite:///f.db",
    "mysql://u@h/db?charset=utf8&read_timeout=3&write_timeout=3": "mysql://u@h/db",
    "postgresql://u@h/db?client_encoding=utf8&charset=utf8": "postgresql://u@h/db",
    "redis://h?ssl=&db=&sentinel=&timeout=&namespace=": "redis://h",
    "mysql://h/db?ssl_ca=&ssl_verify_mode=": "mysql://h/db",
    "sql+mysql://h/db?charset=utf8mb4&ssl_ca=/ca&executor=sync": (
        "sql+mysql://h/db?charset=utf8mb4&ssl_ca=%2Fca"
    ),
    "redis://[::1]:7/0": "redis://[::1]:7/0",
}

REFUSED = {
    "redis://h?nonsense=1": "nonsense",
    "redis://h?nonsense=": "nonsense",
    "redis://h?ssl=maybe": "ssl",
    "redis://h?sentinel=m&ssl=true&sentinel_ssl=false": "sentinel_ssl",
    "memcached://h?use_ssl=true": "use_ssl",
    "memcached://h?ssl_ciphers=X": "ssl_ciphers",
    "mysql://h/db?ssl_capath=/d": "ssl_capath",
    "mysql://h/db?ssl_check_hostname=false": "ssl_verify_mode",
    "zookeeper://h?keyfile_password=x": "keyfile_password",
    "etcd3+http://h?ca_cert=/ca": r"etcd3\+https",
    "file://": "file",
    "redis://h?timeout=soon": "timeout",
    "redis://h?timeout=-1": "timeout",
    "redis://:se#cret@h": "%23",
    "redis://u:pw/d@h": "%2F",
}


def translated(url: str, **options: Any) -> Target:
    """What a URL and options mean."""
    parsed = split(url)
    return translate(parsed, options_of(parsed, options))


@pytest.mark.parametrize("url", TRANSLATED)
def test_urls_are_translated(url: str) -> None:
    """Each part and option of Tooz's URL is where Tenure's driver looks for it."""
    assert translated(url).url == TRANSLATED[url]


@pytest.mark.parametrize("url", REFUSED)
def test_what_cannot_be_is_refused(url: str) -> None:
    """A wrong value, or a promise that cannot be kept, is an error that names the option."""
    with pytest.raises(coordination.InvalidOption, match=REFUSED[url]) as caught:
        coordination.get_coordinator(url, b"m")
    assert isinstance(caught.value, ToozError)
    assert isinstance(caught.value, ValueError)
    assert "cret" not in str(caught.value)


def test_options_of_the_call_count_more() -> None:
    """Options are in the URL or in the call, as text, numbers or booleans; the call's win."""
    assert translated("redis://h?timeout=9", timeout=7).ttl == 7
    assert translated("redis://h", ssl=True, db=2).url == "rediss://h/2"
    assert translated("redis://h", ssl=False).url == "redis://h"
    assert translated("redis://h?sentinel_fallback=i", sentinel="m").url == "redis+sentinel://h,i/m"
    fallback = ["i:1", "j:2"]
    parsed = split("redis://h?sentinel=m")
    options = {**options_of(parsed, {}), "sentinel_fallback": fallback}
    assert translate(parsed, options).url == "redis+sentinel://h,i:1,j:2/m"
    assert translated("redis://h", db=None).url == "redis://h"
    assert translated("redis://h?db=3", db=None, ssl="", nonsense=None).url == "redis://h"
    assert translated("kazoo://a?hosts=b&hosts=c", hosts="d").url == "kazoo://a,d"
    assert translated("kazoo://a?hosts=b", hosts=["c", "d"]).url == "kazoo://a,c,d"


def test_the_shortest_time_is_the_ttl() -> None:
    """One session has one TTL: the shortest that was asked for, if the backend can keep it."""
    assert translated("redis://h").ttl is None
    assert translated("redis://h?timeout=30&lock_timeout=20&membership_timeout=40").ttl == 20
    assert translated("memcached://h?leader_timeout=3&timeout=30").ttl == 3
    assert translated("memcached://h?timeout=600").ttl == 30
    assert translated("memcached://h?timeout=600&ttl_max=60").ttl == 60
    assert translated("zookeeper://h?timeout=0.1").ttl == 2
    assert translated("redis://h?timeout=999999").ttl == 86_400
    assert translated("redis://h?timeout=30&ttl=5").ttl == 5


def test_namespaces_and_waits() -> None:
    """A namespace of Tooz's is one of Tenure's; how long joining may wait is an option of ours."""
    target = translated("redis://h?namespace=mine&join_timeout=2.5")
    assert (target.namespace, target.join_timeout) == ("mine", 2.5)
    assert translated("redis://h") == Target("redis://h", None, None)
    target = translated("redis://h?allow=redis,etcd", min_level="preview")
    assert (target.allow, target.min_level) == (("redis", "etcd"), "preview")


def test_a_driver_that_has_not_earned_its_place_is_chosen_poorly() -> None:
    """What Tenure's policy refuses at the start is an error of Tooz's, too."""
    made = coordination.get_coordinator("memory://x", b"m", min_level="stable")
    with pytest.raises(coordination.ToozDriverChosenPoorly, match="memory"):
        made.start()
    assert not made.is_started


def test_no_password_is_shown() -> None:
    """Neither a target nor a coordinator shows a password or a token."""
    for url in ("redis://:hush@h", "redis://h?sentinel=m&sentinel_password=hush"):
        made = coordination.get_coordinator(url, b"m")
        assert "hush" in translated(url).url
        assert "hush" not in repr(made) + repr(translated(url))


def test_a_url_survives_its_parts() -> None:
    """What is put together from a URL's parts has the same parts."""
    text = "x+y://u%40%3A:p%2F%3F%25@h%20o:1,[::1]:2/a%20b/%25?k=v%26w&e="
    url = Url.parse(text)
    again = Url.parse(unparsed(url))
    for part in Url.__slots__:
        assert getattr(again, part) == getattr(url, part)


def test_a_url_is_text() -> None:
    """Anything else is refused, and so is an id that is none."""
    with pytest.raises(coordination.InvalidOption, match="text"):
        coordination.get_coordinator(b"redis://h", b"m")  # type: ignore[arg-type]
    with pytest.raises(coordination.InvalidOption, match="id"):
        coordination.get_coordinator("redis://h", 3)  # type: ignore[arg-type]
    with pytest.raises(coordination.InvalidOption, match="owner"):
        coordination.get_coordinator("redis://h", b"")
