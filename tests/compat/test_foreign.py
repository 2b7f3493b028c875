"""Drivers that others have written, for Tooz or for this package, are found and work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tenure.compat.tooz import NotImplemented as NotProvided
from tenure.compat.tooz import ToozError, coordination

THEIRS = '''
"""What a driver for Tooz itself looks like: errors, events and results of Tooz's own."""
import enum

class ToozError(Exception):
    def __init__(self, message, cause=None):
        super().__init__(message)
        self.cause = cause
class NotImplemented(NotImplementedError, ToozError):
    pass
class GroupNotCreated(ToozError):
    def __init__(self, group_id):
        self.group_id = group_id
        super().__init__("no group %s" % group_id)
class Odd(ToozError):
    pass
class Characteristics(enum.Enum):
    LINEARIZABLE = "LINEARIZABLE"
class MemberJoinedGroup:
    def __init__(self, group_id, member_id):
        self.group_id, self.member_id = group_id, member_id
class Result:
    def __init__(self, call):
        self.call = call
    def get(self, timeout=None):
        return self.call()
    def done(self):
        return True
class Lock:
    def __init__(self, name):
        self.name, self.acquired = name, False
    def acquire(self, blocking=True, shared=False, timeout=None):
        if shared:
            raise NotImplemented("no")
        self.acquired, free = True, not self.acquired
        return free
    def release(self):
        self.acquired, held = False, self.acquired
        return held
    def break_(self):
        return self.release()
    def is_still_owner(self):
        return self.acquired
class Driver:
    CHARACTERISTICS = (Characteristics.LINEARIZABLE,)
    requires_beating = True
    def __init__(self, member_id, parsed_url, options):
        if "refuse" in options:
            raise Odd("refused")
        self.member_id, self.url, self.options = member_id, parsed_url, options
        self.is_started, self.members, self.hooks, self.own = False, None, [], "their own"
    def start(self, start_heart=False):
        self.is_started = True
    def stop(self):
        self.is_started = False
    def heartbeat(self):
        return 7
    def create_group(self, group_id):
        self.members = []
        return Result(lambda: None)
    def join_group(self, group_id, capabilities=None):
        def join():
            if self.members is None:
                raise GroupNotCreated(group_id)
            self.members.append(group_id)
        return Result(join)
    def join_group_create(self, group_id, capabilities=None):
        self.create_group(group_id).get()
        self.join_group(group_id).get()
    def get_members_with_capabilities(self, group_id):
        return Result(lambda: {b"me": {"weight": 1}})
    def leave_group(self, group_id):
        return Result(lambda: None)
    def get_leader(self, group_id):
        raise NotImplemented("not here")
    def watch_join_group(self, group_id, callback):
        self.hooks.append(callback)
    unwatch_join_group = watch_leave_group = lambda self, group_id, callback: None
    unwatch_leave_group = unwatch_join_group
    def run_watchers(self, timeout=None):
        return [hook(MemberJoinedGroup(b"g", b"new")) for hook in self.hooks]
    def get_lock(self, name):
        return Lock(name)
'''
OURS = """
from tenure.compat.tooz import coordination
class Driver(coordination.CoordinationDriver):
    pass
"""
POINTS = """\
[tooz.backends]
theirs+x = their_driver:Driver
redis = their_driver:Driver
ours = our_driver:Driver
broken = no_such_module:Driver
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two distributions are installed, as pip would leave them."""
    (tmp_path / "their_driver.py").write_text(THEIRS)
    (tmp_path / "our_driver.py").write_text(OURS)
    info = tmp_path / "some_drivers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-drivers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)


def made(url: str = "theirs+x://h/p?a=1&a=2", **options: Any) -> Any:
    return coordination.get_coordinator(url, b"me", **options)


def test_a_driver_of_theirs_is_made_as_tooz_makes_it() -> None:
    """It gets the member's id, the parsed URL, and all options, the call's for the URL's."""
    driver = made("theirs+x://h/p?a=1&a=2&c=4&ssl=", a=3, b=True)
    assert issubclass(type(driver), coordination.CoordinationDriver)
    assert driver.member_id == b"me"
    assert (driver.url.hostname, driver.url.path) == ("h", "/p")
    assert driver.url.params() == {"a": "2", "c": "4"}
    assert driver.options == {"a": [3], "b": [True], "c": ["4"]}
    assert driver.own == "their own"
    assert driver.CHARACTERISTICS == (coordination.Characteristics.LINEARIZABLE,)
    with pytest.raises(coordination.ToozDriverChosenPoorly):
        made(characteristics=[coordination.Characteristics.CAUSAL])
    with pytest.raises(ToozError, match="refused"):
        made(refuse=1)


def test_calls_errors_and_events_are_passed_on() -> None:
    """The program sees this package's errors and events, whoever raises and tells."""
    driver = made()
    driver.start(start_heart=True)
    assert driver.is_started
    assert driver.heartbeat() == 7
    joining = driver.join_group(b"g")
    assert joining.done()
    with pytest.raises(coordination.GroupNotCreated, match="no group") as caught:
        joining.get()
    assert caught.value.args == ("no group b'g'",)
    driver.create_group(b"g").get(timeout=1)
    assert driver.join_group(b"g").get() is None
    with pytest.raises(NotProvided, match="not here"):
        driver.get_leader(b"g")
    told: list[Any] = []
    driver.watch_join_group(b"g", told.append)
    driver.run_watchers()
    assert isinstance(told[0], coordination.MemberJoinedGroup)
    assert told[0].member_id == b"new"
    driver.unwatch_join_group(b"g", told.append)
    with pytest.raises(coordination.WatchCallbackNotFound):
        driver.unwatch_join_group(b"g", told.append)
    partitioner = driver.join_partitioned_group(b"g")
    assert partitioner.belongs_to_self("anything")
    driver.leave_partitioned_group(partitioner)
    driver.stop()
    assert not driver.is_started


def test_a_driver_of_theirs_may_be_older_than_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The capabilities of all are asked for one by one, if it has no call for all of them."""
    import their_driver  # type: ignore[import-not-found]

    kind, got = their_driver.Driver, their_driver.Result

    def refuses(*_: Any) -> Any:
        raise their_driver.NotImplemented("not here")

    monkeypatch.setattr(kind, "get_members", lambda *_: got(lambda: {b"w"}), raising=False)
    weight = got(lambda: {"weight": 2})
    monkeypatch.setattr(kind, "get_member_capabilities", lambda *_: weight, raising=False)
    monkeypatch.setattr(kind, "get_members_with_capabilities", refuses)
    assert len(made().join_partitioned_group(b"g").ring) == 64
    monkeypatch.delattr(kind, "get_members_with_capabilities")
    assert len(made().join_partitioned_group(b"g").ring) == 64


def test_their_locks_work() -> None:
    """With all calls, the call form, and what they do not have."""
    lock = made().get_lock(b"l")
    with lock(blocking=False) as held:
        assert held is lock
        assert lock.acquired
        assert lock.is_still_owner()
        with pytest.raises(coordination.LockAcquireFailed), lock(timeout=1):
            pytest.fail("it is taken")
    assert not lock.release()
    assert lock.acquire()
    assert lock.break_()
    with pytest.raises(NotProvided):
        lock.acquire(shared=True)
    with pytest.raises(NotProvided):
        lock.heartbeat()


def test_tenures_own_drivers_come_first() -> None:
    """An entry point for a scheme of Tenure's, such as Tooz's own has, changes nothing."""
    assert type(made("redis://h")).__name__ == "RedisDriver"


def test_a_driver_for_this_package_is_used_as_it_is() -> None:
    """What derives from this package's base needs no translation."""
    assert type(made("ours://")).__module__ == "our_driver"


def test_a_driver_that_cannot_be_imported_is_named() -> None:
    """The error says which entry point is broken."""
    with pytest.raises(coordination.ToozDriverChosenPoorly, match="no_such_module"):
        made("broken://")
