"""Ceilings: what they are called, whose they are, and that what is reserved for a call bounds it."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bounds import Bounds, bounds_of
from shared.catalogue import Catalogue, Provider, Quota, parse_catalogue
from shared.errors import ConfigError
from shared.gate import Block
from shared.jobs import Fault, Slip, Usage
from shared.limits import Limit
from shared.money import to_nanos
from shared.prices import cost_of
from shared.reasons import Reason
from shared.routing_asked import RoutingAsked
from shared.spending import Purse, batch_purse, beyond, budget_of, owner_purse, purses_of, rows, worst_case
from shared.tokens import measure
from workers.execute import Job

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()
TEN = Quota(max_cost=Decimal(10))
PURSE = batch_purse("b", 10**9)
CHAT = "/v1/chat/completions"


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
    bounds = bounds_of(raw)
    assert isinstance(bounds, Bounds)
    worst = worst_case(dear, "m", bounds)
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
    bounds = bounds_of(raw)
    assert isinstance(bounds, Bounds)
    found = worst_case(provider(**{"cost_per_1k_tokens": 0.01, **of_provider}), "m", bounds)
    assert (found is not None) == known


def test_the_providers_own_longest_answer_bounds_a_request_that_asks_for_more() -> None:
    bounds = Bounds(0, answers=2, max_tokens=10**6)
    small = worst_case(provider(cost_per_1k_tokens=1, max_tokens=100), "m", bounds)
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


def test_a_price_of_one_that_cannot_take_it_is_no_bound() -> None:
    short = provider("short", cost_per_1k_tokens=1, models={"m": "m"}, max_tokens=100)
    fleet = Catalogue(providers=(FLEET.providers[0], short))
    assert beyond(body(max_tokens=100), "m", None, fleet, (PURSE,)) is None
    fault = beyond(body(max_tokens=101), "m", None, fleet, (PURSE,))
    assert fault is not None
    assert fault.code == "cost_not_bounded"


def test_a_request_that_alone_exceeds_the_least_ceiling_says_what_it_can_cost() -> None:
    fault = beyond(body(max_tokens=10), "m", None, FLEET, (PURSE, Purse("owner:a", 10**8)))
    assert fault is not None
    assert fault.code == "max_cost_too_low"
    assert "no more than 0.1 may be spent" in fault.message


def blocked(*details: str, reason: Reason = Reason.BUDGET_SPENT) -> tuple[Block, ...]:
    return tuple(Block("p", reason, 0.0, detail) for detail in details)


def test_a_batch_ends_only_where_its_own_ceiling_is_all_that_is_in_the_way() -> None:
    job = Job("b", CHAT, Slip(index=0, offset=0, length=1), b"", "b/1", 1, None, "a", 10**9)

    def fault(*blocks: Block) -> str | None:
        found = job.overspent(job.told_apart(blocks))
        return None if found is None else found.code

    assert fault(*blocked("batch:b", "batch:b")) == "max_cost_reached"
    assert fault(*blocked("batch:b"), *blocked("", reason=Reason.DISABLED)) == "max_cost_reached"
    assert fault() is None
    assert fault(*blocked("", reason=Reason.DISABLED)) is None
    assert fault(*blocked("batch:b", "owner:a")) is None
    assert fault(*blocked("batch:b"), *blocked("", reason=Reason.BREAKER_OPEN)) is None
    assert [b.reason for b in job.told_apart(blocked("batch:b", "owner:a"))] == [
        Reason.MAX_COST,
        Reason.BUDGET_SPENT,
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": "100"}, "n"),
        ({"n": 100.0}, "n"),
        ({"n": True}, "n"),
        ({"best_of": -1}, "best_of"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"audio": {"voice": "a"}}, "audio"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"models": ["dear"]}, "models"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": []}]}, "tools"),
    ],
)
def test_what_may_cost_more_than_is_known_cannot_be_bounded(fields: dict[str, Any], param: str) -> None:
    found = bounds_of(body(max_tokens=10, **fields) if "max_tokens" not in fields else body(**fields))
    assert isinstance(found, Fault)
    assert (found.code, found.param) == ("cost_not_bounded", param)


@pytest.mark.parametrize(
    ("fields", "answers", "max_tokens"),
    [
        ({}, 1, None),
        ({"max_tokens": 5, "n": 3, "best_of": 2}, 3, 5),
        ({"max_tokens": 5, "max_completion_tokens": 900}, 1, 900),
        ({"max_tokens": 5, "prompt": ["a", "b", "c"]}, 3, 5),
        ({"max_tokens": 5, "prompt": [[1, 2], [3]], "n": 2}, 4, 5),
        ({"max_tokens": 5, "prompt": [1, 2, 3], "web_search_options": None}, 1, 5),
        ({"max_tokens": 5, "tools": [{"type": "function"}], "modalities": ["text"]}, 1, 5),
    ],
)
def test_the_worse_of_all_readings_counts(
    fields: dict[str, Any], answers: int, max_tokens: int | None
) -> None:
    """Of both fields for the length, and of both forms of a request, whichever the provider goes by."""
    found = bounds_of(body(**fields))
    assert isinstance(found, Bounds)
    assert (found.answers, found.max_tokens) == (answers, max_tokens)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["messages", "prompt", "n", "best_of", "max_tokens", "tools", "modalities", "service_tier", "functions"]
)


@given(
    st.dictionaries(FIELDS, json_values, max_size=4),
    st.lists(
        st.fixed_dictionaries(
            {"content": st.lists(st.fixed_dictionaries({"type": json_values}), max_size=2)}
        ),
        max_size=2,
    ),
)
def test_whatever_stands_in_a_body_is_measured_and_bounded_without_an_error(
    fields: dict[str, Any], messages: list[Any]
) -> None:
    for fill in (fields, {**fields, "messages": messages}):
        raw = json.dumps({"model": "m", **fill}).encode()
        measure(raw)
        bounds_of(raw)
