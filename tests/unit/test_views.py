"""What a worker sees of a provider, and that it is never left alone where the gate would let a call through."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.breaker import Circuit, State
from shared.catalogue import Breaker
from shared.clock import ManualClock
from shared.condition import Condition, CoolDown, Refusal, key_scope, model_scope
from shared.errors import StoreUnavailableError
from shared.gate import Ask, Candidate
from shared.memory_gate import MemoryGate
from workers.views import Views, view_of

NOW = 1_750_000_000.0
A = Candidate("a", "a", "k1", "m", "o1")


def refusal(probe_at: float) -> Refusal:
    return Refusal(code="c", message="", since=NOW - 9, probe_at=probe_at)


def test_a_condition_as_a_strategy_sees_it() -> None:
    closed = Circuit(generation=3, since=NOW - 5)
    c = Condition(calls=9, failures=2, latency_s=1.5, latest_s=1.1, per_token_s=0.02, success_rate=0.9)
    seen = view_of(
        Condition(**{name: getattr(c, name) for name in c.__struct_fields__} | {"breakers": {"a": closed}}),
        A,
        now=NOW,
        in_flight=3,
        oldest_s=0.7,
        price=Decimal("0.1"),
    )
    assert (seen.answers, seen.latency_s, seen.latest_s, seen.per_token_s) == (7, 1.5, 1.1, 0.02)
    assert (seen.in_flight, seen.oldest_s, seen.price) == (3, 0.7, Decimal("0.1"))
    assert (seen.serving, seen.recovered_at) == (True, NOW - 5)
    assert view_of(Condition(), A, now=NOW).recovered_at == 0.0


@pytest.mark.parametrize(
    ("condition", "serving"),
    [
        (Condition(), True),
        (Condition(disabled=True), False),
        (Condition(breakers={"a": Circuit(state=State.OPEN, until=NOW + 1)}), False),
        (Condition(breakers={"a": Circuit(state=State.OPEN, until=NOW - 1)}), True),
        (Condition(breakers={"a": Circuit(state=State.HALF_OPEN)}), True),
        (Condition(breakers={"b": Circuit(state=State.OPEN, until=NOW + 1)}), True),
        (Condition(cool_downs={"a": CoolDown(until=NOW + 1, times=1)}), False),
        (Condition(refusals={key_scope("k1"): refusal(NOW + 1)}), False),
        (Condition(refusals={key_scope("k1"): refusal(NOW - 1)}), True),
        (Condition(refusals={key_scope("k2"): refusal(NOW + 1)}), True),
        (Condition(refusals={model_scope("m", "o1"): refusal(NOW + 1)}), False),
        (Condition(refusals={model_scope("m", "o2"): refusal(NOW + 1)}), True),
    ],
)
def test_who_is_due_for_a_probe_serves(condition: Condition, serving: bool) -> None:
    assert view_of(condition, A, now=NOW).serving is serving


@given(
    disabled=st.booleans(),
    open_until=st.sampled_from([None, -1.0, 1.0]),
    cool_until=st.sampled_from([None, -1.0, 1.0]),
    probe_at=st.sampled_from([None, -1.0, 1.0]),
    named=st.booleans(),
)
def test_it_agrees_with_the_gate(
    disabled: bool,
    open_until: float | None,
    cool_until: float | None,
    probe_at: float | None,
    named: bool,
) -> None:
    scope = model_scope("m", "o1") if named else key_scope("k1")
    circuit = None if open_until is None else Circuit(state=State.OPEN, until=NOW + open_until, generation=1)
    condition = Condition(
        disabled=disabled,
        breakers={} if circuit is None else {"a": circuit},
        cool_downs={} if cool_until is None else {"a": CoolDown(until=NOW + cool_until, times=1)},
        refusals={} if probe_at is None else {scope: refusal(NOW + probe_at)},
    )
    gate = MemoryGate(ManualClock(NOW))
    gate._conditions["a"] = condition
    told = gate.exchange([Ask("p", (A,))], [], settings=Breaker(), sender="s", serial=1, spread=0.0)
    assert view_of(condition, A, now=NOW).serving is (told.verdicts[0].choice == 0)


def test_calls_under_way_and_what_others_have_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, Any] = {"a": Condition(latency_s=2.0)}
    away = [False]

    def look(names: Any) -> dict[str, Condition]:
        if away[0]:
            raise StoreUnavailableError("away")
        return {name: known[name] for name in names if name in known}

    views = Views(look, lambda: NOW)
    views.look(["a", "b"])
    clock = iter([10.0, 11.0, 14.5, 20.0]).__next__
    monkeypatch.setattr("workers.views.time.monotonic", clock)
    views.began("1", "a")
    views.began("2", "a")
    assert views.of([A], lambda _: None)["a"].oldest_s == 4.5
    views.ended("1", "a")
    seen = views.of([A], lambda _: None)["a"]
    assert (seen.latency_s, seen.in_flight) == (2.0, 1)
    assert seen.oldest_s == 9.0
    monkeypatch.undo()
    views.heard({"a": Condition(latency_s=3.0)})
    away[0] = True
    views.look(["a"])
    assert views.of([A], lambda _: None)["a"].latency_s == 3.0
    views.ended("2", "a")
    assert views.of([A], lambda _: None)["a"].in_flight == 0
