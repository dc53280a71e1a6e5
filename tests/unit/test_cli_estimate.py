"""`llm-edge batch estimate` as a user calls it, and the arithmetic behind it."""

import json
import math
import tracemalloc
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.contract_server import Answer, contract_server, refusal
from typer.testing import CliRunner, Result

from api.cli.estimate import Estimate, Load, estimate, time_s
from api.cli.estimate_text import document, lines
from api.cli.main import app
from shared.catalogue import Catalogue, Limits
from shared.fitness import Wanted
from shared.jobs import Usage
from shared.lines import ENDPOINTS
from shared.prices import tariff_of
from shared.tokens import DEFAULT_ANSWER_TOKENS, Measured

URL = "/v1/chat/completions"
OPENAI = {"id": "openai", "endpoint": "https://api.openai.com/v1", "models": {"mini": "gpt-4o-mini"}}
LOCAL = {"id": "local", "endpoint": "http://127.0.0.1:1/v1", "models": {"*": "*"}}


def line(number: int, model: str = "mini", **fields: Any) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": f"Say {number}."}], **fields}
    return json.dumps({"custom_id": str(number), "method": "POST", "url": URL, "body": body})


class Edge:
    """`llm-edge batch estimate` in a folder of its own, with no server unless a test names one."""

    def __init__(self, folder: Path) -> None:
        self.input = folder / "in.jsonl"
        self.config = folder / "providers.yaml"
        self.env: dict[str, str | None] = {
            "LLM_EDGE_CONFIG": str(self.config),
            "LLM_EDGE_URL": "http://127.0.0.1:1",
        }

    def __call__(self, *words: object) -> Result:
        return CliRunner().invoke(app, ["batch", "estimate", str(self.input), *map(str, words)], env=self.env)

    def providers(self, *providers: dict[str, Any]) -> None:
        self.config.write_text(yaml.safe_dump({"providers": list(providers)}))

    def lines(self, *lines: str) -> None:
        self.input.write_text("".join(f"{each}\n" for each in lines))


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    edge = Edge(tmp_path)
    edge.providers(OPENAI, LOCAL)
    edge.lines(*(line(n, max_tokens=100) for n in range(1000)))
    return edge


def test_a_batch_at_a_list_price_and_at_one_nobody_knows(edge: Edge) -> None:
    result = edge()
    assert (result.exit_code, result.stderr) == (0, "")
    first, tokens, learned, openai, local, time = result.stdout.splitlines()
    assert first == f"{edge.input}  1,000 requests for mini"
    assert tokens.startswith("  tokens   about ")
    assert tokens.endswith(" in and 100,000 out (a guess), at most 100,000 out")
    assert learned == "  learned  nothing yet: http://127.0.0.1:1 cannot be reached"
    assert "openai: about $0.06" in openai
    assert openai.endswith("at the list price of OpenAI's gpt-4o-mini, time unknown (no limits)")
    assert local == "  provider local: cost unknown (no price for mini), time unknown (no limits)"
    assert time == "  time     unknown: no rpm or tpm in the limits of openai, local"


def test_the_time_is_that_of_the_tightest_limit(edge: Edge) -> None:
    edge.providers({**OPENAI, "limits": {"rpm": 100}}, {**LOCAL, "limits": {"tpm": 1000, "concurrency": 4}})
    found = json.loads(edge("--json").stdout)
    openai, local = found["providers"]
    assert openai["time_s"] == 600
    alone = (local["input_tokens"] + local["output_tokens"]) * 60 / 1000
    assert local["time_s"] == pytest.approx(alone, abs=0.01)
    assert found["time_s"] == pytest.approx(1 / (1 / 600 + 1 / alone), abs=0.01)
    assert "openai: about" in edge().stdout
    assert "10 min 0 s at its limits" in edge().stdout
    assert "with every provider at its limits" in edge().stdout


def test_json_is_one_document(edge: Edge) -> None:
    edge.lines(line(1, max_tokens=10), line(2, "other"), line(3, "other", n=2))
    found = json.loads(edge("--json").stdout)
    openai, local = found["providers"]
    assert (found["requests"], found["models"]) == (3, {"mini": 1, "other": 2})
    assert (found["output_tokens"], found["most_output_tokens"]) == (10 + 3 * DEFAULT_ANSWER_TOKENS, None)
    assert (openai["requests"], openai["list_prices"]) == (1, ["OpenAI's gpt-4o-mini"])
    assert Decimal(openai["cost_usd"]) == Decimal(openai["most_cost_usd"]) > 0
    assert (local["requests"], local["cost_usd"], local["unpriced_models"]) == (3, None, ["mini", "other"])
    assert (found["time_s"], local["time_s"]) == (None, None)
    shown = edge().stdout
    assert "2 requests without max_tokens may take any number" in shown
    assert "openai: 1 of 3 requests, about $" in shown


def test_free_is_not_unknown(edge: Edge) -> None:
    edge.providers({**LOCAL, "cost_per_1k_tokens": 0})
    assert "local: about $0.00, at most $0.00, time" in edge().stdout


def test_as_if_for_another_model(edge: Edge) -> None:
    edge.lines(line(1, "nobody-has-it"))
    edge.providers(OPENAI)
    assert edge().exit_code == 3
    assert "1 request for mini" in edge("--model", "mini").stdout
    refused = edge("--model", "gpt-5")
    assert refused.exit_code == 2
    assert "no enabled provider serves it; they name: mini" in refused.stderr


def test_bad_lines_are_named_as_submit_would(edge: Edge) -> None:
    edge.lines(line(1), "{", line(1), *["[]"] * 20)
    result = edge()
    assert result.exit_code == 3
    shown = result.stdout.splitlines()
    assert shown[0] == f"{edge.input}  is no batch"
    assert shown[1].startswith("  fault    line 2: The line is not a JSON object")
    assert shown[2] == "  fault    line 3: custom_id '1' stands on an earlier line; each must be its own."
    assert "and 12 more" in shown[-1]
    found = json.loads(edge("--json").stdout)
    assert len(found["errors"]["data"]) == 22
    assert found["errors"]["data"][0]["code"] == "invalid_json_line"


SMALL = {
    "id": "small",
    "endpoint": "http://h/v1",
    "cost_per_1k_tokens": 1,
    "max_tokens": 2,
    "context_tokens": 500,
    "capabilities": ["tools"],
    "limits": {"rpm": 60},
}
BIG = {
    "id": "big",
    "endpoint": "http://h/v1",
    "cost_per_1k_tokens": 1,
    "max_tokens": 1000,
    "limits": {"rpm": 60},
}
LONG = [{"role": "user", "content": "word " * 1000}]


@pytest.mark.parametrize(
    ("fields", "small", "big"),
    [
        ({"max_tokens": 2}, 1, 1),
        ({"max_tokens": 3}, 0, 1),
        ({"max_tokens": 1001}, 0, 0),
        ({"messages": LONG}, 0, 1),
        ({"n": 2}, 0, 1),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 1, 1),
        ({"routing": {"providers": ["small"]}}, 1, 0),
        ({"routing": {"providers": ["small"]}, "n": 2}, 0, 0),
    ],
)
def test_who_cannot_take_a_request_does_not_count_it(
    edge: Edge, fields: dict[str, Any], small: int, big: int
) -> None:
    edge.providers(SMALL, BIG)
    edge.lines(line(1, max_tokens=1), line(2, **fields))
    found = json.loads(edge("--json").stdout)
    assert [each["requests"] - 1 for each in found["providers"]] == [small, big]
    assert found["unserved_requests"] == (small + big == 0)


def test_a_part_that_only_one_can_take_takes_as_long_as_that_one(edge: Edge) -> None:
    edge.providers(SMALL, BIG)
    edge.lines(line(1, max_tokens=1), *(line(n, n=2) for n in range(2, 11)))
    found = json.loads(edge("--json").stdout)
    assert [each["requests"] for each in found["providers"]] == [1, 10]
    assert found["time_s"] == 9


def test_what_nobody_can_take_is_told_with_what_is_in_the_way(edge: Edge) -> None:
    edge.providers(SMALL, BIG)
    edge.lines(line(1, max_tokens=1001), line(2, max_tokens=2000, routing={"providers": ["small"]}))
    shown = edge().stdout.splitlines()[-5:]
    assert shown == [
        "  nobody   2 requests that no provider can take: in a batch they would wait until its window ends",
        "  nobody   the max_tokens of big are too few for 1",
        "  nobody   big is not among the routing.providers of 1",
        "  nobody   the context_tokens of small are too few for 2",
        "  time     none: no provider can take any of it",
    ]
    found = json.loads(edge("--json").stdout)
    assert (found["unserved_requests"], found["providers"], found["time_s"]) == (2, [], None)
    assert {"provider": "small", "reason": "context", "requests": 2} in found["unserved_because"]


def test_another_model_of_the_request_is_asked_for_where_its_own_is_not_to_be_had(edge: Edge) -> None:
    edge.providers({**SMALL, "models": {"mini": "m"}}, {**BIG, "models": {"other": "o"}})
    edge.lines(line(1, max_tokens=1, routing={"models": ["other"]}), line(2, max_tokens=1))
    found = json.loads(edge("--json").stdout)
    assert [each["requests"] for each in found["providers"]] == [2, 1]


def test_a_providers_own_bound_bounds_the_answers_there(edge: Edge) -> None:
    edge.providers(SMALL, BIG)
    edge.lines(line(1), line(2))
    found = json.loads(edge("--json").stdout)
    small, big = found["providers"]
    assert (small["output_tokens"], small["most_output_tokens"]) == (4, 4)
    assert (big["output_tokens"], big["most_output_tokens"]) == (2 * DEFAULT_ANSWER_TOKENS, 2000)
    assert (found["output_tokens"], found["most_output_tokens"]) == (2 * DEFAULT_ANSWER_TOKENS, 2000)
    assert Decimal(small["most_cost_usd"]) == Decimal(small["input_tokens"] + 4) / 1000
    assert "no bound" not in edge().stdout
    edge.providers(SMALL, LOCAL)
    small, local = json.loads(edge("--json").stdout)["providers"]
    assert (small["most_output_tokens"], local["most_output_tokens"]) == (4, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 10**400},
        {"max_tokens": 10**400, "n": 10**400},
        {"best_of": 10**4000, "max_completion_tokens": 10**4000},
        {"messages": [{"role": "user", "content": [{"type": []}, {"type": {}}, 7, None, {"text": {}}]}]},
        {
            "messages": [{"role": "user", "content": [{"type": [], "image_url": [], "file": 3}]}],
            "tools": {"a": [None]},
        },
        {"response_format": {"type": []}, "logprobs": {}, "modalities": [[]], "functions": 3},
        {"model": "\u0000\u202e", "messages": [3]},
    ],
)
def test_no_line_that_could_be_handed_in_ends_in_a_traceback(edge: Edge, fields: dict[str, Any]) -> None:
    for limited in ({}, {"context_tokens": 10**6, "capabilities": []}):
        edge.providers({**LOCAL, "limits": {"rpm": 60, "tpm": 60}, "cost_per_1k_tokens": 1, **limited})
        edge.lines(line(1), line(2, **fields))
        result, document = edge(), edge("--json")
        assert (result.exit_code, result.exception, document.exception) == (0, None, None)
        assert json.loads(document.stdout)["requests"] == 2


atoms = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=3)),
    st.sampled_from(["text", "image_url", "json_schema", "audio"]),
)
PARTS = ["role", "content", "type", "text", "refusal", "image_url", "detail", "audio", "tool_calls"]
FIELDS = [
    *("messages", "prompt", "tools", "functions", "response_format", "max_tokens", "max_completion_tokens"),
    *("n", "best_of", "logprobs", "top_logprobs", "modalities"),
]
things = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(PARTS), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.sampled_from(FIELDS), things), st.sampled_from(ENDPOINTS))
def test_any_body_is_estimated_or_a_fault(fields: dict[str, Any], endpoint: str) -> None:
    body = {"messages": [3], "prompt": "p", **fields, "model": "m"}
    text = json.dumps({"custom_id": "1", "method": "POST", "url": endpoint, "body": body})
    found = estimate([text.encode()], endpoint, catalogue(SMALL, BIG), max_jobs=1)
    assert document("f", found)
    assert lines("f", found)
    assert len(found.faults) + found.whole.requests == 1


def told(*providers: dict[str, Any]) -> Answer:
    return Answer(body=json.dumps({"object": "list", "data": providers}).encode())


def answers(model: str, ratio: float, output_tokens: float, n: int = 300) -> dict[str, Any]:
    return {"model": model, "answers": n, "ratio": ratio, "output_tokens": output_tokens}


def test_what_a_server_has_learned_is_gone_by_and_said(edge: Edge) -> None:
    edge.providers({**OPENAI, "cost_per_1k_tokens": 1}, {**LOCAL, "cost_per_1k_tokens": 1})
    plain = json.loads(edge("--json").stdout)
    with contract_server() as server:
        edge.env["LLM_EDGE_URL"] = server.url
        mini, every = answers("mini", 1.5, 40.0), answers("*", 0.5, 20.0)
        server.odd["GET /v1/providers"] = [
            told({"id": "openai", "tokens": [mini]}, {"id": "local", "tokens": [every]})
        ] * 2
        shown = edge().stdout.splitlines()
        found = json.loads(edge("--json").stdout)
    assert shown[1].endswith(" in and 30,000 out, at most 100,000 out")
    assert shown[2] == f"  learned  mini: input x 1.00, 30 tokens an answer, from 600 answers at {server.url}"
    openai, local = found["providers"]
    assert openai["input_tokens"] == pytest.approx(
        1.5 * plain["input_tokens"], abs=500
    )  # half a token a call
    assert local["input_tokens"] == pytest.approx(0.5 * plain["input_tokens"], abs=500)
    assert (openai["output_tokens"], local["output_tokens"]) == (40_000, 20_000)
    assert Decimal(openai["cost_usd"]) == (openai["input_tokens"] + 40_000) / Decimal(1000)
    assert found["learned"]["models"] == {"mini": {"answers": 600, "ratio": 1.0, "output_tokens": 30.0}}
    assert (found["guessed_requests"], plain["guessed_requests"]) == (0, 1000)


def test_what_is_learned_of_one_model_or_at_one_provider_only(edge: Edge) -> None:
    edge.lines(line(1, max_tokens=100), line(2, "other", max_tokens=100))
    with contract_server() as server:
        edge.env["LLM_EDGE_URL"] = server.url
        server.odd["GET /v1/providers"] = [told({"id": "openai", "tokens": [answers("mini", 1.0, 40.0)]})] * 2
        found = json.loads(edge("--json").stdout)
        assert "out (a guess for 1 request), at most" in edge().stdout
    openai, local = found["providers"]
    assert (openai["output_tokens"], local["output_tokens"]) == (40, 140)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (told(), "has had no answers to go by"),
        (
            told({"id": "openai", "tokens": [{"model": "mini", "answers": "many", "ratio": math.nan}, 7]}),
            "has had no answers to go by",
        ),
        (Answer(body=b'{"data": 3}'), "has had no answers to go by"),
        (Answer(body=b"<html>"), "does not say (200; it takes an administrator's key)"),
        (refusal(403, "No.", "admin_required"), "does not say (403; it takes an administrator's key)"),
        (refusal(503, "No.", "store_unavailable", retry_after="3"), "cannot serve now"),
        (Answer(hang_up=True), "cannot be reached"),
    ],
    ids=["none", "nonsense", "other JSON", "another program", "not an admin", "away", "hangs up"],
)
def test_a_server_that_does_not_tell_hinders_nothing(edge: Edge, answer: Answer, words: str) -> None:
    with contract_server() as server:
        edge.env["LLM_EDGE_URL"] = server.url
        server.odd["GET /v1/providers"] = [answer]
        result = edge()
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"  learned  nothing yet: {server.url} {words}" in result.stdout


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", 3, "has no lines"),
        ("no json", 3, "the first line is no request"),
        (line(1).replace(URL, "/v1/embeddings"), 3, "'/v1/embeddings' is none of"),
    ],
)
def test_a_file_that_is_no_batch(edge: Edge, text: str, code: int, words: str) -> None:
    edge.input.write_text(text)
    result = edge()
    assert result.exit_code == code
    assert words in result.stderr


def test_limits_of_the_file(edge: Edge) -> None:
    edge.env["LLM_EDGE_MAX_BATCH_JOBS"] = "10"
    assert "line 11: The file has more than 10 lines" in edge().stdout
    edge.env["LLM_EDGE_MAX_FILE_BYTES"] = "1000"
    result = edge()
    assert result.exit_code == 3
    assert "1000 bytes is the most" in result.stderr.replace(",", "")


def test_without_a_providers_file_nothing_is_known(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    edge.providers({**LOCAL, "limits": {"rpm": 0}})
    assert "providers.0.limits.rpm" in edge().stderr
    edge.env["LLM_EDGE_CONFIG"] = None
    monkeypatch.chdir(edge.input.parent)
    edge.config.unlink()
    result = edge()
    assert result.exit_code == 1
    assert "no providers file" in result.stderr
    assert json.loads(edge("--json").stdout)["error"]["code"] == "invalid_configuration"


def catalogue(*providers: dict[str, Any]) -> Catalogue:
    return Catalogue.model_validate({"providers": providers})


def test_a_large_file_is_never_held() -> None:
    def pieces() -> Iterator[bytes]:
        for n in range(400):
            yield (line(n) + " " * 100_000 + "\n").encode()

    tracemalloc.start()
    found = estimate(pieces(), URL, catalogue(LOCAL), max_jobs=50_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.whole.requests == 400
    assert peak < 3_000_000


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 300_000), st.integers(0, 5000)), min_size=1
    )
)
def test_cost_is_the_sum_of_the_calls_each_in_its_own_tier(calls: list[tuple[str, int, int]]) -> None:
    names = {"a": "gpt-5.4", "b": "gpt-4o-mini", "c": "gpt-4o"}
    known = catalogue({**OPENAI, "models": names})
    found = Estimate(known)
    for model, asked, answered in calls:
        found.add(model, Measured(asked, 1, answered), Wanted())
    share = found.shares[0]
    assert share.most_cost == sum(_cost(known, model, asked, answered) for model, asked, answered in calls)
    usual = [(model, asked, min(answered, DEFAULT_ANSWER_TOKENS)) for model, asked, answered in calls]
    assert share.cost == sum(_cost(known, *call) for call in usual)


def _cost(known: Catalogue, model: str, asked: int, answered: int) -> Decimal:
    tariff = tariff_of(known.providers[0], model)
    assert tariff is not None
    return tariff.cost(Usage(input_tokens=asked, output_tokens=answered))


def test_what_only_a_slow_one_can_serve_takes_as_long_as_it_takes_it() -> None:
    common = {"endpoint": "http://h/v1"}
    known = catalogue(
        {"id": "slow", **common, "models": {"a": "a", "b": "b"}, "limits": {"rpm": 1}},
        {"id": "quick", **common, "models": {"b": "b"}, "limits": {"rpm": 1000}},
    )
    found = Estimate(known)
    for model in ("a", "a", "b", "b"):
        found.add(model, Measured(10), Wanted())
    assert found.time_s == 120
    assert [share.time_s for share in found.shares] == [240, pytest.approx(0.12)]


def test_a_models_own_limits_count_as_well() -> None:
    def estimated(**limits: Any) -> Estimate:
        models = {"a": "a", "quick": "b", "b": "b"}
        found = Estimate(
            catalogue({"id": "x", "endpoint": "http://h/v1", "models": models, "limits": limits})
        )
        for model in ("a", "quick", "b"):
            found.add(model, Measured(10), Wanted())
        return found

    assert estimated(rpm=60, models={"b": {"rpm": 1}}).time_s == 120  # both names for it
    assert estimated(rpm=60, models={"b": {"rpm": 600}}).time_s == 3
    assert estimated(models={"a": {"rpm": 1}, "b": {"rpm": 1}}).time_s == 120
    unknown = estimated(models={"b": {"rpm": 1}, "a": {"concurrency": 1}})
    assert (unknown.time_s, unknown.without_limits) == (None, ["x"])


@given(st.integers(1, 10**5), st.integers(0, 10**9), st.integers(1, 10**5), st.integers(1, 10**7))
def test_twins_halve_the_time(requests: int, tokens: int, rpm: int, tpm: int) -> None:
    load = Load(requests, tokens)
    limits = Limits(rpm=rpm, tpm=tpm)
    alone = time_s(limits, load)
    assert alone == max(requests / rpm, tokens / tpm) * 60
    assert time_s(Limits(concurrency=5), load) is None
    one = {"endpoint": "http://h/v1", "limits": {"rpm": rpm, "tpm": tpm}}
    found = Estimate(catalogue({"id": "a", **one}, {"id": "b", **one}))
    found.add("m", Measured(tokens // requests, 1, 1), Wanted())
    single = found.shares[0].time_s
    assert single is not None
    assert found.time_s == pytest.approx(single / 2)
