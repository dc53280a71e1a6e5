"""Ceilings on what may be spent: by a batch (`max_cost`), by an owner in a month, a day or in all. Pure.

Before a call the most that it can cost is reserved, so that what is spent never exceeds a ceiling, whatever fails or is
lost; afterwards its usage takes the place of that. Where nobody can say what a request costs at most, it may not run under one.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal

import msgspec

from shared.bounds import CODE, Bounds, bounds_of
from shared.catalogue import EVERYBODY, Catalogue, Provider, Quota
from shared.fitness import unfit, wanted
from shared.jobs import Fault
from shared.limits import Limit, Limits
from shared.money import NANOS_PER_DOLLAR, format_usd, from_nanos
from shared.prices import tariff_of
from shared.routing_asked import NOTHING_ASKED, RoutingAsked
from shared.tokens import measure

HIDDEN_TOKENS = 512
"""What a provider may add to a request: roles, separators, its own instructions for tools (Anthropic's are up to 500 or so)."""

_PERIODS = {"day": "%Y-%m-%d", "month": "%Y-%m"}


class Purse(msgspec.Struct, frozen=True):
    """A counter of money, and where it ends, in nano-dollars."""

    scope: str
    ceiling: int


Purses = tuple[Purse, ...]


def batch_purse(batch_id: str, max_cost_nanos: int) -> Purse:
    return Purse(f"batch:{batch_id}", max_cost_nanos)


def quota_of(owner: str, quotas: Mapping[str, Quota]) -> Quota | None:
    return quotas.get(owner) or quotas.get(EVERYBODY)


def owner_purse(owner: str, quotas: Mapping[str, Quota], now: float) -> Purse | None:
    """That of the period in which `now` lies (Unix seconds; periods begin at midnight UTC); None for one without a quota."""
    quota = quota_of(owner, quotas)
    if quota is None:
        return None
    form = _PERIODS.get(quota.per)
    period = f":{datetime.fromtimestamp(now, UTC):{form}}" if form else ""
    return Purse(f"owner:{owner}{period}", nanos_up(quota.max_cost))


def purses_of(
    batch_id: str, max_cost_nanos: int | None, owner: str, quotas: Mapping[str, Quota], now: float
) -> Purses:
    """All that one job is paid from."""
    own = None if max_cost_nanos is None else batch_purse(batch_id, max_cost_nanos)
    return tuple(purse for purse in (own, owner_purse(owner, quotas, now) if quotas else None) if purse)


def budget_of(purses: Purses) -> Decimal | None:
    """US dollars that one job may cost at most, whatever has been spent already; None where nothing limits it."""
    least = min((purse.ceiling for purse in purses), default=None)
    return None if least is None else from_nanos(least)


def nanos_up(usd: Decimal) -> int:
    """Whole nano-dollars, never fewer."""
    return int((usd * NANOS_PER_DOLLAR).to_integral_value(rounding=ROUND_CEILING))


def rows(purses: Purses, worst_nanos: int) -> Limits:
    """What the gate has to reserve of each for one call."""
    return tuple(Limit(purse.scope, "money", float(worst_nanos), float(purse.ceiling)) for purse in purses)


def worst_case(provider: Provider, model: str, bounds: Bounds) -> int | None:
    """The most that one call can cost there, in nano-dollars; None where that cannot be told.

    Its input has no more tokens than its body has bytes, and some hidden ones: no tokenizer in use makes more of a text, and
    JSON has more bytes than its texts. Where it holds media, the provider's `context_tokens` are the bound. Its output is
    bounded by `max_tokens`, its own or the provider's, for each answer.
    """
    tariff = tariff_of(provider, model)
    most_in = provider.context_tokens if bounds.media else bounds.input_bytes + HIDDEN_TOKENS
    limits = [most for most in (bounds.max_tokens, provider.max_tokens) if most is not None]
    if tariff is None or most_in is None or not limits:
        return None
    return nanos_up(tariff.at_most(1, most_in, min(limits) * bounds.answers))


def beyond(
    body: bytes, model: str, asked: RoutingAsked | None, catalogue: Catalogue, ceilings: Purses
) -> Fault | None:
    """What keeps a request from running under ceilings: a cost that nobody can bound, or too small a ceiling for it alone."""
    bounds = bounds_of(body)
    if isinstance(bounds, Fault):
        return bounds
    wish = asked or NOTHING_ASKED
    wants = wanted(body, measure(body), wish.providers)
    known = [
        worst
        for provider in catalogue.providers
        for name in (model, *(wish.models or ()))
        if unfit(provider, name, wants) is None and (worst := worst_case(provider, name, bounds)) is not None
    ]
    if not known:
        return _unbounded(bounds)
    least, ceiling = min(known), min(purse.ceiling for purse in ceilings)
    if least <= ceiling:
        return None
    dollars = (format_usd(from_nanos(n)) for n in (least, ceiling))
    message = "This request alone can cost {} US dollars, and no more than {} may be spent.".format(*dollars)
    return Fault(code="max_cost_too_low", message=message, param="max_tokens")


def _unbounded(bounds: Bounds) -> Fault:
    why, param = "no provider that can take it has a price in the providers file or a list price", "model"
    if bounds.max_tokens is None:
        why = "nothing bounds its answer, or has a price: set max_tokens (or max_completion_tokens) in the request"
        param = "max_tokens"
    elif bounds.media:
        why = "it holds images or other media, and no provider of it has both a price and context_tokens in the providers file"
        param = "messages"
    message = f"What may be spent is limited, and what this request can cost at most is not known: {why}."
    return Fault(code=CODE, message=message, param=param)


def overspent(max_cost_nanos: int) -> Fault:
    """What a batch says that has ended at its ceiling."""
    dollars = format_usd(from_nanos(max_cost_nanos))
    message = (
        f"The batch has ended: its next request could have brought its cost above max_cost, {dollars} US dollars."
        " What was not executed is in the error file; send it as another batch."
    )
    return Fault(code="max_cost_reached", message=message, param="max_cost")
