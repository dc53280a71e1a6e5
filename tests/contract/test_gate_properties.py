"""Any sequence of asks, endings, time and people's interventions: Valkey and the memory twin say the same, and the rules hold."""

from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.gates import Timed, memory_gate, valkey_gate
from support.machines import case

from shared.breaker import Circuit, State
from shared.catalogue import Breaker
from shared.condition import Condition
from shared.gate import Action, Ask, Candidate, Change, Exchanged, Report, Result, Verdict
from shared.tokens import Lesson

CANDIDATES = (
    Candidate("a", "a", "k1", "m", "o1"),
    Candidate("a", "a", "k2", "m", "o2"),
    Candidate("b", "b|m", "k1", "m", "o1"),
    Candidate("b", "b|*", "k1", ""),
)
RESULTS: tuple[Result, ...] = ("answered", "slow", "failed", "limited", "key", "model", "nothing")
LESSONS = (None, Lesson(10, 1, 13, 7), Lesson(400, 3, 350, 100), Lesson(0, 1, 1, 0))
ACTIONS: tuple[Action, ...] = ("enable", "disable", "drain", "open", "close", "half_open", "wake")
LEGAL = {
    (State.CLOSED, State.OPEN),
    (State.OPEN, State.HALF_OPEN),
    (State.HALF_OPEN, State.OPEN),
    (State.HALF_OPEN, State.CLOSED),
}


class Machine(RuleBasedStateMachine):
    gates: ClassVar[tuple[type[Any] | Any, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.timed: list[Timed] = [make() for make in self.gates]
        self.serial = 0
        self.out: list[tuple[str, Candidate, Verdict]] = []
        self.probes: dict[tuple[str, int], int] = {}

    @initialize(
        rate=st.sampled_from([None, 0.5]),
        permits=st.integers(1, 3),
        multiplier=st.sampled_from([1.0, 2.0]),
        threshold=st.integers(1, 3),
    )
    def begin(self, rate: float | None, permits: int, multiplier: float, threshold: int) -> None:
        self.settings = Breaker(
            failure_threshold=3,
            reset_timeout_s=10,
            success_threshold=threshold,
            half_open_permits=permits,
            probe_lease_s=1000,
            failure_rate=rate,
            minimum_calls=4,
            window_s=20,
            reset_multiplier=multiplier,
            max_reset_timeout_s=25,
            jitter=0.3,
            out_of_service_probe_s=40,
        )

    def exchange(self, asks: list[Ask], reports: list[Report], spread: float) -> Exchanged:
        self.serial += 1
        told = [
            t.gate.exchange(
                asks, reports, settings=self.settings, sender="s", serial=self.serial, spread=spread
            )
            for t in self.timed
        ]
        for other in told[1:]:
            assert _rounded(other) == _rounded(told[0])
        for change in told[0].changes:
            assert (change.before, change.after) in LEGAL
        return told[0]

    @rule(chosen=st.lists(st.sampled_from(CANDIDATES), min_size=1, max_size=4, unique=True))
    def ask(self, chosen: list[Candidate]) -> None:
        permit = f"p{self.serial}"
        verdict = self.exchange([Ask(permit, tuple(chosen))], [], 0.0).verdicts[0]
        if verdict.choice < 0:
            assert len(verdict.blocks) == len(chosen)
            return
        self.out.append((permit, chosen[verdict.choice], verdict))

    @rule(
        which=st.integers(0, 99),
        result=st.sampled_from(RESULTS),
        took=st.tuples(st.sampled_from([(0.01, 0), (0.5, 7), (3.0, 7)]), st.sampled_from(LESSONS)),
        waits=st.sampled_from([(-1.0, None), (0.01, None), (5.0, None), (-1.0, 3.0)]),
        age_s=st.sampled_from([0.0, 0.0, 0.0, 2.0, 500.0]),
        spread=st.sampled_from([0.0, 0.5]),
        twice=st.booleans(),
    )
    def end(
        self,
        which: int,
        result: Result,
        took: tuple[tuple[float, int], Lesson | None],
        waits: tuple[float, float | None],
        age_s: float,
        spread: float,
        *,
        twice: bool,
    ) -> None:
        if not self.out:
            return
        permit, candidate, verdict = self.out.pop(which % len(self.out))
        (duration_s, output_tokens), lesson = took
        report = Report(
            permit,
            candidate,
            verdict.generation,
            result,
            "code",
            "message",
            duration_s,
            3,
            waits[0],
            age_s,
            rest_s=waits[1],
            output_tokens=output_tokens,
            lesson=lesson,
        )
        self.exchange([], [report, report] if twice else [report], spread)

    @rule(by_s=st.sampled_from([0.1, 1.0, 9.9, 10.2, 45.0]))
    def wait(self, by_s: float) -> None:
        for t in self.timed:
            t.pass_time(by_s)

    @rule(provider=st.sampled_from(["a", "b"]), action=st.sampled_from(ACTIONS))
    def intervene(self, provider: str, action: Action) -> None:
        told = [t.gate.change(provider, action, settings=self.settings) for t in self.timed]
        for other in told[1:]:
            assert sorted(_change(c) for c in other) == sorted(_change(c) for c in told[0])

    @invariant()
    def all_see_the_same(self) -> None:
        looks = [t.gate.look(["a", "b"])[1] for t in self.timed]
        for other in looks[1:]:
            for one, two in zip(looks[0], other, strict=True):
                assert (one.answered, one.failed, one.buckets) == (two.answered, two.failed, two.buckets)
                assert one.last_minute == two.last_minute
                assert _flat(one.condition) == _flat(two.condition)
                assert _tokens(one.condition) == pytest.approx(_tokens(two.condition), rel=1e-9)

    @invariant()
    def no_more_probes_than_permits(self) -> None:
        for timed in self.timed:
            for seen in timed.gate.look(["a", "b"])[1]:
                for circuit in seen.condition.breakers.values():
                    assert len(circuit.probes) <= self.settings.half_open_permits
                    assert circuit.state is State.HALF_OPEN or not circuit.probes
                    assert (
                        circuit.state is not State.CLOSED
                        or circuit.failures < self.settings.failure_threshold
                    )


def _rounded(told: Exchanged) -> Any:
    verdicts = [
        (
            v.choice,
            v.generation,
            v.probe,
            [(b.provider, b.reason, round(b.until, 2), b.detail) for b in v.blocks],
        )
        for v in told.verdicts
    ]
    return verdicts, told.charged, [_change(c) for c in told.changes]


def _change(c: Change) -> tuple[str, str, str, str, float, str]:
    return (c.provider, c.target, c.before.value, c.after.value, round(c.until, 2), c.reason)


def _tokens(c: Condition) -> dict[str, float]:
    """Halves are frequent among averages of few calls, so that these cannot be compared rounded."""
    return {
        f"{model} {name}": getattr(learned, name)
        for model, learned in c.tokens.items()
        for name in learned.__struct_fields__
    }


def _flat(value: Any) -> Any:
    """Numbers rounded as far as Redis' JSON keeps them; without tokens, and breakers that never did anything."""
    if isinstance(value, float):
        return round(value, 2)
    if isinstance(value, dict):
        return {k: _flat(v) for k, v in value.items() if v != Circuit()}
    if isinstance(value, tuple | list):
        return [_flat(v) for v in value]
    if hasattr(value, "__struct_fields__"):
        return {name: _flat(getattr(value, name)) for name in value.__struct_fields__ if name != "tokens"}
    return value


class MemoryMachine(Machine):
    gates = (memory_gate,)


class TwinMachine(Machine):
    pass


TestMemory = case(MemoryMachine, examples=100)


@pytest.fixture(scope="module", autouse=True)
def _both(valkey_url: str) -> None:
    TwinMachine.gates = (memory_gate, lambda: valkey_gate(valkey_url))


TestTwin = case(TwinMachine, examples=40)
