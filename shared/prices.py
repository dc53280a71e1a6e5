"""What a call costs: by the providers file; else, at a public endpoint, by the list prices that come with genai-prices (no network).

Unknown is None, never 0. A provider that costs nothing says so: `cost_per_1k_tokens: 0`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from shared.catalogue import Price, Provider
from shared.jobs import Usage
from shared.logs import get_logger

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice
    from genai_prices.types import Provider as Vendor

_log = get_logger(__name__)

_MILLION = 1_000_000
_RENTED = frozenset({"modal"})
"""Vendors at whose addresses anybody runs servers of their own, paid by the hour."""


class Rate(msgspec.Struct, frozen=True):
    """US dollars per million tokens. `tiers`, the longest first: a call with more input than `start` pays that price for all of it."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...] = ()

    def at(self, input_tokens: int) -> Decimal:
        return next((price for start, price in self.tiers if input_tokens > start), self.base)

    @property
    def dearest(self) -> Decimal:
        return max(self.base, *(price for _, price in self.tiers)) if self.tiers else self.base


class Rates(msgspec.Struct, frozen=True):
    """The price of a model at one time. Without `cached` or `reasoning` such tokens cost what the others do."""

    input: Rate
    output: Rate
    cached: Rate | None = None
    reasoning: Rate | None = None
    per_call: Decimal = Decimal(0)

    def cost(self, usage: Usage) -> Decimal:
        """US dollars of one call, exact."""
        length = usage.input_tokens
        cached = min(usage.cached_tokens, length) if self.cached else 0
        reasoning = min(usage.reasoning_tokens, usage.output_tokens) if self.reasoning else 0
        total = (length - cached) * self.input.at(length)
        total += (usage.output_tokens - reasoning) * self.output.at(length)
        if self.cached:
            total += cached * self.cached.at(length)
        if self.reasoning:
            total += reasoning * self.reasoning.at(length)
        return total / _MILLION + self.per_call

    def at_most(self, calls: int, input_tokens: int, output_tokens: int) -> Decimal:
        """US dollars of so many calls with so many tokens in all, whichever way the tokens fall to the calls."""
        dearest_in = max(rate.dearest for rate in (self.input, self.cached) if rate)
        dearest_out = max(rate.dearest for rate in (self.output, self.reasoning) if rate)
        return (input_tokens * dearest_in + output_tokens * dearest_out) / _MILLION + calls * self.per_call


class Period(msgspec.Struct, frozen=True):
    """Rates, and when they hold (None: always). `daily`: they come and go by the hour."""

    rates: Rates
    active: Callable[[datetime], bool] | None = None
    daily: bool = False

    def holds(self, at: datetime) -> bool:
        return self.active is None or self.active(at)


class Tariff(msgspec.Struct, frozen=True):
    """The price of one model at one provider: the first of `periods` that holds. `listed` names a list price; empty where it is the user's own."""

    periods: tuple[Period, ...]
    listed: str = ""

    def cost(self, usage: Usage, at: datetime | None = None) -> Decimal:
        """US dollars of one call that was made `at` that time (default: now)."""
        if len(self.periods) == 1:
            return self.periods[0].rates.cost(usage)
        moment = at or datetime.now(UTC)
        return next((p for p in self.periods if p.holds(moment)), self.periods[-1]).rates.cost(usage)

    def at_most(self, calls: int, input_tokens: int, output_tokens: int) -> Decimal:
        """US dollars of so many calls from now on, at the dearest hour and in the dearest tier."""
        return max(rates.at_most(calls, input_tokens, output_tokens) for rates in self._possible())

    def _possible(self) -> Iterator[Rates]:
        """What holds now, or at another hour of the day."""
        now = datetime.now(UTC)
        for period in self.periods:
            if period.daily or period.holds(now):
                yield period.rates
                if not period.daily:
                    return
        yield self.periods[-1].rates


def cost_of(provider: Provider, asked: str, usage: Usage) -> Decimal | None:
    """US dollars of a call that asked `provider` for this model; None where no price is known."""
    tariff = tariff_of(provider, asked)
    return None if tariff is None else tariff.cost(usage)


def tariff_of(provider: Provider, asked: str) -> Tariff | None:
    """The price of the model `asked` for, remembered for each provider and name; None where it is unknown."""
    key = (id(provider), asked)
    found = _known.get(key)
    if found is None:
        if len(_known) >= _MOST_KNOWN:  # names come from clients
            _known.clear()
        found = _known[key] = (provider, _own(provider, asked) or _listed_for(provider, asked))
    return found[1]


_MOST_KNOWN = 4096
_known: dict[tuple[int, str], tuple[Provider, Tariff | None]] = {}
"""With the provider itself, so that its `id()` stays its own."""


def warm(providers: Iterable[Provider]) -> None:
    """Looks up what they name, so that no call waits for the 0.2 s that the lists take to load; where none is needed, none is."""
    for provider in providers:
        for asked in provider.models if provider.enabled else ():
            tariff_of(provider, asked)


def _own(provider: Provider, asked: str) -> Tariff | None:
    """The providers file's price, by the asked-for or the provider's own name for the model."""
    for name in (asked, provider.model_for(asked)):
        if name is not None and name in provider.prices:
            return of_price(provider.prices[name])
    flat = provider.cost_per_1k_tokens
    return None if flat is None else of_price(Price(input=flat))


def of_price(price: Price) -> Tariff:
    """A price of the providers file."""
    return Tariff((Period(Rates(Rate(price.input * 1000), Rate(price.out * 1000))),))


def _listed_for(provider: Provider, asked: str) -> Tariff | None:
    """The list price, where the endpoint is one that genai-prices knows: a model of that name elsewhere costs nobody knows what."""
    named = provider.model_for(asked)
    if named is None or provider.simulated or not _public(provider.endpoint):
        return None
    try:
        vendor = _vendor_at(provider.endpoint)
        return None if vendor is None else _listed(vendor, named)
    except Exception as exc:  # noqa: BLE001  an answer that is paid for is not to be lost over what it cost
        _log.warning("list_price_unreadable", provider=provider.id, model=named[:100], error=repr(exc)[:200])
        return None


def list_price(model: str) -> Tariff | None:
    """The list price of a model by its name alone, at the vendor whose name for it this is; None where nobody's is."""
    vendors = _vendors()
    vendor = next((v for v in vendors if v.model_match and v.model_match.is_match(model.lower())), None)
    return None if vendor is None else _listed(vendor, model)


def _public(endpoint: str) -> bool:
    """Whether it may be a vendor's own address. Plain HTTP, bare names and numbers are not, which spares them the import."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    return parts.scheme == "https" and "." in host and host.rpartition(".")[2].isalpha()


def _vendors() -> "Sequence[Vendor]":
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415  its data take 0.2 s

    return get_snapshot().providers


@lru_cache(maxsize=256)
def _vendor_at(endpoint: str) -> "Vendor | None":
    """Whose API an endpoint is, by genai-prices' own patterns. They are open at the end: what follows must not be more of the host."""
    url = endpoint.lower()
    for vendor in _vendors():
        found = re.match(vendor.api_pattern, url)
        if found and vendor.id not in _RENTED and (found[0][-1:] in "./" or url[found.end() :][:1] in "/:?"):
            return vendor
    return None


def _listed(vendor: "Vendor", model: str) -> Tariff | None:
    """None where the vendor has no such model, or no price for both its input and its output."""
    found = vendor.find_model(model, all_providers=list(_vendors()))
    if found is None:
        return None
    periods = [_period(rates, constraint) for rates, constraint in _prices(found)]
    usable = [period for period in periods if period is not None]
    if not usable or len(usable) < len(periods):
        return None
    return Tariff(tuple(usable), f"{vendor.name}'s {found.id}")


def _prices(model: "ModelInfo") -> "Iterator[tuple[ModelPrice, Any]]":
    """Prices and the constraints on their time, in the order in which genai-prices tries them; the first is what it falls back to."""
    if not isinstance(model.prices, list):
        yield model.prices, None
        return
    for each in reversed(model.prices):
        yield each.prices, each.constraint
        if each.constraint is None:
            return
    yield from ((each.prices, None) for each in model.prices[:1])


def _period(price: "ModelPrice", constraint: Any) -> Period | None:
    into, out = _rate(price.input_mtok), _rate(price.output_mtok)
    if into is None or out is None:
        return None
    rates = Rates(
        into,
        out,
        cached=_rate(price.cache_read_mtok),
        reasoning=_rate(price.output_reasoning_mtok),
        per_call=(_rate(price.requests_kcount) or Rate(Decimal(0))).base / 1000,
    )
    return Period(rates, constraint and constraint.active, daily=hasattr(constraint, "start_time"))


def _rate(price: Any) -> Rate | None:
    """Of genai-prices' number, or its base with tiers in ascending order."""
    if price is None or isinstance(price, Decimal):
        return None if price is None else Rate(price)
    return Rate(price.base, tuple((tier.start, tier.price) for tier in reversed(price.tiers)))
