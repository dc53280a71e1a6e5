"""Whom a job may be sent to, and by which name for its model: every provider that may serve it, best first."""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

import msgspec

from shared.bounds import bounds_of
from shared.catalogue import Catalogue, Provider
from shared.gate import Candidate
from shared.jobs import Fault, History
from shared.limits import Limits
from shared.lines import Request
from shared.needs import needs_in
from shared.routing_asked import NOTHING_ASKED, RoutingAsked
from shared.spending import Purses, rows, worst_case
from shared.tokens import Expected, Learned, Measured, expect, measure
from workers.routing import eligible, ordered
from workers.sizes import Sizes
from workers.strategies.custom import strategy_of
from workers.strategies.records import RoutedJob, Strategy, View

MOST_OPTIONS = 100
"""The gate looks at all of them in one script: the models that a request names besides its own are asked for as far as this goes."""


class Option(NamedTuple):
    """A provider, what the gate is to know of it, and the model that it would be asked for."""

    provider: Provider
    candidate: Candidate
    model: str


Price = Callable[[str], Decimal | None]
"""What a job is expected to cost at a provider."""


class Fleet(Protocol):
    """Of `workers.upstreams`: how the gate names a provider that serves a model, and what is known of the providers now."""

    def candidate(
        self, provider: Provider, model: str, endpoint: str, tokens: int = 0, money: Limits = ()
    ) -> Candidate: ...

    def learned(self, provider: Provider, model: str) -> Learned: ...

    def seen(self, candidates: Iterable[Candidate], price: Price) -> Mapping[str, View]: ...

    def now(self) -> float: ...


def turn_of(job_or_batch_id: str, index: int, history: History) -> int:
    """A batch's jobs count up from a number of their own; a lone job's index is its place in the claim, nearly always 0."""
    return zlib.crc32(job_or_batch_id.encode()) + index + history.attempts


def options_of(
    request: Request,
    by_default: RoutingAsked | None,
    about: RoutedJob,
    *,
    endpoint: str,
    catalogue: Catalogue,
    fleet: Fleet,
    purses: Purses = (),
) -> list[Option]:
    """By the request's own word, the batch's (`by_default`) and the providers file's. Its own model comes first, then the others it names.

    `about`: what is known of the job beside its request. Under ceilings (`purses`) only those that are known to cost no more than so much.
    """
    asked = (request.routing or NOTHING_ASKED).over(by_default)
    name = asked.strategy or catalogue.routing.strategy
    own = name in catalogue.routing.strategies
    goes_by = _GoesBy(
        strategy_of(catalogue.routing, name),
        prices=own or name == "cost_optimized",
        pace=own or name == "least_latency",
        size=catalogue.goes_by_size,
    )
    measured = measure(request.body) if any(goes_by[1:]) else None  # counting is not free
    whole = _appraised(about, request, catalogue, measured)
    allowed = None if asked.providers is None else frozenset(asked.providers)
    found: list[Option] = []
    for model in dict.fromkeys((request.model, *(asked.models or ()))):
        if len(found) >= MOST_OPTIONS:
            break
        job = msgspec.structs.replace(whole, model=model, allowed=allowed)
        fit, _ = eligible(job, catalogue.providers)
        money = _reserved(request.body, model, fit, purses) if purses else {}
        fit = [p for p in fit if p.id in money] if purses else fit
        sizes = Sizes(measured, model, {p.id: fleet.learned(p, model) for p in fit}) if measured else None
        named = {
            p.id: fleet.candidate(p, model, endpoint, sizes.limited(p) if sizes else 0, money.get(p.id, ()))
            for p in fit
        }
        ranked = _ranked(job, fit, named, sizes, goes_by, fleet)
        found += [Option(provider, named[provider.id], model) for provider in ranked]
    return found


def _ranked(
    job: RoutedJob,
    fit: Sequence[Provider],
    named: Mapping[str, Candidate],
    sizes: Sizes | None,
    goes_by: "_GoesBy",
    fleet: Fleet,
) -> list[Provider]:
    """Best first, as the strategy sees them that is told what it goes by."""
    if sizes and goes_by.pace:
        job = _sized(job, sizes.anywhere)
    price = _price(sizes, fit) if sizes and goes_by.prices else _unpriced
    views = fleet.seen(named.values(), price) if len(fit) > 1 else {}
    return ordered(goes_by.strategy, job, fit, views, fleet.now())


class _GoesBy(NamedTuple):
    """A request's strategy, and what it, or a limit, needs to be told."""

    strategy: Strategy
    prices: bool
    pace: bool
    size: bool


def _reserved(body: bytes, model: str, providers: Sequence[Provider], purses: Purses) -> dict[str, Limits]:
    """What a call has to reserve of each purse, where the most that it can cost is known."""
    bounds = bounds_of(body)
    if isinstance(bounds, Fault):
        return {}
    worst = ((p.id, worst_case(p, model, bounds)) for p in providers)
    return {name: rows(purses, nanos) for name, nanos in worst if nanos is not None}


def _price(sizes: Sizes, providers: Sequence[Provider]) -> Price:
    by_id = {provider.id: provider for provider in providers}
    return lambda name: sizes.price(by_id[name])


def _unpriced(_: str) -> None:
    """For strategies that do not ask."""


def _appraised(
    job: RoutedJob, request: Request, catalogue: Catalogue, measured: Measured | None
) -> RoutedJob:
    """With its tokens and needs, as far as somebody goes by them."""
    if measured is not None:
        job = _sized(msgspec.structs.replace(job, max_output_tokens=measured.max_tokens), expect(measured))
    if catalogue.goes_by_needs:
        job = msgspec.structs.replace(job, needs=needs_in(request.body))
    return job


def _sized(job: RoutedJob, expected: Expected) -> RoutedJob:
    return msgspec.structs.replace(
        job, input_tokens=expected.input_tokens, expected_output_tokens=expected.output_tokens
    )


def without(options: Sequence[Option], refused: Option, *, model_only: bool) -> list[Option]:
    """Those that are left when one has refused: its key or itself, or `model_only` that model."""
    return [
        option
        for option in options
        if option.provider is not refused.provider or (model_only and option.model != refused.model)
    ]
