"""What a fleet offers to those who ask: the models that are served, the names that `routing` may use, what may be spent. Pure."""

from shared.catalogue import Catalogue
from shared.jobs import Fault
from shared.routing_asked import NOTHING_ASKED, RoutingAsked, WrongRouting, wrong
from shared.spending import Purses, beyond

_MOST = 1000  # names come from clients: bounded


class CatalogueOffer:
    """The contract: `shared.lines.Offer`. Remembers what it has looked up; `by_default` is a batch's own word, `purses` its ceilings."""

    def __init__(
        self, catalogue: Catalogue, by_default: RoutingAsked | None = None, purses: Purses = ()
    ) -> None:
        self._catalogue = catalogue
        self._purses = purses
        self._default = by_default or NOTHING_ASKED
        self._served: dict[str, bool] = {}

    def serves(self, model: str) -> bool:
        """Whether the model, or one that the batch names beside it, is served by a provider that may be asked."""
        known = self._served.get(model)
        if known is None:
            if len(self._served) >= _MOST:
                self._served.clear()
            known = self._served[model] = self._looked_up(model)
        return known

    def _looked_up(self, model: str) -> bool:
        if self._default == NOTHING_ASKED:
            return self._catalogue.serves(model)
        models = (model, *(self._default.models or ()))
        return wrong(self._default, self._catalogue, model) is None and any(
            map(self._catalogue.serves, models)
        )

    def wrong(self, asked: RoutingAsked, model: str) -> WrongRouting | None:
        return wrong(asked.over(self._default), self._catalogue, model)

    def beyond(self, body: bytes, model: str, asked: RoutingAsked | None) -> Fault | None:
        if not self._purses:
            return None
        wish = (asked or NOTHING_ASKED).over(self._default)
        return beyond(body, model, wish, self._catalogue, self._purses)


class AnyOffer:
    """Takes every name, for whoever only reads."""

    def serves(self, model: str) -> bool:  # noqa: ARG002  the contract's signature
        return True

    def wrong(self, asked: RoutingAsked, model: str) -> WrongRouting | None:  # noqa: ARG002
        return None

    def beyond(self, body: bytes, model: str, asked: RoutingAsked | None) -> Fault | None:  # noqa: ARG002
        return None
