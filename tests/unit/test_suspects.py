"""When a job is a suspect, when to blame, and how long it waits in between."""

import pytest

from shared.jobs import History
from shared.suspects import after_death, is_blamed, is_suspect, pause_s


def test_a_death_is_counted_and_one_alone_twice_over() -> None:
    first = after_death(History(attempts=2), alone=False, deaths=4)
    assert first == History(attempts=2, recoveries=1, deaths=4)
    assert after_death(first, alone=True, deaths=4) == History(attempts=2, recoveries=2, alone=1, deaths=4)


def test_where_others_have_died_since_a_death_alone_proves_nothing() -> None:
    before = History(recoveries=3, alone=1, deaths=4)
    assert after_death(before, alone=True, deaths=5) == History(recoveries=4, alone=1, deaths=5)


@pytest.mark.parametrize(
    ("recoveries", "alone", "suspect", "blamed"),
    [
        (0, 0, False, False),
        (1, 0, False, False),
        (2, 0, True, False),
        (50, 0, True, False),  # beside others, a job is never to blame
        (5, 2, True, False),
        (6, 3, False, True),
    ],
)
def test_who_is_a_suspect_and_who_is_to_blame(
    recoveries: int, alone: int, suspect: bool, blamed: bool
) -> None:
    history = History(recoveries=recoveries, alone=alone)
    assert (is_suspect(history), is_blamed(history)) == (suspect, blamed)


def test_who_has_killed_alone_waits_longer_each_time() -> None:
    assert [pause_s(History(alone=n)) for n in range(5)] == [0.0, 1.0, 5.0, 5.0, 5.0]
