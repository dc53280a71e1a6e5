"""What a run may cost, at the list prices that come with genai-prices (no network). Unknown is said, never 0."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from api.cli.words import usd


@dataclass(frozen=True)
class Estimate:
    """Dollars of all requests, and whose prices they are. `output` is a bound; None where `max_tokens` sets none."""

    input: Decimal
    output: Decimal | None
    whose: str


def estimate(model: str, requests: int, input_tokens: int, max_tokens: int | None) -> Estimate | None:
    """None for a model without a known price. Each request is priced as the average one, as prices rise with length."""
    from genai_prices import Usage, calc_price  # noqa: PLC0415  its data take 0.2 s

    each = -(-input_tokens // max(requests, 1))
    try:
        price = calc_price(Usage(input_tokens=each, output_tokens=max_tokens or 0), model)
    except LookupError:
        return None
    output = price.output_price * requests if max_tokens else None
    return Estimate(price.input_price * requests, output, f"{price.provider.name}'s {price.model.id}")


def output_bound(parameters: Any) -> int | None:
    """Tokens that one answer may have."""
    found = parameters.get("max_tokens", parameters.get("max_completion_tokens"))
    return found if isinstance(found, int) and found > 0 else None


def in_words(model: str, found: Estimate | None) -> str:
    """`about $0.12 for the input and at most $0.60 for the answers, at the list price of OpenAI's gpt-4o-mini`."""
    if found is None:
        return f"unknown: no list price is known for {model!r}"
    answers = (
        "; the answers come on top (--max-tokens bounds them)"
        if found.output is None
        else f" and at most {usd(found.output)} for the answers"
    )
    return f"about {usd(found.input)} for the input{answers}, at the list price of {found.whose}"
