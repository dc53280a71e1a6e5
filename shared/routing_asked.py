"""The extension `routing`: what a request, or a batch for all its requests, asks of the routing. Pure.

    "routing": {"strategy": "cost_optimized", "providers": ["openai", "azure"], "models": ["gpt-4o-mini", "fast"]}

`strategy` is a name, one of the four or one registered in the providers file, and never leads to an import. `providers` are
the only ones that may be asked. `models` are asked, in their order, where no provider can serve the request's own model now.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from shared.catalogue import Catalogue

MOST_NAMES = 100
"""Providers, and models, that one request may name."""


class RoutingAsked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is None is asked of nobody: then the batch's word counts, and at last the providers file's."""

    strategy: str | None = None
    providers: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None

    def over(self, other: "RoutingAsked | None") -> "RoutingAsked":
        """What is asked here, and where that is nothing, there."""
        if other is None:
            return self
        return RoutingAsked(
            strategy=self.strategy if self.strategy is not None else other.strategy,
            providers=self.providers if self.providers is not None else other.providers,
            models=self.models if self.models is not None else other.models,
        )


NOTHING_ASKED = RoutingAsked()


class RoutingWish(RoutingAsked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same as a request brings it: a misspelt name is a fault there, where a record of a newer release may have more."""


class WrongRouting(msgspec.Struct, frozen=True):
    """What is wrong with it, and where."""

    param: str
    message: str


def wrong(asked: RoutingAsked, catalogue: "Catalogue", model: str | None = None) -> WrongRouting | None:
    """Names that are not there, or no provider left that serves `model` or one of the others; None where all is well."""
    known = catalogue.routing.names
    if asked.strategy is not None and asked.strategy not in known:
        return _wrong(
            "strategy", f"no such strategy: '{asked.strategy[:64]}'; there are: {', '.join(known)}."
        )
    for name, values in (("providers", asked.providers), ("models", asked.models)):
        if values is not None and not 1 <= len(values) <= MOST_NAMES:
            return _wrong(name, f"must name 1 to {MOST_NAMES}; leave it out for all.")
    ids = [provider.id for provider in catalogue.providers]
    if unknown := [name for name in asked.providers or () if name not in ids]:
        return _wrong(
            "providers", f"no such provider: '{unknown[0][:64]}'; there are: {', '.join(ids)[:500]}."
        )
    if unserved := [name for name in asked.models or () if not catalogue.serves(name)]:
        return _wrong("models", f"no enabled provider serves the model '{unserved[0][:100]}'.")
    if (
        model is not None
        and asked.providers is not None
        and not _served((model, *(asked.models or ())), asked, catalogue)
    ):
        return _wrong("providers", f"no enabled one of them serves the model '{model[:100]}'.")
    return None


def _served(models: Iterable[str], asked: RoutingAsked, catalogue: "Catalogue") -> bool:
    allowed = [p for p in catalogue.providers if asked.providers is None or p.id in asked.providers]
    return any(p.enabled and p.model_for(model) is not None for p in allowed for model in models)


def _wrong(param: str, message: str) -> WrongRouting:
    return WrongRouting(f"routing.{param}", f"routing.{param}: {message}")
