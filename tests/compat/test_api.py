"""The names, signatures and hierarchies are those of Tooz 9.1."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from tenure.compat.tooz import coordination, drivers

from .facts import Fact, facts


def found(name: str) -> Any:
    """What has a name below `tenure.compat.tooz`."""
    module, _, rest = name.partition(".")
    where = "tenure.compat.tooz" if module == "tooz" else f"tenure.compat.tooz.{module}"
    value: Any = importlib.import_module(where)
    for part in rest.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("fact", list(facts("class")), ids=lambda fact: fact.name)
def test_classes_have_their_bases(fact: Fact) -> None:
    """Each class exists, and derives from classes of the same names."""
    names = [each.__name__ for each in inspect.getmro(found(fact.name))]
    assert {base.strip() for base in fact.detail.split(",")} <= set(names)


@pytest.mark.parametrize("fact", list(facts("call")), ids=lambda fact: fact.name)
def test_calls_take_what_they_took(fact: Fact) -> None:
    """Whatever could be passed to a call can be, under the same names, in the same order."""
    signature = inspect.signature(found(fact.name))
    parameters = [each for each in signature.parameters.values() if each.name != "self"]
    takes_all = {each.kind for each in parameters} >= {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }
    wanted = [text for text in fact.detail.split(", ") if text]
    for at, text in enumerate(wanted):
        name, _, default = text.partition("=")
        if takes_all:
            break
        mine = parameters[at]
        assert str(mine).partition(":")[0].partition("=")[0] == name or name == "event"
        if default and default != "…":
            shown = getattr(mine.default, "__name__", repr(mine.default))
            assert shown == default.strip("'") or shown == default
    for extra in parameters[len(wanted) :]:
        assert takes_all or extra.default is not inspect.Parameter.empty


@pytest.mark.parametrize("fact", list(facts("property")), ids=lambda fact: fact.name)
def test_properties_are_properties(fact: Fact) -> None:
    """What was read without a call still is."""
    assert isinstance(found(fact.name), property)


@pytest.mark.parametrize("fact", list(facts("value")), ids=lambda fact: fact.name)
def test_values_are_there(fact: Fact) -> None:
    """Constants and members of enumerations exist."""
    found(fact.name)


@pytest.mark.parametrize("fact", list(facts("driver")), ids=lambda fact: fact.name)
def test_drivers_are_found(fact: Fact) -> None:
    """Each driver's class has its old name and characteristics, and serves its schemes."""
    module, _, name = fact.name.partition(".")
    driver = getattr(importlib.import_module(f"{drivers.__name__}.{module}"), name)
    assert issubclass(driver, coordination.CoordinationDriver)
    assert coordination.Characteristics.DISTRIBUTED_ACROSS_THREADS in driver.CHARACTERISTICS
    for scheme in fact.detail.split():
        made = coordination.get_coordinator(
            f"{scheme}://{'/tmp' if scheme == 'file' else ''}", b"m"
        )
        assert type(made) is driver
        assert made.CHARACTERISTICS == driver.CHARACTERISTICS


def test_characteristics_are_earned() -> None:
    """A class has what evidence corroborates, an instance what its strategy has earned."""
    known = coordination.Characteristics
    etcd = importlib.import_module(f"{drivers.__name__}.etcd").EtcdDriver
    assert known.LINEARIZABLE in etcd.CHARACTERISTICS
    assert known.NON_TIMEOUT_BASED not in etcd.CHARACTERISTICS
    assert known.SERIALIZABLE not in etcd.CHARACTERISTICS
    plain = coordination.get_coordinator("redis://cache", b"m")
    several = coordination.get_coordinator("redis://a,b,c?lock=redlock", b"m")
    assert known.CAUSAL in plain.CHARACTERISTICS
    assert known.CAUSAL not in several.CHARACTERISTICS
    with pytest.raises(coordination.ToozDriverChosenPoorly, match="NON_TIMEOUT_BASED"):
        coordination.get_coordinator("redis://cache", b"m", [known.NON_TIMEOUT_BASED])


def test_a_scheme_that_nobody_knows_is_refused() -> None:
    """The error names the scheme, and those that there are."""
    with pytest.raises(coordination.ToozDriverChosenPoorly, match=r"'punchcards'.*zookeeper"):
        coordination.get_coordinator("punchcards://deck", b"m")


def test_the_base_implements_nothing() -> None:
    """A driver that derives from the base refuses what it does not implement."""
    base = coordination.CoordinationDriver("m", None, {})
    refusal = found("tooz.NotImplemented")
    for fact in facts("implements"):
        for call in fact.detail.split():
            if hasattr(base, call) and not call.startswith(("watch", "unwatch", "heartbeat")):
                takes = len(inspect.signature(getattr(base, call)).parameters)
                if call == "leave_partitioned_group":
                    continue  # it takes what only joining makes
                with pytest.raises(refusal):
                    getattr(base, call)(*["g"] * min(takes, 2))
    assert issubclass(refusal, NotImplementedError)
    assert issubclass(refusal, found("tooz.ToozError"))
