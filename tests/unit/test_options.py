"""Whom a job may be sent to, by what is learned of each provider's tokens."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from support.blind_fleet import BlindFleet

from shared.catalogue import Catalogue, Provider
from shared.gate import Candidate
from shared.limits import Limits
from shared.lines import Request
from shared.tokens import DEFAULT_ANSWER_TOKENS, NOTHING_LEARNED, Learned
from workers.options import Price, options_of
from workers.strategies.records import RoutedJob, View

CHAT = "/v1/chat/completions"


class Fleet(BlindFleet):
    """Of which only this is known, by provider. Remembers the tokens of candidates, and the prices that were asked for."""

    def __init__(self, **known: Learned) -> None:
        self.known = known
        self.tokens: dict[str, int] = {}
        self.views: dict[str, View] = {}
        self.looked = 0

    def learned(self, provider: Provider, model: str) -> Learned:
        self.looked += 1
        return self.known.get(provider.id, NOTHING_LEARNED) if model == "m" else NOTHING_LEARNED

    def candidate(
        self, provider: Provider, model: str, endpoint: str, tokens: int = 0, money: Limits = ()
    ) -> Candidate:
        del money
        self.tokens[provider.id] = tokens
        return super().candidate(provider, model, endpoint)

    def seen(self, candidates: Iterable[Candidate], price: Price) -> Mapping[str, View]:
        self.views = {c.provider: View(price=price(c.provider)) for c in candidates}
        return self.views


def provider(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "endpoint": "http://127.0.0.1:1/v1", **more}


def asked(fleet: Fleet, strategy: str, *providers: dict[str, Any], body: str = "") -> list[str]:
    catalogue = Catalogue.model_validate({"providers": providers, "routing": {"strategy": strategy}})
    text = '{"model": "m", "messages": [{"role": "user", "content": "%s"}]%s}' % ("word " * 1000, body)  # noqa: UP031
    request = Request("c", "m", text.encode(), None)
    found = options_of(request, None, RoutedJob("m"), endpoint=CHAT, catalogue=catalogue, fleet=fleet)
    return [option.provider.id for option in found]


TWICE, HALF = Learned(60, 100, 200, 1000), Learned(60, 100, 50, 10)


def test_tokens_a_minute_are_reserved_by_what_the_provider_has_taught() -> None:
    fleet = Fleet(a=TWICE, b=HALF)
    limited = {"limits": {"tpm": 100_000}}
    asked(
        fleet,
        "failover",
        provider("a", **limited),
        provider("b", **limited),
        provider("c", **limited),
        provider("d"),
    )
    none = Fleet()
    asked(none, "failover", provider("a", **limited))
    plain = none.tokens["a"] - DEFAULT_ANSWER_TOKENS
    assert fleet.tokens["a"] == 2 * plain + 1000
    assert fleet.tokens["b"] == pytest.approx(plain / 2 + 10, abs=1)
    assert fleet.tokens["c"] == pytest.approx(1.25 * plain + 505, abs=1)  # as those two together
    assert fleet.tokens["d"] == 0  # nobody asks


def test_the_cheapest_is_who_costs_least_by_what_its_answers_have_taught() -> None:
    a, b = provider("a", cost_per_1k_tokens=0.01), provider("b", cost_per_1k_tokens=0.012)
    assert asked(Fleet(), "cost_optimized", a, b) == ["a", "b"]
    assert asked(Fleet(a=TWICE, b=HALF), "cost_optimized", a, b) == ["b", "a"]
    assert asked(Fleet(a=TWICE), "cost_optimized", a, b) == [
        "a",
        "b",
    ]  # who has taught nothing is like the others
    assert asked(Fleet(b=TWICE), "cost_optimized", a, b) == ["a", "b"]
    bounded = Fleet(a=Learned(60, 100, 100, 1000), b=Learned(60, 100, 100, 900))
    assert asked(bounded, "cost_optimized", a, b, body=', "max_tokens": 10') == ["a", "b"]


def test_where_nobody_goes_by_size_nothing_is_looked_up() -> None:
    fleet = Fleet(a=TWICE)
    for strategy in ("round_robin", "failover"):
        asked(fleet, strategy, provider("a"), provider("b", limits={"rpm": 5, "concurrency": 3}))
    assert (fleet.looked, fleet.tokens) == (0, {"a": 0, "b": 0})
