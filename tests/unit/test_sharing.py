"""What the watchers of one coordinator share: one listener and one reading of a roster."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import tenure


def told(watch: Any) -> str:
    """The kind of the next change."""
    change = watch.next(timeout=10)
    assert change is not None
    return str(change.kind)


def test_many_watchers_cost_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty watchers of one coordinator listen once, and share the reading after a change."""
    with tenure.connect("memory://sharing") as a, tenure.connect("memory://sharing") as b:
        driver = b._session.driver
        calls: list[str] = []
        census, listen = driver.census, driver.listen

        async def counted_census(roster: str) -> Any:
            calls.append("census")
            time.sleep(0.02)  # noqa: ASYNC251 - long enough for all to ask meanwhile
            return await census(roster)

        async def counted_listen(interest: Any, wake: Any) -> None:
            calls.append("listen")
            await listen(interest, wake)

        monkeypatch.setattr(driver, "census", counted_census)
        monkeypatch.setattr(driver, "listen", counted_listen)
        member = a.group("many").join(member="m")
        watches = [b.group("many").watch() for _ in range(50)]
        for watch in watches:
            watch.__enter__()
        assert calls.count("listen") == 1
        calls.clear()
        seen: list[str] = []
        threads = [
            threading.Thread(target=lambda watch=watch: seen.append(told(watch)))
            for watch in watches
        ]
        for thread in threads:
            thread.start()
        member.update({"changed": True})
        for thread in threads:
            thread.join(20)
        assert seen == ["changed"] * 50
        assert calls.count("census") <= 10, "one for all who were woken, or a few"
        for watch in watches:
            watch.close()
        assert not b._session.ears
        assert not b._session.readings


def test_a_shared_reading_that_fails_fails_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the backend is away, ten who ask at the same time wait once, not one after another."""
    with tenure.connect("memory://failing", ttl=1.5) as client:
        client.group("g").create()

        async def away(roster: str) -> Any:
            raise tenure.Unavailable("away")

        monkeypatch.setattr(client._session.driver, "census", away)
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                client.group("g").members()
            except tenure.Unavailable as error:
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(10)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(failures) == 10
        assert time.monotonic() - began < 3.0, "two rounds of half a second, and not ten"
