"""What `llm-edge providers` shows of a provider, from whatever a server says."""

import io
import itertools
from typing import Any

import pytest
from rich.console import Console

from api.cli.limit_lines import limit_lines
from api.cli.providers import config_lines, row, table, view, why
from api.provider_limits import in_use
from api.provider_schema import SETTLED_S, ConfigObject, ProviderObject, drain_of
from shared import condition
from shared.breaker import Circuit, State
from shared.catalogue import Breaker, Catalogue, Ceilings, Limits, Provider
from shared.clock import ManualClock
from shared.condition import Condition, LastError, bucket_of
from shared.gate import Ask, Candidate, Flight, Report, Seen, candidate_of
from shared.jobs import ApiRecord, FileState, WorkerRecord
from shared.memory_gate import MemoryGate
from shared.tokens import Lesson
from workers.usage import limits_of

_serials = itertools.count(1)

PROVIDER = Provider(id="sim", endpoint="http://127.0.0.1:1")
NOW = 1000.0


def worker(calls: int, heard_at: float = NOW, **file: Any) -> WorkerRecord:
    return WorkerRecord(
        id="w",
        pool="gevent",
        concurrency=1,
        capacity=1,
        version="0",
        started_at=0.0,
        in_flight={"sim": calls},
        heard_at=heard_at,
        providers_file=FileState(**file),
    )


WORKERS = [worker(1), worker(2)]
ERROR = LastError(code="invalid_api_key", message="no", at=900.0)


def shown(c: Condition, **more: Any) -> dict[str, Any]:
    seen = Seen(c, more.pop("answered", 0), more.pop("failed", 0), more.pop("buckets", {}))
    return ProviderObject.of(PROVIDER, seen, WORKERS, NOW).model_dump(mode="json")


OPEN = Circuit(state=State.OPEN, failures=5, until=1012.0, reason="provider_failed", generation=1)
DISABLED = Condition(disabled=True)
DRAINING = Condition(disabled=True, drain_since=900.0)
REFUSED = condition.refused(Condition(), "key:k", ERROR, 300.0)
NO_MODEL = condition.refused(Condition(), condition.model_scope("m", "o"), ERROR, 300.0)


def no_model(c: Condition, endpoint: str, key: str = "k", at: float = 900.0) -> Condition:
    """As a worker's candidate names it."""
    settings = Breaker()
    named = Provider(id="sim", endpoint="http://127.0.0.1:1", models={"a@b/c": "x"})
    offer = candidate_of(named, "a@b/c", endpoint, key, settings).offer
    error = LastError(code="model_not_found", message="no", at=at)
    return condition.refused(c, condition.model_scope("a@b/c", offer), error, 300.0)


COOLING = condition.cooled(Condition(), "sim", now=NOW, retry_after_s=7.0)
FAILING = condition.failed(Condition(), ERROR)


@pytest.mark.parametrize(
    ("found", "state", "reason"),
    [
        (Condition(), "serving", "serving"),
        (Condition(breakers={"sim": OPEN}), "open", "provider_failed, tried again in 12 s"),
        (DISABLED, "disabled", ""),
        (DRAINING, "draining", "3 calls under way there"),
        (REFUSED, "out of service", "key refused (invalid_api_key), tried again in 200 s"),
        (NO_MODEL, "serving", "model m refused (invalid_api_key), tried again in 200 s"),
        (COOLING, "closed", "cools down for 7 s"),
        (FAILING, "serving", "1 failures in a row: invalid_api_key"),
    ],
)
def test_state_and_reason(found: Condition, state: str, reason: str) -> None:
    raw = shown(found)
    assert (row(raw, NOW)[1], why(raw, NOW)) == (state, reason)


def test_a_model_that_is_refused_at_two_endpoints_is_told_once_for_each() -> None:
    c = no_model(no_model(Condition(), "/v1/chat/completions"), "/v1/completions")
    c = no_model(c, "/v1/completions", key="another", at=950.0)
    c = condition.refused(condition.refused(c, "key:one", ERROR, 300.0), "key:two", ERROR, 300.0)
    raw = shown(c)
    assert [
        (out["reason"], out["model"], out["endpoint"], out["since"]) for out in raw["out_of_service"]
    ] == [
        ("key_refused", None, None, 900),
        ("model_refused", "a@b/c", "/v1/chat/completions", 900),
        ("model_refused", "a@b/c", "/v1/completions", 950),
    ]
    assert why(raw, NOW) == "key refused (invalid_api_key), tried again in 200 s; and 2 more"
    del raw["out_of_service"][0]
    told = "model a@b/c refused at /v1/chat/completions (model_not_found), tried again in 200 s; and 1 more"
    assert why(raw, NOW) == told


def test_a_long_reason_takes_no_room_from_the_figures() -> None:
    c = condition.answered(no_model(Condition(), "/v1/chat/completions"), duration_s=0.5, at=NOW)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table({"data": [shown(c)]}, NOW))
    first, second = console.export_text().splitlines()[:2]
    assert first.split() == [
        "provider",
        "state",
        "ok",
        "avg",
        "p50",
        "p95",
        "p99",
        "calls",
        "failed",
        "now",
        "why",
    ]
    assert second.split()[:7] == ["sim", "serving", "100.0", "%", "0.50", "s", "-"]


def in_use_of(gate: MemoryGate, provider: Provider, **sections: Any) -> dict[str, Any]:
    catalogue = Catalogue(providers=(provider,), **sections)
    now, (seen,) = gate.look(["sim"])
    (use,) = in_use(gate, catalogue, [provider], [seen.condition])
    return ProviderObject.of(provider, seen, [], now, use=use).model_dump(mode="json")


def exchange(gate: MemoryGate, *asks: Ask, reports: tuple[Report, ...] = (), **held: int) -> None:
    serial = next(_serials)
    flight = Flight({name.replace("__", ":"): n for name, n in held.items()}, adaptive=True)
    gate.exchange(asks, reports, settings=Breaker(), sender="w", serial=serial, spread=0, flight=flight)


def test_limits_are_told_with_what_is_in_use() -> None:
    limits = {"rpm": 600, "tpm": 90_000, "concurrency": 20}
    provider = Provider(id="sim", endpoint="http://127.0.0.1:1", limits=Limits(**limits))
    gate = MemoryGate(ManualClock(NOW))
    assert [(x["kind"], x["in_use"], x["room"]) for x in in_use_of(gate, provider)["limits"]] == [
        ("rpm", 0, 10),
        ("tpm", 0, 1500),
        ("concurrency", 0, 20),
    ]
    candidate = Candidate("sim", "sim", "k", "", "", limits_of(provider, "m", 2100))
    exchange(gate, Ask("1", (candidate,)), reports=(Report("0", candidate, 0, "answered"),), p__sim=6)
    raw = in_use_of(gate, provider)
    assert [(x["kind"], x["limit"], x["in_use"], x["next_in_s"]) for x in raw["limits"]] == [
        ("rpm", 600, 1, 0),
        ("tpm", 90_000, 2100, pytest.approx(0.4, abs=0.01)),
        ("concurrency", 20, 7, None),
    ]
    (line,) = limit_lines({"data": [raw]})
    assert line.split("; ") == [
        "sim: rpm 600, 1 call in the last minute, bucket 1 of 10 given out",
        "tpm 90,000, bucket 2,100 of 1,500 given out, next in 0.40 s",
        "7 of 20 calls in flight",
    ]


def test_a_models_own_limits_are_told_with_its_name() -> None:
    own = {"small": Ceilings(rpm=60, concurrency=2)}
    provider = Provider(id="sim", endpoint="http://127.0.0.1:1", limits=Limits(rpm=600, models=own))
    gate = MemoryGate(ManualClock(NOW))
    candidate = Candidate("sim", "sim", "k", "small", "", limits_of(provider, "small", 0))
    exchange(gate, Ask("1", (candidate,)), Ask("2", (candidate,)))
    raw = in_use_of(gate, provider)
    assert [(x["model"], x["kind"], x["in_use"]) for x in raw["limits"]] == [
        (None, "rpm", 1),
        ("small", "rpm", 1),
        ("small", "concurrency", 1),
    ]
    (line,) = limit_lines({"data": [raw]})
    assert line.split("; ")[1:] == [
        "rpm 60 for small, bucket 1 of 1 given out, next in 1.00 s",
        "1 of 2 calls in flight for small",
    ]


def test_a_window_is_told_while_the_file_lets_it_count() -> None:
    plain, clock = Candidate("sim", "sim", "k", ""), ManualClock(NOW)
    gate, limited = MemoryGate(clock), Report("x", Candidate("sim", "sim", "k", ""), 0, "limited")
    exchange(gate, reports=(Report("x", plain, 0, "answered", duration_s=1.0),), w__sim=10)
    exchange(gate, reports=(limited,), w__sim=9)
    raw = in_use_of(gate, PROVIDER)
    assert raw["windows"] == [{"target": "sim", "size": None, "in_flight": 9, "changed_at": int(NOW)}]
    assert limit_lines({"data": [raw]}) == ["sim: looks how many calls it bears, 9 in flight"]
    clock.advance(1.1)
    exchange(gate, reports=(limited,), w__sim=9)
    raw = in_use_of(gate, PROVIDER)
    assert [(w["size"], w["in_flight"]) for w in raw["windows"]] == [(7.0, 9)]
    assert limit_lines({"data": [raw]}) == ["sim: bears 7 calls at a time by trial, 9 in flight"]
    assert in_use_of(gate, PROVIDER, adaptive_concurrency=False)["windows"] == []
    assert in_use_of(gate, PROVIDER, breaker=Breaker(per_model=True))["windows"] == []
    own = Provider(id="sim", endpoint="http://127.0.0.1:1", limits=Limits(concurrency=3))
    assert in_use_of(gate, own)["windows"] == []


def test_limits_that_a_server_tells_otherwise_are_borne() -> None:
    odd = {"id": "a", "limits": [{}, {"kind": "rpm"}], "windows": [{}, {"target": "a|m", "size": 3}]}
    assert len(limit_lines({"data": [odd, {}]})) == 1
    assert "for m" in limit_lines({"data": [odd]})[0]


def test_health_stands_in_columns() -> None:
    c = condition.answered(Condition(), duration_s=0.5, at=NOW)
    raw = shown(c, answered=3, failed=1, buckets={bucket_of(0.5): 3})
    assert row(raw, NOW)[2:10] == ["100.0 %", "0.50 s", *["0.50 s"] * 3, "1", "0", "3"]
    assert raw["health"]["availability"] == 0.75


def test_a_server_that_says_less_is_borne() -> None:
    assert table({"data": [{"id": "a"}, {}]}, NOW).row_count == 2
    assert table({}, NOW).row_count == 0


def test_after_another_key_has_served_a_refused_one_is_told_and_no_more() -> None:
    served = condition.answered(REFUSED, duration_s=0.1, at=950.0)
    raw = shown(served)
    assert raw["serving"]
    assert raw["out_of_service"][0]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ([], "drained"),
        ([worker(0)], "drained"),
        ([worker(0), worker(1)], "draining"),
        ([worker(0), worker(0, heard_at=899.0)], "draining"),
        ([worker(0, heard_at=900.0 + SETTLED_S / 2)], "draining"),
    ],
)
def test_drained_is_what_every_worker_has_since_said_it_does_not_call(
    workers: list[WorkerRecord], said: str
) -> None:
    assert drain_of("sim", DRAINING, workers) == said
    assert drain_of("sim", DISABLED, workers) is None


def config(*states: FileState) -> list[dict[str, Any]]:
    records = [ApiRecord(id=f"host-{n}", providers_file=state) for n, state in enumerate(states)]
    return [ConfigObject.of(record, "api").model_dump(mode="json") for record in records]


A = FileState(version="a" * 12, loaded_at=940.0)
B = FileState(version="b" * 12, loaded_at=990.0)


def test_where_all_have_the_same_file_one_line_says_so() -> None:
    assert config_lines(config(A, A), NOW) == [
        "providers file aaaaaaaaaaaa in all 2 processes, loaded 1 min 0 s ago"
    ]
    assert config_lines(config(A), NOW) == ["providers file aaaaaaaaaaaa in 1 process, loaded 1 min 0 s ago"]
    assert config_lines([], NOW) == []


def test_where_they_differ_or_one_refuses_it_each_has_a_line() -> None:
    assert config_lines(config(A, B), NOW) == [
        "api host-0: providers file aaaaaaaaaaaa, loaded 1 min 0 s ago",
        "api host-1: providers file bbbbbbbbbbbb, loaded 10 s ago",
    ]
    (line,) = config_lines(config(FileState(version=A.version, loaded_at=940.0, fault="no\nYAML")), NOW)
    assert line.endswith("loaded 1 min 0 s ago; what lies there now is refused: no YAML")


def test_a_worker_of_an_earlier_version_is_borne() -> None:
    old = ConfigObject.of(worker(0), "worker")
    assert (old.part, old.version, old.loaded_at, old.fault) == ("worker", None, None, None)
    assert (
        config_lines([old.model_dump(mode="json"), *config(A)], NOW)[0] == "worker w: providers file unknown"
    )
    assert view({}, NOW).renderables


def test_what_is_learned_of_tokens_is_shown_by_model_of_the_present_file() -> None:
    c = condition.taught(Condition(), "gone", Lesson(10, 1, 10, 10))
    for _ in range(3):
        c = condition.taught(condition.taught(c, "m", Lesson(100, 2, 130, 80)), "", Lesson(100, 1, 90, 7))
    known = Provider(id="sim", endpoint="http://127.0.0.1:1", models={"m": "m", "*": "*"})
    found = ProviderObject.of(known, Seen(c, 0, 0, {}), [], NOW).model_dump()["tokens"]
    assert found == [
        {"model": "*", "answers": 3, "ratio": 0.9, "output_tokens": 7.0},
        {"model": "m", "answers": 3, "ratio": 1.3, "output_tokens": 40.0},
    ]
    assert shown(Condition())["tokens"] == []


@pytest.mark.parametrize(
    ("per_model", "targets"), [(False, ["sim"]), (True, ["sim|*", "sim|m"])], ids=["whole", "per model"]
)
def test_breakers_of_an_earlier_providers_file_are_not_shown(per_model: bool, targets: list[str]) -> None:
    known = Provider(id="sim", endpoint="http://127.0.0.1:1", models={"m": "m"})
    breakers = {
        "sim": Circuit(failures=1),
        "sim|*": Circuit(failures=1),
        "sim|m": Circuit(failures=1),
        "sim|gone": OPEN,
    }
    seen = Seen(Condition(breakers=breakers), 0, 0, {})
    found = ProviderObject.of(known, seen, [], NOW, settings=Breaker(per_model=per_model))
    assert [breaker.target for breaker in found.breakers] == targets
    assert found.serving
