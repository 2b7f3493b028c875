"""The cases, and how they become tests of one backend.

A case proves a call of Tooz's API, alone and beside a client of Tenure's own on the same store.
Where the driver's traits rule it out, a twin proves that the call is refused with `NotImplemented`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

import tenure
from tenure.compat.tooz import NotImplemented as NotProvided
from tenure.compat.tooz import coordination
from tenure.compat.tooz._driver import TenureDriver
from tenure.testing.backends import Backend

TTL = 5
"""Seconds; the longest that the memcached of the tests takes."""
WAIT = 20.0


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition; fail if it does not come true."""
    give_up = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < give_up, "it did not come true"
        time.sleep(0.01)


def stop(client: TenureDriver) -> None:
    """Stop a client, unless it is stopped."""
    if client.is_started:
        client.stop()


class Env:
    """Two clients of Tooz's API, `a` and `b`, and one of Tenure's, on one backend."""

    def __init__(self, backend: Backend, stack: ExitStack) -> None:
        self.url = backend.url
        self.traits = backend.traits()
        self._stack = stack
        self.a = self.tooz(b"a")
        self.b = self.tooz("b")
        self.tenure = stack.enter_context(tenure.connect(self.url, ttl=TTL, owner="t"))

    def tooz(self, member: bytes | str, *, start: bool = True) -> TenureDriver:
        """One more client of Tooz's API, which is stopped at the end."""
        made = coordination.get_coordinator(self.url, member, timeout=TTL)
        assert isinstance(made, TenureDriver)
        if start:
            made.start()
        self._stack.callback(stop, made)
        return made

    def name(self) -> str:
        """A name that is new to the backend."""
        return f"n-{uuid.uuid4().hex[:12]}"

    def group(self) -> tuple[bytes, tenure.Group]:
        """A group that was just created: its id, and Tenure's view of it."""
        name = self.name()
        self.a.create_group(name.encode()).get()
        return name.encode(), self.tenure.group(name)


Body = Callable[[Env], None]


class Case(NamedTuple):
    """What proves one or more rows of the table."""

    rows: tuple[str, ...]
    body: Body
    needs: str

    @property
    def name(self) -> str:
        return self.body.__name__

    def applies(self, backend: type[Backend]) -> bool:
        """Whether a backend's driver can do it."""
        if self.needs == "rosters":
            return backend.traits().rosters
        if self.needs == "shared":
            return backend.traits().shared
        if self.needs == "claims":
            return backend.name not in NATIVE
        return True


CASES: list[Case] = []
NATIVE = ("file", "ipc", "redis, redlock", "postgresql", "mysql")
"""Where a lock is the backend's own, and nobody but its holder can give it back."""


REFUSED: dict[str, Callable[[Env], object]] = {
    "create_group": lambda env: env.a.create_group(b"g").get(),
    "delete_group": lambda env: env.a.delete_group(b"g").get(),
    "get_groups": lambda env: env.a.get_groups().get(),
    "join_group": lambda env: env.a.join_group(b"g").get(),
    "join_group again after a loss": lambda env: env.a.join_group(b"g").get(),
    "join_group_create": lambda env: env.a.join_group_create(b"g"),
    "leave_group": lambda env: env.a.leave_group(b"g").get(),
    "get_members": lambda env: env.a.get_members(b"g").get(),
    "get_member_capabilities": lambda env: env.a.get_member_capabilities(b"g", b"a").get(),
    "get_members_with_capabilities": lambda env: env.a.get_members_with_capabilities(b"g").get(),
    "get_member_info": lambda env: env.a.get_member_info(b"g", b"a").get(),
    "update_capabilities": lambda env: env.a.update_capabilities(b"g", 1).get(),
    "watch_join_group": lambda env: env.a.watch_join_group(b"g", print),
    "unwatch_join_group": lambda env: env.a.unwatch_join_group(b"g", print),
    "watch_leave_group": lambda env: env.a.watch_leave_group(b"g", print),
    "unwatch_leave_group": lambda env: env.a.unwatch_leave_group(b"g", print),
    "run_watchers": lambda env: env.a.run_watchers(),
    "run_watchers after a restart": lambda env: env.a.run_watchers(),
    "join_partitioned_group": lambda env: env.a.join_partitioned_group(b"g"),
    "leave_partitioned_group": lambda env: env.a.leave_partitioned_group(NO_PARTITIONER),
    "watch_elected_as_leader": lambda env: env.a.watch_elected_as_leader(b"g", print),
    "unwatch_elected_as_leader": lambda env: env.a.unwatch_elected_as_leader(b"g", print),
    "run_elect_coordinator": lambda env: env.a.run_elect_coordinator(),
    "get_leader": lambda env: env.a.get_leader(b"g").get(),
    "stand_down_group_leader": lambda env: env.a.stand_down_group_leader(b"g"),
    "lock.acquire(shared)": lambda env: env.a.get_lock(env.name()).acquire(shared=True),
    "lock.break_": lambda env: env.a.get_lock(env.name()).break_(),
}
"""By row, the call that is refused where it cannot be carried out."""
NO_PARTITIONER: Any = SimpleNamespace(group_id=b"g", stop=lambda: None)


def case(*rows: str, needs: str = "") -> Callable[[Body], Body]:
    """Register a case; `needs` says what the driver must have."""

    def register(body: Body) -> Body:
        CASES.append(Case(rows, body, needs))
        return body

    return register


def suite(backend_class: type[Backend]) -> type:
    """A test class with every case, on one backend."""
    from . import cases_groups, cases_leaders, cases_locks

    assert cases_groups
    assert cases_leaders
    assert cases_locks

    class Compat:
        """Every call of Tooz's API on one backend."""

        @pytest.fixture(scope="class")
        @classmethod
        def env(cls) -> Iterator[Env]:
            backend = backend_class()
            backend.start()
            with ExitStack() as stack:
                stack.callback(backend.stop)
                yield Env(backend, stack)

        @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
        def test_call(self, env: Env, case: Case) -> None:
            """The call does what it promises, alone and beside Tenure's own clients.

            Where the backend cannot do it, the call raises `NotImplemented`.
            """
            if case.applies(backend_class):
                case.body(env)
            else:
                for row in case.rows:
                    with pytest.raises(NotProvided):
                        REFUSED[row](env)

        def test_native_locks_are_known(self, env: Env) -> None:
            """Those with a lock of the backend's own are the drivers with a mutex."""
            driver: Any = env.tenure._session.driver
            assert (driver.mutex is not None) == (backend_class.name in NATIVE)

    return Compat


def lose(coordinator: TenureDriver) -> None:
    """End the session of a client as its deadline would."""
    session = coordinator.tenure._session
    life = session.alive
    assert life is not None
    session.lose(life, "as the test wants it")
