"""Money: US dollars as Decimal in code, whole nano-dollars (1e-9 $) where Redis counts them."""

from decimal import ROUND_HALF_EVEN, Decimal

NANOS_PER_DOLLAR = 1_000_000_000


def to_nanos(usd: Decimal) -> int:
    """Whole nano-dollars, half to even: a counter that Redis can add up without drift."""
    return int((usd * NANOS_PER_DOLLAR).to_integral_value(rounding=ROUND_HALF_EVEN))


def from_nanos(nanos: int) -> Decimal:
    return Decimal(nanos) / NANOS_PER_DOLLAR


def format_usd(usd: Decimal) -> str:
    """Plain notation without trailing zeros: `0.00123`, `2`, `0`."""
    text = format(usd, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
