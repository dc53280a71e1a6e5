import re
from decimal import Decimal
from pathlib import Path

import pytest

from shared.catalogue import Catalogue, Limits, Price, Provider, find_file, fleet_path, load_catalogue
from shared.config import load_settings
from shared.errors import ConfigError
from shared.prices import of_price, tariff_of

GOOD = """
providers:
  - id: openai
    name: OpenAI
    kind: openai
    endpoint: https://api.openai.com/v1/
    api_key_env: SOME_KEY
    cost_per_1k_tokens: 0.03
    prices: {mini: {input: 0.00015, output: 0.0006}}
    models: {mini: gpt-4o-mini, fast: gpt-4o-mini}
  - {id: local, endpoint: "http://127.0.0.1:1/v1", enabled: false, models: {"*": "*"}}
routing: {strategy: failover}
retry: {max_retries: 5}
"""


def write(folder: Path, text: str, name: str = "providers.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_faulty_variable_is_named_at_once_and_no_secret_is_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(
            {
                "SERVER_PORT": "x",
                "LLM_EDGE_LEASE_S": "0",
                "REDIS_URL": "http://:secret@h",
                "LOG_FORMAT": "xml",
            }
        )
    assert len(caught.value.faults) == 4
    assert "secret" not in str(caught.value)


def test_an_empty_variable_is_an_absent_one() -> None:
    assert load_settings({"SERVER_PORT": "", "BROKER_URL": ""}).server_port == 8080


def test_the_broker_defaults_to_the_ledgers_redis() -> None:
    settings = load_settings({"REDIS_URL": "redis://h/1"})
    assert settings.broker == settings.redis
    assert load_settings({"BROKER_URL": "amqp://b"}).broker is None


def test_a_providers_file(tmp_path: Path) -> None:
    catalogue = load_catalogue(write(tmp_path, GOOD))
    openai, local = catalogue.providers
    assert openai.endpoint == "https://api.openai.com/v1"
    assert (openai.model_for("fast"), openai.model_for("other")) == ("gpt-4o-mini", None)
    assert local.model_for("anything") == "anything"
    assert tariff_of(openai, "mini") == of_price(openai.prices["mini"])
    assert tariff_of(openai, "fast") == of_price(Price(input=Decimal("0.03")))
    assert tariff_of(local, "x") is None
    assert catalogue.serves("mini")
    assert not catalogue.serves("anything"), "a disabled provider serves nothing"
    assert catalogue.model_names == ["fast", "mini"]
    assert (catalogue.routing.strategy, catalogue.retry.max_retries) == ("failover", 5)


def test_the_same_in_toml(tmp_path: Path) -> None:
    text = '[[providers]]\nid = "a"\nendpoint = "http://h/v1"\n[routing]\nstrategy = "failover"\n'
    assert load_catalogue(write(tmp_path, text, "providers.toml")).providers[0].id == "a"


def test_every_fault_of_the_file_is_named_at_once(tmp_path: Path) -> None:
    text = """
providers:
  - {id: "no spaces", endpoint: "ftp://h", colour: red}
  - {id: b, endpoint: "http://u:p@h/v1", weight: 0}
routing: {strategy: dice}
"""
    with pytest.raises(ConfigError) as caught:
        load_catalogue(write(tmp_path, text))
    assert len(caught.value.faults) == 6
    assert all("providers.yaml" in fault for fault in caught.value.faults)


@pytest.mark.parametrize(
    ("routing", "what"),
    [
        (
            "{strategy: dice}",
            "routing.strategy: .* there are: round_robin, failover, least_latency, cost_optimized",
        ),
        ("{strategy: mine, strategies: {other: 'm:f'}}", "cost_optimized, other"),
        ("{strategies: {failover: 'm:f'}}", "routing.strategies: .* failover comes with it"),
        ("{strategies: {mine: 'm.f'}}", r"routing.strategies.mine: .*pattern"),
        ("{strategies: {'no name': 'm:f'}}", r"routing.strategies.no name"),
    ],
)
def test_a_strategy_is_one_that_there_is(tmp_path: Path, routing: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        load_catalogue(write(tmp_path, f"{GOOD.partition('routing')[0]}routing: {routing}"))
    assert len(caught.value.faults) == 1


def test_a_users_own_strategy_and_what_a_provider_can_do(tmp_path: Path) -> None:
    text = """
providers:
  - {id: a, endpoint: "http://h/v1", capabilities: [tools, n], context_tokens: 8192, max_tokens: 1024}
routing: {strategy: mine, strategies: {mine: "my_package.my_module:rank"}, slow_start_s: 10}
"""
    catalogue = load_catalogue(write(tmp_path, text))
    assert catalogue.routing.strategies == {"mine": "my_package.my_module:rank"}
    assert sorted(catalogue.providers[0].capabilities or ()) == ["n", "tools"]
    with pytest.raises(ConfigError, match="capabilities"):
        load_catalogue(write(tmp_path, text.replace("tools", "tolls")))


@pytest.mark.parametrize("text", ["", "[]", "providers: []", "providers: [{id: a}]", "a: [", "\x00"])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"providers\.yaml"):
        load_catalogue(write(tmp_path, text))


A = '{id: a, endpoint: "http://h/v1"}'


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        (
            "providers.yaml",
            f"providers: [{A}]\nowners:\n  alice: {{max_cost: 5}}\n  bob: {{max_cost: 1}}\n  alice: {{max_cost: 500}}\n",
            ["providers.yaml:5: 'alice' stands here again; it is on line 3 already"],
        ),
        (
            "providers.yml",
            "providers:\n- id: a\n  endpoint: http://h/v1\n  limits: {rpm: 1}\n  limits:\n    rpm: 2\n    rpm: 3\nproviders: []\n",
            [
                "providers.yml:5: 'limits' stands here again; it is on line 4 already",
                "providers.yml:7: 'rpm' stands here again; it is on line 6 already",
                "providers.yml:8: 'providers' stands here again; it is on line 1 already",
            ],
        ),
        (
            "fleet.json",
            '{"providers": [{"id": "a",\n"endpoint": "http://h/v1"}],\n"owners": {"x": {"max_cost": 1}, "x": {"max_cost": 2}}}',
            ["fleet.json:3: 'x' stands here again; it is on line 3 already"],
        ),
        ("fleet.toml", '[[providers]]\nid = "a"\nid = "b"\nendpoint = "http://h/v1"\n', ["line 3"]),
    ],
)
def test_no_key_stands_twice(tmp_path: Path, name: str, text: str, places: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_catalogue(write(tmp_path, text, name))
    assert len(caught.value.faults) == len(places)
    for fault, place in zip(caught.value.faults, places, strict=True):
        assert place in fault


@pytest.mark.parametrize(
    "text",
    [
        f"providers: [{A}]\n? [a, b]\n: 1\n",
        f"providers: [{A}]\n? {{a: b}}\n: 1\n",
        f"providers: [{A}]\n2025-13-45: 1\n",
        "&x [*x]",
        "&x {providers: *x}",
        "? &x [*x]\n: 1",
    ],
)
def test_odd_keys_and_loops_are_a_fault_and_no_more(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"providers\.yaml"):
        load_catalogue(write(tmp_path, text))


def test_what_is_merged_in_may_be_overruled(tmp_path: Path) -> None:
    text = f"""
providers:
  - &a {A}
  - {{<<: *a, id: b, weight: 3}}
"""
    assert [p.id for p in load_catalogue(write(tmp_path, text)).providers] == ["a", "b"]


DOCS = Path(__file__).parents[2] / "ops" / "docs"


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_the_samples_of_the_documentation_are_in_order(tmp_path: Path, page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        if "scrape_configs:" in block:  # Prometheus' own
            continue
        if "\nproviders:" not in f"\n{block}":
            block = f"providers: [{A}]\n{block}"  # noqa: PLW2901
        load_catalogue(write(tmp_path, block))


def test_ids_are_distinct(tmp_path: Path) -> None:
    text = "providers: [{id: a, endpoint: 'http://h/v1'}, {id: a, endpoint: 'http://h/v1'}]"
    with pytest.raises(ConfigError, match="used twice: a"):
        load_catalogue(write(tmp_path, text))


def test_where_the_file_is_looked_for(tmp_path: Path) -> None:
    assert find_file(load_settings({}), tmp_path) is None
    with pytest.raises(ConfigError, match="llm-edge init"):
        fleet_path(load_settings({}), tmp_path)
    path = write(tmp_path, GOOD)
    assert find_file(load_settings({}), tmp_path) == path
    assert find_file(load_settings({"LLM_EDGE_CONFIG": "/else"}), tmp_path) == Path("/else")


def test_keys_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    env = Provider(id="a", endpoint="http://h/v1", api_key_env="K")
    assert env.api_key({"K": " secret "}) == "secret"
    with pytest.raises(ConfigError, match="K is not set"):
        env.api_key({})
    key_file = write(tmp_path, "secret\n", "key")
    assert Provider(id="a", endpoint="http://h/v1", api_key_file=key_file).api_key({}) == "secret"
    with pytest.raises(ConfigError, match="No such file"):
        Provider(id="a", endpoint="http://h/v1", api_key_file=tmp_path / "none").api_key({})
    with pytest.raises(ValueError, match="not both"):
        Provider(id="a", endpoint="http://h/v1", api_key_env="K", api_key_file=key_file)
    assert Provider(id="a", endpoint="http://h/v1").api_key({}) is None


def test_a_catalogue_needs_a_provider() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Catalogue(providers=())


def test_limits_are_each_optional_and_at_least_one(tmp_path: Path) -> None:
    head = "providers:\n  - {id: a, endpoint: 'http://a', limits: "
    loaded = load_catalogue(write(tmp_path, head + "{rpm: 600}}\nadaptive_concurrency: false\n"))
    assert loaded.providers[0].limits == Limits(rpm=600)
    assert (loaded.adaptive_concurrency, Catalogue(providers=loaded.providers).adaptive_concurrency) == (
        False,
        True,
    )
    with pytest.raises(ConfigError) as caught:
        load_catalogue(write(tmp_path, head + "{rpm: 0, tpm: -1, calls: 3}}"))
    assert len(caught.value.faults) == 3


def test_models_have_limits_of_their_own_where_the_provider_serves_them(tmp_path: Path) -> None:
    def load(models: str, limits: str) -> Catalogue:
        text = (
            f"providers:\n  - {{id: a, endpoint: 'http://a', models: {models}, limits: {{models: {limits}}}}}"
        )
        return load_catalogue(write(tmp_path, text))

    small = load("{quick: small}", "{small: {tpm: 100}, quick: {rpm: 5}}")
    assert small.providers[0].limits.models["small"].tpm == 100
    assert small.goes_by_size, "tokens are counted for it"
    assert not load("{quick: small}", "{small: {rpm: 100}}").goes_by_size
    assert load("{'*': '*'}", "{any: {concurrency: 1}}").providers[0].limited_as("any") == "any"
    for models, limits, said in (
        ("{quick: small}", "{smal: {rpm: 1}}", "it serves no smal;"),
        ("{'*': '*'}", "{any: {rpm: 1}, '*': {rpm: 1}}", r"it serves no \*;"),
        ("{'*': '*'}", "{any: {rpm: 0}}", "limits.models.any.rpm"),
        ("{'*': '*'}", "{any: {models: {}}}", "limits.models.any.models"),
    ):
        with pytest.raises(ConfigError, match=said):
            load(models, limits)
