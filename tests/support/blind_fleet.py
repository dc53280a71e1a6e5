"""A fleet of which nothing is known, for tests that need only its names."""

from collections.abc import Iterable, Mapping

from shared.catalogue import Provider
from shared.gate import Candidate
from shared.limits import Limits
from shared.tokens import NOTHING_LEARNED, Learned
from workers.options import Price
from workers.strategies.records import View


class BlindFleet:
    """The contract: `workers.options.Fleet`."""

    def candidate(
        self, provider: Provider, model: str, endpoint: str, tokens: int = 0, money: Limits = ()
    ) -> Candidate:
        del endpoint, tokens, money
        return Candidate(provider.id, provider.id, "key", model)

    def learned(self, provider: Provider, model: str) -> Learned:
        del provider, model
        return NOTHING_LEARNED

    def seen(self, candidates: Iterable[Candidate], price: Price) -> Mapping[str, View]:
        del candidates, price
        return {}

    def now(self) -> float:
        return 0.0
