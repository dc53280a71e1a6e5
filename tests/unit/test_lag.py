"""How late a process runs."""

import pytest

from workers import lag
from workers.lag import EVERY_S, Lag


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(lag, "time", found)
    return found


def test_the_worst_is_told_once(time: Time) -> None:
    found = Lag()
    waits = iter([EVERY_S + 0.5, EVERY_S + 0.1, EVERY_S])

    def wait(timeout: float) -> bool:
        assert timeout == EVERY_S
        late = next(waits, None)
        time.now += late or 0.0
        return late is None

    found._stopping.wait = wait  # type: ignore[assignment,method-assign]
    found._loop()
    assert found.take() == pytest.approx(0.5)
    assert found.take() == 0.0


def test_a_sleep_that_is_late_by_now_counts(time: Time) -> None:
    found = Lag()
    time.now += EVERY_S + 3
    assert found.take() == pytest.approx(3)


def test_it_runs_and_ends() -> None:
    found = Lag()
    found.start()
    assert found.take() < 10
    found.stop()
    assert not found._thread.is_alive()
