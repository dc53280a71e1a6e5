"""Ceilings: what they are called, whose they are, and that what is reserved for a call bounds it."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.catalogue import Catalogue, Provider, Quota, parse_catalogue
from shared.errors import ConfigError
from shared.gate import Block
from shared.jobs import Slip, Usage
from shared.limits import Limit
from shared.money import from_nanos, to_nanos
from shared.prices import cost_of
from shared.reasons import Reason
from shared.routing_asked import RoutingAsked
from shared.spending import Purse, batch_purse, beyond, budget_of, owner_purse, purses_of, rows, worst_case
from shared.tokens import measure
from workers.execute import Job

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()
TEN = Quota(max_cost=Decimal(10))
PURSE = batch_purse("b", 10**9)


def provider(name: str = "p", **fields: Any) -> Provider:
    return Provider.model_validate({"id": name, "endpoint": "http://127.0.0.1/v1", **fields})


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


@pytest.mark.parametrize(
    ("per", "scope"),
    [("day", "owner:a:2026-11-27"), ("month", "owner:a:2026-11"), ("total", "owner:a")],
)
def test_a_quota_is_counted_by_owner_and_period(per: Any, scope: str) -> None:
    quota = Quota(max_cost=Decimal("0.5"), per=per)
    assert owner_purse("a", {"a": quota}, NOON) == Purse(scope, 500_000_000)


def test_everybodys_quota_is_each_ones_own_and_a_named_one_goes_before_it() -> None:
    quotas = {"*": Quota(max_cost=Decimal(1), per="total"), "a": TEN}
    assert owner_purse("a", quotas, NOON) == Purse("owner:a:2026-11", 10**10)
    assert owner_purse("b", quotas, NOON) == Purse("owner:b", 10**9)
    assert owner_purse("b", {"a": TEN}, NOON) is None


def test_a_job_is_paid_from_its_batch_and_its_owner() -> None:
    both = purses_of("b", 5, "a", {"a": TEN}, NOON)
    assert both == (Purse("batch:b", 5), Purse("owner:a:2026-11", 10**10))
    assert budget_of(both) == Decimal("0.000000005")
    assert rows(both, 7) == (Limit("batch:b", "money", 7, 5), Limit("owner:a:2026-11", "money", 7, 10**10))
    assert purses_of("b", None, "a", {}, NOON) == ()
    assert budget_of(()) is None


@pytest.mark.parametrize("wrong", [{"max_cost": 0}, {"max_cost": -1}, {}, {"max_cost": 1, "per": "week"}])
def test_a_quota_that_is_none_is_refused(wrong: dict[str, Any], tmp_path: Any) -> None:
    text = json.dumps({"providers": [{"id": "p", "endpoint": "http://x/v1"}], "owners": {"a": wrong}})
    with pytest.raises(ConfigError, match=r"owners\.a"):
        parse_catalogue(text.encode(), tmp_path / "providers.yaml")


@given(
    text=st.text(max_size=300),
    asked=st.integers(1, 5000),
    answers=st.integers(1, 4),
    share=st.floats(0, 1),
    price=st.decimals("0", "1", places=6),
)
def test_what_is_reserved_bounds_the_call_whatever_the_tokenizer(
    text: str, asked: int, answers: int, share: float, price: Decimal
) -> None:
    """A token for each byte of the text, and answers as long as they may be."""
    raw = body(messages=[{"role": "user", "content": text}], max_tokens=asked, n=answers)
    dear = provider(prices={"m": {"input": str(price), "output": str(price * 2)}})
    worst = worst_case(dear, "m", measure(raw), len(raw))
    assert worst is not None
    used = Usage(input_tokens=len(text.encode()), output_tokens=int(share * asked * answers))
    cost = cost_of(dear, "m", used)
    assert cost is not None
    assert to_nanos(cost) <= worst


@pytest.mark.parametrize(
    ("fields", "of_provider", "known"),
    [
        ({"max_tokens": 10}, {}, True),
        ({"max_completion_tokens": 10}, {}, True),
        ({}, {}, False),
        ({}, {"max_tokens": 100}, True),
        ({"max_tokens": 10}, {"cost_per_1k_tokens": None}, False),
        ({"max_tokens": 10, "messages": [{"role": "user", "content": [{"type": "file"}]}]}, {}, False),
        (
            {"max_tokens": 10, "messages": [{"role": "user", "content": [{"type": "file"}]}]},
            {"context_tokens": 1000},
            True,
        ),
        (
            {"max_tokens": 10, "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
            {},
            True,
        ),
    ],
)
def test_what_is_needed_to_bound_a_call(
    fields: dict[str, Any], of_provider: dict[str, Any], known: bool
) -> None:
    raw = body(**fields)
    found = worst_case(provider(**{"cost_per_1k_tokens": 0.01, **of_provider}), "m", measure(raw), len(raw))
    assert (found is not None) == known


def test_the_providers_own_longest_answer_bounds_a_request_that_asks_for_more() -> None:
    raw = body(max_tokens=10**6, n=2)
    small = worst_case(provider(cost_per_1k_tokens=1, max_tokens=100), "m", measure(raw), 0)
    assert small == (512 + 200) * 10**6


FLEET = Catalogue(
    providers=(
        provider("free", models={"m": "m"}),
        provider("priced", cost_per_1k_tokens=1, models={"m": "m", "other": "other"}),
    )
)


def test_one_provider_with_a_price_and_bounds_is_enough() -> None:
    raw = body(max_tokens=10)
    assert beyond(raw, "m", None, FLEET, (PURSE,)) is None
    only = RoutingAsked(providers=("free",))
    fault = beyond(raw, "m", only, FLEET, (PURSE,))
    assert fault is not None
    assert (fault.code, fault.param) == ("cost_not_bounded", "model")


def test_a_request_that_alone_exceeds_the_least_ceiling_says_what_it_can_cost() -> None:
    fault = beyond(body(max_tokens=10), "m", None, FLEET, (PURSE, Purse("owner:a", 10**8)))
    assert fault is not None
    assert fault.code == "max_cost_too_low"
    assert "no more than 0.1 may be spent" in fault.message


def blocked(*details: str, reason: Reason = Reason.BUDGET_SPENT) -> list[Block]:
    return [Block("p", reason, 0.0, detail) for detail in details]


def test_a_batch_ends_only_where_its_own_ceiling_is_all_that_is_in_the_way() -> None:
    job = Job("b", "/v1/chat/completions", Slip(index=0, offset=0, length=1), b"", "b/1", 1, None, "a", 10**9)
    fault = job.overspent(blocked("batch:b", "batch:b"))
    assert fault is not None
    assert fault.code == "max_cost_reached"
    assert "1 US dollars" in fault.message
    assert job.overspent([]) is None
    assert job.overspent(blocked("batch:b", "owner:a")) is None
    assert job.overspent([*blocked("batch:b"), *blocked("", reason=Reason.BREAKER_OPEN)]) is None
    assert from_nanos(10**9) == 1
