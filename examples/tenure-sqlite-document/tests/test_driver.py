"""What is this driver's own: its URL, and the errors of SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

import tenure


def connect(url: str) -> tenure.Coordinator:
    """A coordinator of this driver, which its own tests do not ask for a level."""
    return tenure.connect(url, allow="sqlite-document")


@pytest.mark.parametrize("rest", ["host/a.db", "", "/", "/a.db?mode=ro"])
def test_a_url_is_three_slashes_and_a_path(rest: str) -> None:
    """A host, no path, or an option that there is not, is refused."""
    with pytest.raises(tenure.InvalidURL):
        connect(f"sqlite-document://{rest}")


def test_a_lock_is_in_the_file(tmp_path: Path) -> None:
    """Two coordinators on one file exclude each other, and tokens rise."""
    url = f"sqlite-document://{tmp_path}/locks.db"
    with connect(url) as one, connect(url) as other:
        with one.lock("a") as lease:
            assert other.lock("a").try_acquire() is None
        with other.lock("a") as later:
            assert later.token > lease.token


def test_what_is_no_database_is_a_storage_error(tmp_path: Path) -> None:
    """A file of somebody else's is neither read nor overwritten."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir, " * 1000)
    with pytest.raises(tenure.StorageError):
        connect(f"sqlite-document://{path}")
    assert path.read_text().startswith("Dear Sir, ")
