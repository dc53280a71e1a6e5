"""What a call costs: the user's own prices, genai-prices' figures to the last digit, and nothing where nothing is known."""

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from shared import prices
from shared.catalogue import Price, Provider
from shared.jobs import Usage
from shared.money import format_usd
from shared.prices import Tariff, cost_of, list_price, of_price, tariff_of

OPENAI = "https://api.openai.com/v1"
PUBLIC = [
    (OPENAI, "gpt-4o-mini"),
    (OPENAI, "gpt-5.4"),  # tiered by length
    ("https://api.anthropic.com/v1", "claude-sonnet-4-5"),
    ("https://api.anthropic.com/v1", "claude-haiku-5-5"),  # tiered
    ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-2.5-pro"),  # tiered
    ("https://api.mistral.ai/v1", "mistral-large-latest"),
    ("https://api.groq.com/openai/v1", "llama-3.3-70b-versatile"),
    ("https://api.deepseek.com/v1", "deepseek-chat"),  # by the hour
    ("https://api.perplexity.ai", "sonar-pro"),  # and a fee for each request
    ("https://api.perplexity.ai", "sonar-deep-research"),  # reasoning has a price of its own
    ("https://openrouter.ai/api/v1", "anthropic/claude-sonnet-4.5"),
]


def provider(endpoint: str = OPENAI, **fields: Any) -> Provider:
    return Provider.model_validate({"id": "p", "endpoint": endpoint, **fields})


THRESHOLDS = (100_000, 128_000, 200_000, 272_000)
LENGTHS = st.integers(0, 1_000_000) | st.sampled_from([at + by for at in THRESHOLDS for by in (-1, 0, 1)])
ANSWERS = st.integers(0, 100_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Short and long, on both sides of the tiers' thresholds, with parts that do not exceed the whole."""
    length, answer = draw(LENGTHS), draw(ANSWERS)
    return Usage(
        input_tokens=length,
        cached_tokens=draw(st.integers(0, length)),
        output_tokens=answer,
        reasoning_tokens=draw(st.integers(0, answer)),
    )


def theirs(usage: Usage) -> genai_prices.Usage:
    return genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
    )


@pytest.mark.parametrize(("endpoint", "model"), PUBLIC)
@given(usage=usages(), hour=st.integers(0, 23))
def test_a_list_price_is_what_genai_prices_says(endpoint: str, model: str, usage: Usage, hour: int) -> None:
    at = datetime(2026, 11, 20, hour, 15, tzinfo=UTC)
    tariff = tariff_of(provider(endpoint), model)
    assert tariff is not None
    assert tariff.listed
    expected = genai_prices.calc_price(
        theirs(usage), model, provider_api_url=endpoint, genai_request_timestamp=at
    )
    assert tariff.cost(usage, at) == expected.total_price


def test_so_is_every_price_in_its_data() -> None:
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    usage = Usage(input_tokens=150_000, cached_tokens=20_000, output_tokens=900, reasoning_tokens=100)
    known = 0
    for vendor in get_snapshot().providers:
        for model in vendor.models:
            tariff = prices._listed(vendor, model.id)
            found = vendor.find_model(model.id, all_providers=get_snapshot().providers)
            if tariff is None or found is None:
                continue
            known += 1
            expected = found.calc_price(theirs(usage), vendor, genai_request_timestamp=at).total_price
            assert tariff.cost(usage, at) == expected, model.id
            assert expected > 0, "an unknown price is not taken for a free one"
    assert known > 1500


def test_the_tier_is_that_of_the_whole_input() -> None:
    tariff = tariff_of(provider(), "gpt-5.4")
    assert tariff is not None
    below, above = (tariff.cost(Usage(input_tokens=n)) for n in (272_000, 272_001))
    assert above > below * Decimal("1.9")


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:8000/v1",
        "https://vllm/v1",
        "https://10.0.0.7/v1",
        "https://[::1]:8000/v1",
        "http://api.openai.com/v1",
        "https://llm.example.com/v1",
        "https://api.openai.com.example.com/v1",
        "https://api.openai.company/v1",
        "https://someone--vllm.modal.run/v1",  # a server of one's own, paid by the hour
    ],
)
def test_a_model_of_a_known_name_costs_nobody_knows_what_at_an_unknown_host(endpoint: str) -> None:
    for model in ("gpt-4o-mini", "moonshotai/Kimi-K3"):
        assert tariff_of(provider(endpoint), model) is None
        assert cost_of(provider(endpoint), model, Usage(input_tokens=1)) is None


@pytest.mark.parametrize("endpoint", ["https://API.OpenAI.com/v1", "https://api.openai.com:443/v1", OPENAI])
def test_a_public_host_is_known_however_it_is_written(endpoint: str) -> None:
    assert tariff_of(provider(endpoint), "gpt-4o-mini")


def test_the_providers_own_name_is_what_has_a_list_price() -> None:
    aliased = provider(models={"fast": "gpt-4o-mini", "gpt-5.4": "not-a-model"})
    assert tariff_of(aliased, "fast") == tariff_of(provider(), "gpt-4o-mini")
    assert tariff_of(aliased, "gpt-5.4") is None
    assert tariff_of(aliased, "gpt-4o-mini") is None, "not served"


def test_what_has_no_price_for_input_and_output_is_unknown() -> None:
    assert tariff_of(provider(), "text-embedding-3-small") is None
    assert tariff_of(provider(), "omni-moderation-latest") is None
    assert tariff_of(provider("https://openrouter.ai/api/v1"), "mistralai/mistral-nemo:free") is None
    assert tariff_of(provider(), "no-such-model") is None


def test_a_simulated_answer_has_no_list_price() -> None:
    assert tariff_of(provider(simulated=True), "gpt-4o-mini") is None


def test_the_providers_file_comes_first() -> None:
    own = provider(
        cost_per_1k_tokens="0.03",
        prices={"gpt-4o-mini": {"input": "0.001", "output": "0.002"}, "real": {"input": "1"}},
        models={"*": "*", "fast": "real"},
    )
    usage = Usage(input_tokens=1000, cached_tokens=900, output_tokens=500, reasoning_tokens=400)
    assert cost_of(own, "gpt-4o-mini", usage) == Decimal("0.002")
    assert cost_of(own, "fast", usage) == Decimal("1.5"), "by the provider's own name"
    assert cost_of(own, "else", usage) == Decimal("0.045")
    tariff = tariff_of(own, "else")
    assert tariff is not None
    assert tariff.listed == ""


def test_free_is_said() -> None:
    usage = Usage(input_tokens=10**6, output_tokens=10**6)
    assert cost_of(provider(cost_per_1k_tokens=0), "gpt-4o-mini", usage) == 0
    assert cost_of(provider(prices={"m": {"input": 0}}), "m", usage) == 0


def test_prices_are_per_thousand_tokens() -> None:
    cost = of_price(Price(input=Decimal("0.03"), output=Decimal("0.06"))).cost(
        Usage(input_tokens=1500, output_tokens=200)
    )
    assert cost == Decimal("0.057")
    assert format_usd(cost) == "0.057"


def test_more_cached_than_there_was_is_no_discount() -> None:
    tariff = tariff_of(provider(), "gpt-4o-mini")
    assert tariff is not None
    usage = Usage(input_tokens=10, cached_tokens=99, output_tokens=1, reasoning_tokens=5)
    assert 0 < tariff.cost(usage) <= tariff.cost(Usage(input_tokens=10, output_tokens=1))


@pytest.mark.parametrize(("endpoint", "model"), PUBLIC)
@given(calls=st.lists(usages(), min_size=1, max_size=5), hour=st.integers(0, 23))
def test_a_bound_holds_at_any_hour_and_length(
    endpoint: str, model: str, calls: list[Usage], hour: int
) -> None:
    tariff = tariff_of(provider(endpoint), model)
    assert tariff is not None
    at = datetime.now(UTC).replace(hour=hour)
    bound = tariff.at_most(
        len(calls), sum(call.input_tokens for call in calls), sum(call.output_tokens for call in calls)
    )
    assert sum(tariff.cost(call, at) for call in calls) <= bound


def test_a_list_that_cannot_be_read_loses_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_model: object) -> None:
        raise AttributeError("a later version has it no more")

    monkeypatch.setattr(prices, "_prices", broken)
    assert cost_of(provider(), "gpt-4o-mini", Usage(input_tokens=1)) is None


def test_a_tariff_is_found_once_and_names_from_clients_do_not_pile_up() -> None:
    one = provider()
    assert tariff_of(one, "gpt-4o-mini") is tariff_of(one, "gpt-4o-mini")
    local = provider("http://127.0.0.1:1/v1")
    for n in range(10_000):
        tariff_of(local, f"model-{n}")
    assert len(prices._known) <= 4096


def test_a_price_by_the_models_name_alone() -> None:
    found = list_price("gpt-4o-mini")
    assert isinstance(found, Tariff)
    assert found.listed == "OpenAI's gpt-4o-mini"
    assert list_price("our-own-model") is None


def test_the_list_is_read_only_where_it_is_needed() -> None:
    program = (
        "import sys\n"
        "from shared.catalogue import Provider\n"
        "from shared.prices import tariff_of, warm\n"
        "for url in ('http://127.0.0.1:1/v1', 'https://vllm:8000/v1'):\n"
        "    assert tariff_of(Provider(id='p', endpoint=url), 'gpt-4o') is None\n"
        "    assert tariff_of(Provider(id='p', endpoint='https://api.openai.com/v1', cost_per_1k_tokens='1'), 'gpt-4o')\n"
        "warm([Provider(id='p', endpoint='http://127.0.0.1:1/v1', models={'a': 'b'})])\n"
        "assert 'genai_prices' not in sys.modules\n"
        "warm([Provider(id='p', endpoint='https://api.openai.com/v1')])\n"
        "assert 'genai_prices' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
