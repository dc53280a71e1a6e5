"""What a batch can cost at most, before it is sent. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from shared.catalogue import Catalogue, Price
from shared.money import cost_usd

BYTES_PER_TOKEN = 2
"""English text and code take three to five bytes a token with every tokenizer in use; two is a bound with room."""
OVERHEAD_TOKENS = 20
"""Per request, for what the wire format adds to a prompt: roles and separators."""


@dataclass(frozen=True)
class Bound:
    """Upper bounds, each request being answered once. `usd` is None where a price is unknown."""

    input_tokens: int
    output_tokens: int
    usd: Decimal | None


def bound(jobs: int, prompt_bytes: int, max_tokens: int, prices: Sequence[Price | None]) -> Bound:
    """`prompt_bytes / 2 + 20 x jobs` tokens in and `jobs x max_tokens` out, at the dearest of the prices."""
    input_tokens = -(-prompt_bytes // BYTES_PER_TOKEN) + OVERHEAD_TOKENS * jobs
    output_tokens = jobs * max_tokens
    known = [price for price in prices if price is not None]
    if not known or len(known) < len(prices):
        return Bound(input_tokens, output_tokens, None)
    dearest = max(
        cost_usd(input_tokens, output_tokens, per_1k_in=price.input, per_1k_out=price.out) for price in known
    )
    return Bound(input_tokens, output_tokens, dearest)


def prices_of(catalogue: Catalogue, model: str) -> list[Price | None]:
    """The price at each provider that may be asked."""
    return [
        provider.price_of(model)
        for provider in catalogue.providers
        if provider.enabled and provider.model_for(model) is not None
    ]
