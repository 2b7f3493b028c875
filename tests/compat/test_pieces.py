"""Ids, capabilities, rings, results, hearts, utilities, and what other drivers derive from."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import hashlib
import math
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.compat.tooz import ToozError, coordination, hashring, utils
from tenure.compat.tooz._ids import MARK, id_of, name_of
from tenure.compat.tooz._payload import decode, encode

from .suite import until

# -- ids -----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_ids_are_not_lost(one: bytes, other: bytes) -> None:
    """Each id comes back from its name, and no two have the same."""
    assert id_of(name_of(one)) == one
    assert (name_of(one) == name_of(other)) == (one == other)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_text_is_its_own_name(text: str) -> None:
    """The id of a text is its UTF-8, under its own name."""
    if not text.startswith(MARK):
        assert name_of(text) == name_of(text.encode()) == text
    assert id_of(text) == text.encode()


def test_the_mark_is_no_way_around() -> None:
    """What begins with the mark is an id as any other."""
    odd = MARK.encode() + b"ff"
    assert name_of(odd) != MARK + "ff" == name_of(b"\xff")
    assert id_of(name_of(odd)) == odd
    assert id_of(MARK + "no hex") == (MARK + "no hex").encode()


# -- capabilities ----------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
keys = st.text(max_size=3) | st.integers() | st.binary(max_size=3) | st.tuples(st.integers())
rich = st.recursive(
    st.none() | st.floats(allow_nan=False) | st.binary(max_size=5) | st.datetimes() | st.dates()
    | st.uuids() | st.sets(keys, max_size=3) | st.frozensets(keys, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(rich)
def test_capabilities_come_back(value: Any) -> None:
    """Whatever can be published is read as it was."""
    assert utils.loads(utils.dumps(value)) == value


@settings(max_examples=60, deadline=None)
@given(plain)
def test_json_is_itself(value: Any) -> None:
    """What JSON has is written as it is, for other clients to read."""
    if "Infinity" not in str(value) and "inf" not in str(value):
        assert encode(value) == value
    assert decode(encode(value)) == value


def test_what_looks_encoded_is_not_mistaken() -> None:
    """A member's own use of the key comes back; nonsense of others stays what it is."""
    for value in ({"__tooz__": "bytes", "value": "AA=="}, {"__tooz__": 1}):
        assert utils.loads(utils.dumps(value)) == value
    odds: list[Any] = [{"__tooz__": "set", "value": 3}, {"__tooz__": "?", "value": 3}]
    for odd in [*odds, {"__tooz__": []}]:
        assert decode(odd) == odd
    assert math.isnan(utils.loads(utils.dumps(math.nan)))
    assert utils.loads(utils.dumps((1, (2,)))) == [1, [2]]


def test_what_cannot_be_written_is_refused() -> None:
    """The error is the one that was asked for, and has the cause."""
    loop: list[Any] = []
    loop.append(loop)
    for value in (object(), {"deep": [object()]}, loop):
        with pytest.raises(utils.SerializationError) as caught:
            utils.dumps(value)
        assert caught.value.cause is not None
    with pytest.raises(coordination.ToozConnectionError):
        utils.loads(b"{", coordination.ToozConnectionError)


# -- the ring ---------------------------------------------------------------------


def placement(ring: hashring.HashRing) -> str:
    """A digest of whose 2,000 keys are, with one replica."""
    keys = [b"key-%d" % number for number in range(2000)]
    owners = [[*sorted(map(str, ring.get_nodes(key, replicas=2))), str(ring[key])] for key in keys]
    return hashlib.sha256(repr(owners).encode()).hexdigest()[:16]


def test_the_ring_places_keys_as_tooz_does() -> None:
    """The owners are those that Tooz 9.1 was seen to choose, so both can run side by side."""
    ring = hashring.HashRing([f"node-{number}" for number in range(7)])
    assert placement(ring) == "2f3e9b9ec8d036b5"
    other = hashring.HashRing([], partitions=16, hash_function="sha256")
    other.add_node(b"n1", weight=3)
    other.add_nodes(["n2", "n3"])
    other.add_nodes(["n4"], weight=2)
    other.remove_node("n2")
    assert placement(other) == "47cebc47d00f37bc"


def test_the_ring_answers_like_tooz() -> None:
    """Sizes, replicas, nodes to ignore, and what is not there."""
    ring = hashring.HashRing(["a", "b", b"c"])
    assert len(ring) == 96
    assert ring.get_nodes(b"x", replicas=9) == {"a", "b", b"c"}
    assert ring.get_nodes(b"x", ignore_nodes=["a", "b"]) == {b"c"}
    assert ring.get_nodes(b"x", replicas=0) == set()
    assert ring.get_nodes(b"x", ignore_nodes=["a", "b", b"c"]) == set()
    assert hashring.HashRing([])[b"x"] == set()
    with pytest.raises(hashring.UnknownNode) as caught:
        ring.remove_node("d")
    assert caught.value.node == "d"
    ring.add_node("d", weight=3)
    assert len(ring) == 192
    ring.add_node("d", weight=1)
    assert len(ring) == 128
    with pytest.raises(ValueError, match="nope"):
        hashring.HashRing([], hash_function="nope")


# -- results and hearts -------------------------------------------------------------


def test_a_result_of_a_future() -> None:
    """It waits, gives up in time, and translates what the call raised."""
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    result = coordination.CoordinatorResult(future)
    assert not result.done()
    with pytest.raises(coordination.OperationTimedOut):
        result.get(timeout=0.01)
    future.set_result(3)
    assert result.done()
    assert result.get() == 3


class Patient:
    """Has a heart that fails at first."""

    def __init__(self) -> None:
        self.errors: list[Exception] = [ToozError("first"), ZeroDivisionError()]
        self.beats = 0

    def heartbeat(self) -> float:
        self.beats += 1
        if self.errors:
            raise self.errors.pop()
        return 0.01


def test_a_heart_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It beats in a thread of the class given, whatever a beat raises, until it is stopped."""
    from tenure.compat.tooz import _heart

    monkeypatch.setattr(_heart, "RETRY_SECONDS", 0.01)
    patient = Patient()

    class Thread(threading.Thread):
        pass

    heart = coordination.Heart(patient, Thread)
    assert not heart.is_alive()
    heart.start()
    heart.start()
    until(lambda: heart.beats >= 3)
    assert patient.beats >= 5
    assert isinstance(heart._thread, Thread)
    heart.stop()
    assert not heart.wait(10)
    assert not heart.is_alive()
    heart.start(threading.Thread)
    until(lambda: heart.beats)
    assert heart.wait(0.01)
    heart.stop()
    assert not heart.wait()
    assert not coordination.Heart(patient).wait()


# -- what others derive from ---------------------------------------------------------


class Simple(
    coordination.CoordinationDriverCachedRunWatchers, coordination.CoordinationDriverWithExecutor
):
    """A driver as somebody might write one: groups in a dictionary."""

    groups: dict[Any, dict[bytes, Any]]

    def create_group(self, group_id: Any) -> coordination.CoordAsyncResult[None]:
        self.groups = {group_id: {}}
        return coordination.CoordinatorResult(self.submit(dict))

    def join_group(
        self, group_id: Any, capabilities: Any = None
    ) -> coordination.CoordAsyncResult[None]:
        def join() -> None:
            if group_id not in self.groups:
                raise coordination.GroupNotCreated(group_id)
            self.groups[group_id][self._member_id] = capabilities

        return coordination.CoordinatorResult(self.submit(join))

    def get_members(self, group_id: Any) -> coordination.CoordAsyncResult[set[bytes]]:
        def members() -> set[bytes]:
            if group_id not in self.groups:
                raise coordination.GroupNotCreated(group_id)
            return set(self.groups[group_id])

        return coordination.CoordinatorResult(self.submit(members))


@pytest.mark.parametrize("executor", ["sync", "threaded"])
def test_a_driver_can_be_written(executor: str) -> None:
    """The bases give watchers, joining with creating, and an executor."""
    made = Simple(b"m", None, {"executor": ["nonsense", executor]})
    made.groups = {}
    with pytest.raises(ToozError, match="started"):
        made.get_members("g")
    made.start()
    made.join_group_create("g", {"weight": 2})
    told: list[Any] = []
    made.watch_join_group("g", told.append)
    made.watch_leave_group("g", told.append)
    made.groups["g"][b"n"] = None
    assert made.run_watchers() == [None]
    del made.groups["g"]
    made.run_watchers()
    kinds = [(type(event).__name__, event.member_id) for event in told]
    assert kinds == [
        ("MemberJoinedGroup", b"n"),
        ("MemberLeftGroup", b"m"),
        ("MemberLeftGroup", b"n"),
    ]
    with pytest.raises(coordination.OperationTimedOut):
        made.run_watchers(timeout=-1)
    made.unwatch_join_group("g", told.append)
    made.unwatch_leave_group("g", told.append)
    assert made.run_watchers(timeout=-1) == []
    made.stop()
    with pytest.raises(ToozError, match="executor"):
        Simple(b"m", None, {"executor": ["nonsense"]})


# -- utilities ----------------------------------------------------------------------


def test_blocking_is_a_flag_or_a_time() -> None:
    """As `acquire` takes it."""
    convert = utils.convert_blocking
    assert convert(True) == (True, None)
    assert convert(False, 3) == (False, 3)
    assert convert(0) == (True, 0.0)
    assert convert("3.5") == (True, 3.5)


def test_utilities_do_what_they_say() -> None:
    """Options, times, paths, bytes, and URLs of locks."""
    config = {"a": [1, 2], "b": [], "c": 3, "d": (4, 5)}
    assert utils.collapse(config) == {"a": 2, "c": 3, "d": 5}
    assert utils.collapse({"a": [1, 2]}, exclude=["a"]) == {"a": [1, 2]}
    assert utils.collapse({"a": [1, 2]}, item_selector=min) == {"a": 1}
    assert utils.to_binary("a") == utils.to_binary(b"a") == b"a"
    assert utils.safe_abs_path("/a", "b/../c") == "/a/c"
    for outside in ("../c", "/b", "../aa"):
        with pytest.raises(ValueError, match="out of"):
            utils.safe_abs_path("/a", outside)


def test_a_lock_has_the_url_that_tooz_gives_it() -> None:
    """The name is a path of its own below the prefix, which is part of the keyspace."""
    encoder = utils.Base64LockEncoder("http://x", "/p/")
    assert encoder.keyspace_url == "http://x/p/"
    assert encoder.check_and_encode("name") == "http://x/p//bmFtZQ=="
    assert utils.Base64LockEncoder("http://x").encode(b"\xff") == "http://x/_w=="
    with pytest.raises(TypeError):
        encoder.check_and_encode(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ASCII"):
        encoder.check_and_encode("n\xe4me")


def test_a_time_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no time zone, and is that of the machine."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "XYZ-5:30")
        time.tzset()
        assert utils.millis_to_datetime("1500").isoformat() == "1970-01-01T05:30:01.500000"
        client = coordination.get_coordinator("memory://times", b"m")
        client.start()
        client.join_group_create(b"g")
        info = client.get_member_info(b"g", b"m").get()
        client.stop()
        zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
        for at in (info["created_at"], info["updated_at"]):
            assert abs(at.replace(tzinfo=zone).timestamp() - time.time()) < 600
    time.tzset()


def test_an_executor_keeps_the_order() -> None:
    """A call begins when the one before it has ended, and a stopped one takes none."""
    executor = utils.ProxyExecutor.build("d", {"executor": "threaded"})
    executor.start()
    done: list[int] = []

    def slow(number: int, pause: float) -> None:
        time.sleep(pause)
        done.append(number)

    for number in range(3):
        executor.submit(slow, number, 0.1 if number == 0 else 0)
    assert executor.executor is not None
    executor.executor.shutdown()
    assert done == [0, 1, 2]
    with pytest.raises(ToozError, match="stopped"):
        executor.submit(print)
    executor.stop()
    assert executor.executor is None


def test_a_locks_proxy_tells_what_it_is_of() -> None:
    """The lock and the arguments of its `acquire` can be read, and an event needs no arguments."""
    lock = coordination.get_coordinator("memory://x", b"m").get_lock(b"l")
    proxy = lock(False, timeout=3)
    assert (proxy.lock, proxy.args, proxy.kwargs) == (lock, (False,), {"timeout": 3})
    assert isinstance(coordination.LeaderElected(b"g", b"m"), type(coordination.Event()))


def test_errors_have_a_cause() -> None:
    """The cause is the one that is given, or the one that is being handled."""
    with pytest.raises(coordination.ToozConnectionError) as caught:
        utils.raise_with_cause(coordination.ToozConnectionError, "m", cause=KeyError("k"))
    assert isinstance(caught.value.cause, KeyError)

    def while_handling(error: Exception) -> None:
        try:
            raise error
        except KeyError:
            utils.raise_with_cause(ToozError, "m")

    handled = KeyError("k")
    with pytest.raises(ToozError) as wrapped:
        while_handling(handled)
    assert wrapped.value.cause is handled
    assert coordination.MemberNotJoined("g", b"\xffm").member_id == r"\xffm"
