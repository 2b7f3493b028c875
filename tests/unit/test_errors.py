"""The exceptions: what they derive from, and that they survive a journey."""

from __future__ import annotations

import pickle

import pytest

from tenure import errors

ALL = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: str(kind.__name__))
def test_one_base(kind: type[Exception]) -> None:
    """Every error is a `TenureError`, has a docstring, and keeps its message through a pickle."""
    assert issubclass(kind, errors.TenureError)
    assert kind.__doc__
    error = kind("what went wrong")
    assert str(error) == "what went wrong"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "what went wrong"


@pytest.mark.parametrize(
    "kind, standard",
    [
        (errors.InvalidArgument, ValueError),
        (errors.InvalidName, errors.InvalidArgument),
        (errors.InvalidURL, errors.InvalidArgument),
        (errors.UnknownDriver, errors.InvalidURL),
        (errors.Unsupported, NotImplementedError),
        (errors.AcquireTimeout, TimeoutError),
        (errors.LimitMismatch, errors.InvalidArgument),
        (errors.WaitTimeout, TimeoutError),
        (errors.AlreadyJoined, errors.MemberExists),
        (errors.GroupNotFound, LookupError),
        (errors.MemberNotFound, LookupError),
        (errors.Unavailable, ConnectionError),
        (errors.Unavailable, errors.BackendError),
        (errors.OutcomeUnknown, errors.Unavailable),
        (errors.AuthenticationFailed, errors.BackendError),
        (errors.ProtocolError, errors.BackendError),
        (errors.StorageError, OSError),
        (errors.StorageError, errors.BackendError),
    ],
)
def test_relations(kind: type[Exception], standard: type[Exception]) -> None:
    """An error is also what callers of the standard library would catch."""
    assert issubclass(kind, standard)


def test_what_must_not_be_retried_is_not_unavailable() -> None:
    """Wrong credentials, rubbish and a lost session are not taken for a backend that is away."""
    for kind in (errors.AuthenticationFailed, errors.ProtocolError, errors.SessionLost):
        assert not issubclass(kind, ConnectionError)
    assert not issubclass(errors.LeaseLost, errors.BackendError)


def test_a_loss_carries_its_lease() -> None:
    """`LeaseLost` has the lease and the reason."""
    lease = object()
    error = errors.LeaseLost("it is gone", lease=lease, reason="expired")
    assert error.lease is lease
    assert error.reason == "expired"
    assert str(error) == "it is gone"


def test_a_loss_is_pickled_without_its_lease() -> None:
    """A `LeaseLost` crosses to another process with its reason; the lease stays where it is."""
    error = errors.LeaseLost("it is gone", lease=lambda: None, reason="expired")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is errors.LeaseLost
    assert (copy.lease, copy.reason, copy.args) == (None, "expired", ("it is gone",))
