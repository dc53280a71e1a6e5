"""What the demo's batch can cost at most, before it is sent. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from shared.catalogue import Catalogue
from shared.prices import Tariff, tariff_of

BYTES_PER_TOKEN = 2
"""English text and code take three to five bytes a token with every tokenizer in use; two is a bound with room."""
OVERHEAD_TOKENS = 20
"""Per request, for what the wire format adds to a prompt: roles and separators."""


@dataclass(frozen=True)
class Bound:
    """Upper bounds, each request being answered once. `usd` is None where a price is unknown; `listed`: a list price is among them."""

    input_tokens: int
    output_tokens: int
    usd: Decimal | None
    listed: bool = False


def bound(jobs: int, prompt_bytes: int, max_tokens: int, tariffs: Sequence[Tariff | None]) -> Bound:
    """`prompt_bytes / 2 + 20 x jobs` tokens in and `jobs x max_tokens` out, at the dearest of the prices."""
    input_tokens = -(-prompt_bytes // BYTES_PER_TOKEN) + OVERHEAD_TOKENS * jobs
    output_tokens = jobs * max_tokens
    known = [tariff for tariff in tariffs if tariff is not None]
    if not known or len(known) < len(tariffs):
        return Bound(input_tokens, output_tokens, None)
    dearest = max(tariff.at_most(jobs, input_tokens, output_tokens) for tariff in known)
    return Bound(input_tokens, output_tokens, dearest, any(tariff.listed for tariff in known))


def tariffs_of(catalogue: Catalogue, model: str) -> list[Tariff | None]:
    """The price at each provider that may be asked."""
    return [
        tariff_of(provider, model)
        for provider in catalogue.providers
        if provider.enabled and provider.model_for(model) is not None
    ]
