from hypothesis import given
from hypothesis import strategies as st

from shared.forbearance import FORBEAR_S, SILENCE_S, Rounds


def test_only_after_a_silence_and_for_a_moment() -> None:
    rounds = Rounds()
    assert [rounds.forbears(at) for at in (0.0, 0.5, 1.0)] == [False] * 3
    back = 1.0 + SILENCE_S + 0.1
    assert [rounds.forbears(back + s) for s in (0.0, 0.5, FORBEAR_S - 0.1)] == [True] * 3
    assert rounds.forbears(back + FORBEAR_S) is False


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=50))
def test_however_seldom_rounds_come_no_two_silences_in_a_row_are_forborne(gaps: list[float]) -> None:
    rounds, at, before = Rounds(), 0.0, False
    rounds.forbears(at)
    for gap in gaps:
        at += gap
        now = rounds.forbears(at)
        assert not (before and now and gap > FORBEAR_S)
        before = now
