"""Money: US dollars as Decimal in code, whole nano-dollars (1e-9 $) where Redis counts them."""

from decimal import ROUND_HALF_EVEN, Decimal

NANOS_PER_DOLLAR = 1_000_000_000


def cost_usd(
    prompt_tokens: int, completion_tokens: int, *, per_1k_in: Decimal, per_1k_out: Decimal
) -> Decimal:
    """`tokens x price / 1000` for both directions, exact."""
    return (prompt_tokens * per_1k_in + completion_tokens * per_1k_out) / 1000


def to_nanos(usd: Decimal) -> int:
    """Whole nano-dollars, half to even: a counter that Redis can add up without drift."""
    return int((usd * NANOS_PER_DOLLAR).to_integral_value(rounding=ROUND_HALF_EVEN))


def from_nanos(nanos: int) -> Decimal:
    return Decimal(nanos) / NANOS_PER_DOLLAR


def format_usd(usd: Decimal) -> str:
    """Plain notation without trailing zeros: `0.00123`, `2`, `0`."""
    text = format(usd, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
