"""What a run may cost, at the list prices that come with genai-prices (no network). Unknown is said, never 0."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from api.cli.words import usd
from shared.jobs import Usage
from shared.prices import list_price


@dataclass(frozen=True)
class Estimate:
    """Dollars of all requests, and whose prices they are. `output` is a bound; None where `max_tokens` sets none."""

    input: Decimal
    output: Decimal | None
    whose: str


def estimate(model: str, requests: int, input_tokens: int, max_tokens: int | None) -> Estimate | None:
    """None for a model without a known price. Each request is priced as the average one, as prices rise with length."""
    tariff = list_price(model)
    if tariff is None:
        return None
    each = -(-input_tokens // max(requests, 1))
    asked = tariff.cost(Usage(input_tokens=each))
    answered = tariff.cost(Usage(input_tokens=each, output_tokens=max_tokens or 0))
    output = (answered - asked) * requests if max_tokens else None
    return Estimate(asked * requests, output, tariff.listed)


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
