"""What a request is expected to take at each provider, tokens and money, by what its own answers have taught. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property

from shared.catalogue import Provider
from shared.jobs import Usage
from shared.prices import cost_of
from shared.tokens import Expected, Learned, Measured, expect, together


class Sizes:
    """Of one request, for one model."""

    def __init__(self, measured: Measured, model: str, known: Mapping[str, Learned]) -> None:
        """`known`: of the providers that may serve it, by id."""
        self._measured = measured
        self._model = model
        self._known = known

    def at(self, provider: Provider) -> Expected:
        """Who has taught nothing yet is taken to be like the others: by the plain guess he might look dearer, and never be asked."""
        own = self._known[provider.id]
        return expect(self._measured, own) if own.calls else self.anywhere

    @cached_property
    def anywhere(self) -> Expected:
        """Wherever it goes."""
        return expect(self._measured, together(self._known.values()))

    def limited(self, provider: Provider) -> int:
        """Tokens in and out; 0 where the provider has no limit for them."""
        if not provider.limits.counts_tokens:
            return 0
        expected = self.at(provider)
        return expected.input_tokens + expected.output_tokens

    def price(self, provider: Provider) -> Decimal | None:
        """US dollars; None where no price is known."""
        expected = self.at(provider)
        usage = Usage(input_tokens=expected.input_tokens, output_tokens=expected.output_tokens)
        return cost_of(provider, self._model, usage)
