import re
from collections import Counter
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.simulator.behaviour import LONGEST_S, Behaviour, Rule
from workers.simulator.decide import Decision, Facts, Kind, decide, draw, slowed
from workers.simulator.refusals import refuse

RATES = ("error_rate", "drop_rate", "hang_rate", "malformed_rate")
MANY = 4000

rates = st.floats(0, 0.25)
behaviours = st.builds(
    Behaviour,
    error_rate=rates,
    drop_rate=rates,
    hang_rate=rates,
    malformed_rate=rates,
    error_statuses=st.lists(st.integers(400, 599), min_size=1, max_size=4).map(tuple),
    completion_tokens=st.integers(1, 100_000),
    completion_tokens_spread=st.floats(0, 100_000),
    time_per_output_token_s=st.floats(0, 0.1),
    outage=st.sampled_from(["none", "none", "none", "503", "drop", "hang", "401", "429_quota"]),
)
bodies = st.binary(max_size=20).map(lambda body: sha256(body).digest())
facts = st.builds(
    Facts,
    persona=st.sampled_from(["default", "fast"]),
    body_sha=bodies,
    nth=st.integers(1, 10),
    prompt=st.text(max_size=20),
    model=st.just("m"),
    max_tokens=st.none() | st.integers(1, 200),
)


def fact(body: str = "body", nth: int = 1, **more: Any) -> Facts:
    return Facts("default", sha256(body.encode()).digest(), nth, **more)


def status_of(decision: Decision) -> int | None:
    return None if decision.refusal is None else decision.refusal.status


@given(behaviours, st.integers(), facts)
def test_a_decision_depends_on_its_arguments_alone(behaviour: Behaviour, seed: int, call: Facts) -> None:
    copy = Behaviour.model_validate(behaviour.model_dump())
    assert decide(behaviour, seed, call) == decide(copy, seed, call)


@given(behaviours, st.integers(), facts)
def test_every_decision_is_sound(behaviour: Behaviour, seed: int, call: Facts) -> None:
    decision = decide(behaviour, seed, call)
    assert decision.latency_s >= 0
    assert (decision.kind is Kind.REFUSE) == (decision.refusal is not None)
    if decision.kind in {Kind.ANSWER, Kind.MALFORMED}:
        assert decision.completion_tokens >= 1
        assert call.max_tokens is None or decision.completion_tokens <= call.max_tokens
        assert not decision.cut or decision.completion_tokens == call.max_tokens
    if behaviour.outage == "none" and decision.refusal is not None:
        assert decision.refusal.status in behaviour.error_statuses


@given(st.floats(1e-6, LONGEST_S), st.floats(0, LONGEST_S), st.integers(), facts)
def test_latencies_stay_in_bounds(median_s: float, more_s: float, seed: int, call: Facts) -> None:
    p95_s = min(LONGEST_S, median_s + more_s)
    decision = decide(Behaviour(latency_s=median_s, latency_p95_s=p95_s), seed, call)
    assert 0 <= decision.latency_s <= LONGEST_S


@given(st.integers(), st.integers(1, 50), st.binary(max_size=20))
def test_draws_lie_strictly_between_0_and_1(seed: int, nth: int, body: bytes) -> None:
    drawn = draw(seed, Facts("default", sha256(body).digest(), nth))
    assert all(0 < u < 1 for u in drawn[:4])


@pytest.mark.parametrize("rate", RATES)
def test_a_rate_is_kept(rate: str) -> None:
    behaviour = Behaviour.model_validate({rate: 0.1, **({"drop_rate": 0.2} if rate != "drop_rate" else {})})
    kinds = Counter(decide(behaviour, 1, fact(f"{n}")).kind for n in range(MANY))
    kind = {"error_rate": Kind.REFUSE, "drop_rate": Kind.DROP, "hang_rate": Kind.HANG}.get(
        rate, Kind.MALFORMED
    )
    assert 0.08 * MANY < kinds[kind] < 0.12 * MANY


def test_rates_that_make_up_1_leave_no_answer() -> None:
    behaviour = Behaviour(error_rate=0.4, drop_rate=0.3, hang_rate=0.2, malformed_rate=0.1)
    kinds = Counter(decide(behaviour, 0, fact(f"{n}")).kind for n in range(MANY))
    assert kinds[Kind.ANSWER] == 0


def test_error_statuses_are_drawn_evenly() -> None:
    behaviour = Behaviour(error_rate=1, error_statuses=(500, 503, 529, 429))
    statuses = Counter(status_of(decide(behaviour, 0, fact(f"{n}"))) for n in range(MANY))
    assert set(statuses) == {500, 503, 529, 429}
    assert min(statuses.values()) > 0.2 * MANY


def test_repeats_seeds_personas_and_bodies_draw_anew() -> None:
    base = Facts("a", sha256(b"x").digest(), 1)
    others = [
        draw(0, Facts("a", base.body_sha, 2)),
        draw(1, base),
        draw(0, Facts("b", base.body_sha, 1)),
        draw(0, Facts("a", sha256(b"y").digest(), 1)),
    ]
    assert len({d.key for d in [draw(0, base), *others]}) == 5


def test_median_and_95th_percentile_are_met() -> None:
    behaviour = Behaviour(latency_s=0.2, latency_p95_s=0.5, completion_tokens_spread=0)
    found = sorted(decide(behaviour, 3, fact(f"{n}")).latency_s for n in range(MANY))
    assert 0.19 < found[MANY // 2] < 0.21
    assert 0.46 < found[int(0.95 * MANY)] < 0.54


def test_without_a_percentile_every_call_takes_the_same() -> None:
    behaviour = Behaviour(latency_s=0.2, time_per_output_token_s=0.01, completion_tokens_spread=0)
    assert {decide(behaviour, 0, fact(f"{n}")).latency_s for n in range(20)} == {0.2 + 40 * 0.01}


def test_lengths_have_the_mean_and_spread_asked_for() -> None:
    behaviour = Behaviour(completion_tokens=200, completion_tokens_spread=30)
    found = [decide(behaviour, 0, fact(f"{n}")).completion_tokens for n in range(MANY)]
    mean = sum(found) / MANY
    assert 198 < mean < 202
    assert 28 < (sum((n - mean) ** 2 for n in found) / MANY) ** 0.5 < 32


@pytest.mark.parametrize(
    ("outage", "kind", "status", "code"),
    [
        ("503", Kind.REFUSE, 503, None),
        ("401", Kind.REFUSE, 401, "invalid_api_key"),
        ("429_quota", Kind.REFUSE, 429, "insufficient_quota"),
        ("drop", Kind.DROP, None, None),
        ("hang", Kind.HANG, None, None),
    ],
)
def test_an_outage_goes_before_everything(
    outage: Any, kind: Kind, status: int | None, code: str | None
) -> None:
    behaviour = Behaviour(
        outage=outage, latency_s=5, models=("known",), rules=(Rule(match=re.compile(""), status=418),)
    )
    decision = decide(behaviour, 0, fact(model="unknown", fault=refuse(400, "no")))
    assert (decision.kind, status_of(decision), decision.latency_s) == (kind, status, 0)
    if code is not None:
        assert decision.refusal is not None
        assert f'"code":"{code}"'.encode() in decision.refusal.body


def test_then_come_faults_unknown_models_rules_and_rates() -> None:
    behaviour = Behaviour(
        models=("known",), rules=(Rule(match=re.compile("^bad"), status=418),), error_rate=1
    )
    refusal = refuse(400, "no")
    assert decide(behaviour, 0, fact(fault=refusal)).refusal is refusal
    assert status_of(decide(behaviour, 0, fact(model="other", prompt="bad"))) == 404
    assert status_of(decide(behaviour, 0, fact(model="known", prompt="bad"))) == 418
    assert status_of(decide(behaviour, 0, fact(model="known", prompt="not bad"))) in {500, 503}


def test_the_first_matching_rule_counts_and_only_as_often_as_it_may() -> None:
    rules: list[dict[str, Any]] = [
        {"match": "^twice", "status": 500, "times": 2, "retry_after_s": 0.5},
        {"match": "^twice", "status": 503, "times": 3},
        {"match": "slow", "latency_s": 30},
        {"match": "fine", "status": 200},
        {"match": "drop", "drop": True},
        {"match": "hang", "hang": True},
        {"match": "garbled", "malformed": True},
    ]
    behaviour = Behaviour.model_validate({"rules": rules, "error_rate": 1, "error_statuses": [529]})
    statuses = [status_of(decide(behaviour, 0, fact(prompt="twice", nth=n))) for n in (1, 2, 3, 4)]
    assert statuses == [500, 500, 503, 529]
    first = decide(behaviour, 0, fact(prompt="twice")).refusal
    assert first is not None
    assert dict(first.headers) == {b"retry-after": b"1", b"retry-after-ms": b"500"}
    slow = decide(behaviour, 0, fact(prompt="a slow one"))
    assert (slow.kind, slow.latency_s, slow.limited) == (Kind.ANSWER, 30, True)
    kinds = [decide(behaviour, 0, fact(prompt=prompt)).kind for prompt in ("fine", "drop", "hang", "garbled")]
    assert kinds == [Kind.ANSWER, Kind.DROP, Kind.HANG, Kind.MALFORMED]


def test_drawn_errors_that_ask_for_patience_say_for_how_long() -> None:
    behaviour = Behaviour(error_rate=1, error_statuses=(429,), retry_after_s=2.5)
    refusal = decide(behaviour, 0, fact()).refusal
    assert refusal is not None
    assert dict(refusal.headers) == {b"retry-after": b"3", b"retry-after-ms": b"2500"}
    plain = decide(Behaviour(error_rate=1, error_statuses=(500,), retry_after_s=2.5), 0, fact()).refusal
    assert plain is not None
    assert plain.headers == ()


@pytest.mark.parametrize(("in_flight", "times"), [(1, 1), (10, 1), (11, 1.1), (30, 3)])
def test_above_its_capacity_a_call_takes_longer_in_proportion(in_flight: int, times: float) -> None:
    decision = Decision(Kind.ANSWER, latency_s=0.5)
    assert slowed(decision, 10, in_flight).latency_s == pytest.approx(0.5 * times)
    assert slowed(decision, None, in_flight) is decision
