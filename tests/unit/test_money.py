from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from shared.money import cost_usd, format_usd, from_nanos, to_nanos


def test_prices_are_per_thousand_tokens() -> None:
    cost = cost_usd(1500, 200, per_1k_in=Decimal("0.03"), per_1k_out=Decimal("0.06"))
    assert cost == Decimal("0.057")
    assert format_usd(cost) == "0.057"


@given(st.integers(0, 10**15))
def test_nanos_go_there_and_back(nanos: int) -> None:
    assert to_nanos(from_nanos(nanos)) == nanos


def test_plain_notation() -> None:
    assert [format_usd(Decimal(t)) for t in ("0", "2.00", "1E-7", "100")] == ["0", "2", "0.0000001", "100"]
