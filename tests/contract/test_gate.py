"""What the gate promises, on the memory twin and on Valkey."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis
from support.gates import Timed, memory_gate, valkey_gate

from shared.breaker import Circuit, State
from shared.catalogue import Breaker
from shared.condition import bucket_of, quantile
from shared.gate import (
    Action,
    Ask,
    Candidate,
    Change,
    Exchanged,
    Report,
    Result,
    Seen,
    Verdict,
)
from shared.reasons import Reason
from shared.tokens import MOST_MODELS, OTHERS, WINDOW, Learned, Lesson

_serials = itertools.count(1)
A = Candidate("a", "a", "k1", "m")
B = Candidate("b", "b", "k1", "m")


class Fleet:
    """A gate, and what a test does with it."""

    def __init__(self, timed: Timed) -> None:
        self.timed = timed
        self.gate = timed.gate
        self.settings = Breaker()
        self.changes: list[Change] = []

    def exchange(
        self, asks: tuple[Ask, ...] = (), reports: tuple[Report, ...] = (), spread: float = 0.0
    ) -> Exchanged:
        told = self.gate.exchange(
            asks, reports, settings=self.settings, sender="s", serial=next(_serials), spread=spread
        )
        self.changes += told.changes
        return told

    def ask(self, *candidates: Candidate, permit: str = "") -> Verdict:
        return self.exchange((Ask(permit or f"p{next(_serials)}", candidates or (A,)),)).verdicts[0]

    def tell(
        self, result: Result, permit: str = "x", candidate: Candidate = A, **more: float | str | Lesson
    ) -> bool:
        known = self.seen(candidate.provider).condition.breakers.get(candidate.target)
        report = Report(permit, candidate, known.generation if known else 0, result, **more)  # type: ignore[arg-type]
        return self.exchange(reports=(report,)).charged[0]

    def fail(self, times: int = 1, candidate: Candidate = A) -> None:
        for _ in range(times):
            self.tell("failed", candidate=candidate, code="provider_failed", message="boom")

    def seen(self, provider: str = "a") -> Seen:
        return self.gate.look([provider])[1][0]

    def state(self, target: str = "a") -> State:
        return self.seen().condition.breakers.get(target, Circuit()).state

    def change(self, action: Action, provider: str = "a") -> list[Change]:
        return self.gate.change(provider, action, settings=self.settings)


@pytest.fixture(params=["memory", "valkey"])
def fleet(request: pytest.FixtureRequest) -> Fleet:
    if request.param == "memory":
        return Fleet(memory_gate())
    return Fleet(valkey_gate(request.getfixturevalue("valkey_url")))


def refused(verdict: Verdict) -> list[tuple[str, Reason]]:
    assert verdict.choice == -1
    return [(block.provider, block.reason) for block in verdict.blocks]


def test_five_failures_open_it_for_thirty_seconds_and_two_successes_close_it(fleet: Fleet) -> None:
    assert fleet.ask().choice == 0
    fleet.fail(4)
    assert fleet.ask().choice == 0
    fleet.fail()
    verdict = fleet.ask()
    assert refused(verdict) == [("a", Reason.BREAKER_OPEN)]
    assert verdict.blocks[0].until == pytest.approx(fleet.timed.now() + 30, abs=0.01)
    fleet.timed.pass_time(29.9)
    assert fleet.ask().choice == -1
    fleet.timed.pass_time(0.2)
    first = fleet.ask(permit="one")
    assert (first.choice, first.probe) == (0, True)
    fleet.tell("answered", permit="one")
    assert fleet.state() is State.HALF_OPEN
    fleet.ask(permit="two")
    fleet.tell("answered", permit="two")
    assert [(c.before, c.after) for c in fleet.changes] == [
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.CLOSED),
    ]


def test_a_success_in_between_starts_the_count_anew(fleet: Fleet) -> None:
    for _ in range(5):
        fleet.fail(4)
        fleet.tell("answered")
    assert fleet.state() is State.CLOSED


def test_half_open_lets_so_many_in_and_one_failure_opens_again(fleet: Fleet) -> None:
    fleet.fail(5)
    fleet.timed.pass_time(30.1)
    assert [fleet.ask(permit=p).choice for p in ("1", "2", "3")] == [0, 0, -1]
    assert fleet.tell("failed", permit="1", code="again") is False  # a probe is not charged
    assert fleet.state() is State.OPEN
    assert fleet.tell("answered", permit="2") is False
    assert fleet.state() is State.OPEN


def test_a_prober_that_dies_frees_its_permit(fleet: Fleet) -> None:
    fleet.fail(5)
    fleet.timed.pass_time(30.1)
    assert [fleet.ask(permit=p).choice for p in ("1", "2", "3")] == [0, 0, -1]
    fleet.timed.pass_time(30.1)
    assert [fleet.ask(permit=p).choice for p in ("4", "5", "6")] == [0, 0, -1]


def test_what_was_under_way_when_it_opened_is_not_charged_and_counts_no_more(fleet: Fleet) -> None:
    assert fleet.tell("failed") is True
    old = Report("old", A, 0, "failed")
    fleet.fail(4)
    assert fleet.exchange(reports=(old,)).charged == (False,)
    fleet.timed.pass_time(30.1)
    fleet.ask()
    assert fleet.exchange(reports=(old,)).charged == (False,)
    assert fleet.state() is State.HALF_OPEN


def test_what_says_nothing_changes_nothing_but_frees_its_permit(fleet: Fleet) -> None:
    fleet.fail(5)
    fleet.timed.pass_time(30.1)
    assert [fleet.ask(permit=p).choice for p in ("1", "2")] == [0, 0]
    fleet.tell("nothing", permit="1")
    assert fleet.state() is State.HALF_OPEN
    assert fleet.ask(permit="3").choice == 0
    assert fleet.seen().condition.calls == 5


def test_the_same_exchange_again_gives_the_same_answer(fleet: Fleet) -> None:
    report = Report("x", A, 0, "failed")
    for _ in range(9):
        fleet.gate.exchange([], [report], settings=fleet.settings, sender="twice", serial=7, spread=0.0)
    assert fleet.seen().condition.failures == 1


def test_a_share_of_failures_opens_it_too(fleet: Fleet) -> None:
    fleet.settings = Breaker(failure_threshold=1000, failure_rate=0.5, minimum_calls=10, window_s=60)
    for _ in range(4):
        fleet.tell("answered")
        fleet.fail()
    assert fleet.state() is State.CLOSED
    fleet.timed.pass_time(70)  # those are past
    for _ in range(5):
        fleet.tell("answered")
        fleet.fail()
    assert fleet.state() is State.OPEN


def test_breaks_grow_with_repeated_opening_and_jitter(fleet: Fleet) -> None:
    fleet.settings = Breaker(reset_multiplier=2, max_reset_timeout_s=100, jitter=0.5)
    fleet.fail(5)
    for expected in (30, 60, 100, 100):
        circuit = fleet.seen().condition.breakers["a"]
        assert circuit.until - fleet.timed.now() == pytest.approx(expected, abs=0.01)
        fleet.timed.pass_time(expected + 0.1)
        assert fleet.ask(permit="p").probe
        fleet.tell("failed", permit="p")
    report = Report("p", A, fleet.seen().condition.breakers["a"].generation + 1, "failed")
    fleet.timed.pass_time(100.1)
    fleet.ask(permit="p")
    fleet.exchange(reports=(report,), spread=0.5)
    assert fleet.seen().condition.breakers["a"].until - fleet.timed.now() == pytest.approx(125, abs=0.01)


def test_the_first_candidate_that_may_be_called_is_chosen(fleet: Fleet) -> None:
    assert fleet.ask(A, B).choice == 0
    fleet.fail(5)
    verdict = fleet.ask(A, B)
    assert (verdict.choice, [b.reason for b in verdict.blocks]) == (1, [Reason.BREAKER_OPEN])
    fleet.fail(5, candidate=B)
    assert refused(fleet.ask(A, B)) == [("a", Reason.BREAKER_OPEN), ("b", Reason.BREAKER_OPEN)]


def test_a_refused_key_keeps_everybody_with_that_key_out_and_nobody_else(fleet: Fleet) -> None:
    fleet.tell("key", code="invalid_api_key")
    other, named = Candidate("a", "a", "k2", "m"), Candidate("a", "a", "k1", "n")
    assert refused(fleet.ask(A)) == [("a", Reason.KEY_REFUSED)]
    assert refused(fleet.ask(named)) == [("a", Reason.KEY_REFUSED)]
    assert fleet.ask(other).choice == 0
    block = fleet.ask(A).blocks[0]
    assert block.detail == "invalid_api_key"
    assert block.until == pytest.approx(fleet.timed.now() + 300, abs=0.01)


def test_one_job_probes_what_is_out_of_service_and_a_success_brings_it_back(fleet: Fleet) -> None:
    fleet.tell("key", code="insufficient_quota")
    since = fleet.timed.now()
    fleet.timed.pass_time(300.1)
    verdict = fleet.ask()
    assert (verdict.choice, verdict.probe) == (0, True)
    assert refused(fleet.ask()) == [("a", Reason.KEY_REFUSED)]
    fleet.tell("key", code="insufficient_quota")
    refusal = fleet.seen().condition.refusals["key:k1"]
    assert refusal.since == pytest.approx(since, abs=0.01)
    fleet.timed.pass_time(300.1)
    assert fleet.ask().choice == 0
    fleet.tell("answered")
    assert fleet.seen().condition.refusals == {}
    assert fleet.ask().probe is False


def test_a_refused_model_keeps_only_that_model_out(fleet: Fleet) -> None:
    fleet.tell("model", code="model_not_found")
    assert refused(fleet.ask(A)) == [("a", Reason.MODEL_REFUSED)]
    assert fleet.ask(Candidate("a", "a", "k1", "other")).choice == 0


def test_a_change_of_what_is_offered_is_tried_at_once_and_the_old_is_forgotten_in_time(fleet: Fleet) -> None:
    fleet.tell("model", candidate=Candidate("a", "a", "k1", "m", "old"), code="model_not_found")
    mended = Candidate("a", "a", "k1", "m", "new")
    assert fleet.ask(mended).choice == 0
    fleet.tell("answered", candidate=mended)
    assert list(fleet.seen().condition.refusals) == ["model:m@old"]  # others may have it still
    fleet.timed.pass_time(601)  # nobody has tried it though he might
    fleet.tell("answered", candidate=mended)
    assert fleet.seen().condition.refusals == {}


def test_a_name_that_was_merely_passed_on_keeps_nobody_out(fleet: Fleet) -> None:
    passed = Candidate("a", "a", "k1", "")
    fleet.tell("model", candidate=passed, code="model_not_found")
    assert fleet.ask(passed).choice == 0
    assert fleet.seen().condition.failures == 0


def test_429_cools_down_and_opens_no_breaker(fleet: Fleet) -> None:
    for _ in range(20):
        fleet.tell("limited", retry_after_s=7.0)
    verdict = fleet.ask()
    assert refused(verdict) == [("a", Reason.RATE_LIMITED)]
    assert verdict.blocks[0].until == pytest.approx(fleet.timed.now() + 7, abs=0.01)
    assert fleet.state() is State.CLOSED
    fleet.timed.pass_time(7.1)
    assert fleet.ask().choice == 0


def test_429_without_a_time_waits_longer_each_time(fleet: Fleet) -> None:
    for expected in (0.5, 1.0, 2.0):
        for _ in range(10):  # of one haste
            fleet.tell("limited")
        until = fleet.seen().condition.cool_downs["a"].until
        assert until - fleet.timed.now() == pytest.approx(expected, abs=0.01)
        fleet.timed.pass_time(expected + 0.1)
    fleet.tell("answered")
    assert fleet.seen().condition.cool_downs == {}


def test_headers_that_leave_nothing_cool_down_and_count_as_no_429(fleet: Fleet) -> None:
    fleet.tell("answered", rest_s=4.0)
    fleet.tell("answered", rest_s=3.0)
    verdict = fleet.ask()
    assert refused(verdict) == [("a", Reason.RATE_LIMITED)]
    assert verdict.blocks[0].until == pytest.approx(fleet.timed.now() + 4, abs=0.01)
    fleet.timed.pass_time(4.1)
    assert fleet.ask().choice == 0
    fleet.tell("limited")
    until = fleet.seen().condition.cool_downs["a"].until
    assert until - fleet.timed.now() == pytest.approx(0.5, abs=0.01)
    fleet.timed.pass_time(0.6)
    fleet.tell("answered")
    assert fleet.seen().condition.cool_downs == {}
    fleet.tell("nothing", rest_s=2.0)  # the request itself was refused
    assert fleet.ask().choice == -1


def test_a_person_enables_disables_opens_and_closes(fleet: Fleet) -> None:
    fleet.tell("key")
    fleet.change("disable")
    assert refused(fleet.ask()) == [("a", Reason.DISABLED)]
    fleet.change("enable")
    assert fleet.ask().choice == 0
    fleet.change("open")
    assert refused(fleet.ask()) == [("a", Reason.BREAKER_OPEN)]
    assert [(c.before, c.after) for c in fleet.change("enable")] == [(State.OPEN, State.HALF_OPEN)]
    assert fleet.ask().probe
    fleet.change("close")
    assert fleet.ask().probe is False


def test_drain_disables_and_remembers_since_when(fleet: Fleet) -> None:
    fleet.change("drain")
    since = fleet.seen().condition.drain_since
    assert since == pytest.approx(fleet.timed.now(), abs=0.01)
    assert refused(fleet.ask()) == [("a", Reason.DISABLED)]
    fleet.timed.pass_time(5)
    fleet.change("drain")
    assert fleet.seen().condition.drain_since == pytest.approx(since, abs=0.01)
    fleet.change("disable")
    assert (fleet.seen().condition.disabled, fleet.seen().condition.drain_since) == (True, 0.0)
    fleet.change("drain")
    fleet.change("enable")
    assert (fleet.seen().condition.disabled, fleet.seen().condition.drain_since) == (False, 0.0)
    assert fleet.ask().choice == 0


def test_health_is_told(fleet: Fleet) -> None:
    for n in range(1, 101):
        fleet.tell("answered", duration_s=n / 100, bucket=bucket_of(n / 100))
    fleet.fail(3)
    seen = fleet.seen()
    c = seen.condition
    assert (seen.answered, seen.failed, c.calls, c.failures, c.consecutive_failures) == (100, 3, 103, 3, 3)
    assert c.success_rate == pytest.approx(0.9**3, abs=1e-6)
    assert c.last_error is not None
    assert (c.last_error.code, c.last_error.message) == ("provider_failed", "boom")
    for q in (0.5, 0.95, 0.99):
        assert quantile(seen.buckets, q) == pytest.approx(q, rel=0.05)
    assert 0.9 < c.latency_s < 1.0
    assert seen.last_minute == 103
    fleet.timed.pass_time(60)
    assert 0 < fleet.seen().last_minute <= 103
    fleet.timed.pass_time(60)
    assert fleet.seen().last_minute == 0
    fleet.timed.pass_time(280)
    assert fleet.seen().buckets == {}


def test_a_slow_answer_is_a_failure_to_the_breaker_and_an_answer_to_everybody_else(fleet: Fleet) -> None:
    for _ in range(5):
        fleet.tell("slow", duration_s=9.0, bucket=bucket_of(9.0), code="slow_call")
    seen = fleet.seen()
    assert fleet.state() is State.OPEN
    assert (seen.answered, seen.failed, seen.condition.success_rate) == (5, 0, 1.0)
    assert quantile(seen.buckets, 0.5) == pytest.approx(9.0, rel=0.05)


def test_a_call_that_began_before_the_refusal_does_not_end_it(fleet: Fleet) -> None:
    fleet.timed.pass_time(10)
    fleet.tell("key", code="insufficient_quota")
    fleet.timed.pass_time(2)
    fleet.tell("answered", duration_s=5.0)
    assert refused(fleet.ask()) == [("a", Reason.KEY_REFUSED)]
    fleet.tell("answered", duration_s=1.0)
    assert fleet.ask().choice == 0


@pytest.mark.parametrize("result", ["limited", "model"])
def test_any_answer_that_took_the_key_ends_its_refusal(fleet: Fleet, result: Result) -> None:
    fleet.tell("key")
    fleet.timed.pass_time(300.1)
    fleet.tell(result, duration_s=0.1, retry_after_s=1.0)
    assert not any(scope.startswith("key:") for scope in fleet.seen().condition.refusals)


def test_a_prober_of_what_is_out_of_service_that_dies_costs_its_lease_and_no_period(fleet: Fleet) -> None:
    fleet.tell("key")
    fleet.timed.pass_time(300.1)
    assert fleet.ask().probe
    assert fleet.ask().choice == -1
    fleet.timed.pass_time(30.1)
    assert fleet.ask().probe


def test_a_failure_with_a_retry_after_rests_its_provider_for_a_minute_at_most(fleet: Fleet) -> None:
    fleet.tell("failed", retry_after_s=7.0)
    until = fleet.ask().blocks[0].until
    assert until == pytest.approx(fleet.timed.now() + 7, abs=0.01)
    fleet.tell("failed", retry_after_s=86_400.0)
    assert fleet.ask().blocks[0].until == pytest.approx(fleet.timed.now() + 60, abs=0.01)
    fleet.timed.pass_time(60.1)
    assert fleet.ask().choice == 0


def test_the_pace_and_the_latest_are_told_with_the_exchange_that_changed_them(fleet: Fleet) -> None:
    told = fleet.exchange(reports=(Report("x", A, 0, "answered", duration_s=2.0, output_tokens=100),))
    ((name, c),) = told.conditions
    assert (name, c.latest_s, c.per_token_s) == ("a", 2.0, 0.02)
    told = fleet.exchange(reports=(Report("y", A, 0, "answered", duration_s=1.0),))
    ((_, c),) = told.conditions
    assert (c.latest_s, c.per_token_s) == (1.0, 0.02)
    assert fleet.gate.conditions(["a", "nobody"]) == {"a": fleet.seen().condition}
    assert fleet.exchange((Ask("z", (B,)),)).conditions == ()


def test_what_answers_teach_of_tokens_is_kept_by_model_and_told_with_the_exchange(fleet: Fleet) -> None:
    expected = Learned()
    for n in range(2 * WINDOW):
        lesson = Lesson(100 + n % 7, 1 + n % 3, 130 + n % 5, 40 + n)
        expected = expected.after(lesson)
        fleet.tell("slow" if n % 2 else "answered", lesson=lesson)
    found = fleet.seen().condition.tokens
    assert list(found) == ["m"]
    assert found["m"].calls == 2 * WINDOW
    for name in ("estimated", "input_tokens", "output_tokens"):
        assert getattr(found["m"], name) == pytest.approx(getattr(expected, name))
    told = fleet.exchange(reports=(Report("x", A, 0, "answered", lesson=Lesson(10, 1, 20, 5)),))
    assert told.conditions[0][1].tokens["m"].calls == 2 * WINDOW + 1
    before = fleet.seen().condition.tokens
    fleet.tell("answered")  # nobody has measured it
    fleet.tell("failed", lesson=Lesson(10, 1, 20, 5))
    fleet.tell("nothing", lesson=Lesson(10, 1, 20, 5))
    fleet.change("enable")
    assert fleet.seen().condition.tokens == before


def test_only_so_many_models_are_told_apart_and_names_passed_on_not_at_all(fleet: Fleet) -> None:
    lesson = Lesson(10, 1, 20, 5)

    def teach(*models: str) -> dict[str, Learned]:
        reports = [
            Report(f"p{m}", Candidate("a", "a", "k1", m), 0, "answered", lesson=lesson) for m in models
        ]
        return dict(fleet.exchange(reports=tuple(reports)).conditions)["a"].tokens

    assert teach("", "", "m0") == {OTHERS: Learned(2, 10, 20, 5), "m0": Learned(1, 10, 20, 5)}
    found = teach(*(f"m{n}" for n in range(3 * MOST_MODELS)))
    assert len(found) == MOST_MODELS
    assert found["m0"].calls == 2
    assert found[OTHERS].calls == 2 + 3 * MOST_MODELS - (MOST_MODELS - 1)


def test_a_record_from_before_tokens_were_learned_is_read_and_goes_on(valkey_url: str) -> None:
    timed = valkey_gate(valkey_url)
    old: dict[str, Any] = {
        "disabled": False,
        "calls": 3,
        "failures": 0,
        "consecutive_failures": 0,
        "success_rate": 1,
    }
    old |= {"latency_s": 1, "latest_s": 1, "answered_at": 5, "breakers": {}, "cool_downs": {}, "refusals": {}}
    with redis.Redis.from_url(valkey_url) as client:
        client.set(f"{timed.prefix}:pv:a", json.dumps(old))
    fleet = Fleet(timed)
    assert (fleet.seen().condition.calls, fleet.seen().condition.tokens) == (3, {})
    fleet.tell("answered", lesson=Lesson(10, 1, 20, 5))
    assert (fleet.seen().condition.calls, fleet.seen().condition.tokens) == (4, {"m": Learned(1, 10, 20, 5)})


def test_many_reports_of_one_exchange_are_all_counted(fleet: Fleet) -> None:
    mixed: list[tuple[Candidate, Result, int]] = [(A, "answered", 3), (A, "answered", 4), (B, "answered", 3)]
    mixed += [(A, "failed", 0), (A, "nothing", 0), (A, "answered", 3)]
    fleet.exchange(reports=tuple(Report(f"p{n}", c, 0, r, bucket=b) for n, (c, r, b) in enumerate(mixed)))
    a, b = fleet.seen("a"), fleet.seen("b")
    assert (a.answered, a.failed, a.buckets) == (3, 1, {3: 2, 4: 1})
    assert (b.answered, b.failed, b.buckets) == (1, 0, {3: 1})


def test_to_look_at_a_provider_writes_nothing_about_it(valkey_url: str) -> None:
    timed = valkey_gate(valkey_url)
    fleet = Fleet(timed)
    fleet.fail(5, candidate=A)
    with redis.Redis.from_url(valkey_url) as client:
        key = f"{timed.prefix}:pv:a"
        client.expire(key, 1000)  # which a SET would undo
        assert fleet.ask(A, B).choice == 1
        assert client.ttl(key) > 0
        assert not client.exists(f"{timed.prefix}:pv:b")


def test_what_comes_late_counts_at_its_time_and_what_is_too_old_not_at_all(fleet: Fleet) -> None:
    fleet.fail(4)
    fleet.tell("failed", age_s=10.0)
    until = fleet.seen().condition.breakers["a"].until
    assert until - fleet.timed.now() == pytest.approx(20, abs=0.01)
    fleet.tell("answered", age_s=301.0)
    assert fleet.seen().condition.calls == 5


@pytest.fixture
def per_model(fleet: Fleet) -> Callable[[], tuple[State, State]]:
    one, two = Candidate("a", "a|m", "k", "m"), Candidate("a", "a|n", "k", "n")
    fleet.fail(5, candidate=one)
    fleet.tell("answered", candidate=two)
    return lambda: (fleet.state("a|m"), fleet.state("a|n"))


def test_models_may_have_breakers_of_their_own(per_model: Callable[[], tuple[State, State]]) -> None:
    assert per_model() == (State.OPEN, State.CLOSED)
