from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from shared.money import format_usd, from_nanos, to_nanos


@given(st.integers(0, 10**15))
def test_nanos_go_there_and_back(nanos: int) -> None:
    assert to_nanos(from_nanos(nanos)) == nanos


def test_plain_notation() -> None:
    assert [format_usd(Decimal(t)) for t in ("0", "2.00", "1E-7", "100")] == ["0", "2", "0.0000001", "100"]
