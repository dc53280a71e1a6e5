"""Any sequence of asks, endings, lost answers, deaths and time: both stores say the same, and no limit is ever passed."""

import itertools
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.gates import Timed, memory_gate, valkey_gate
from support.machines import case

from shared.catalogue import Breaker
from shared.condition import Condition
from shared.gate import Ask, Candidate, Exchanged, Flight, Report, Result, Verdict
from shared.limits import SILENT_S, Kind, Limit, Limits, not_back

SETTINGS = Breaker(failure_threshold=3, reset_timeout_s=5)
SENDERS = ("one", "two", "three")
RPM, TPM, CALLS, MONEY = 300.0, 6000.0, 4.0, 2000.0
SCOPE = "p:a"


def limits(*, rpm: bool, tpm: float, calls: bool) -> Limits:
    found = [Limit(SCOPE, "rpm", 1.0, RPM)] if rpm else []
    found += [Limit(SCOPE, "tpm", tpm, TPM)] if tpm else []
    found += [Limit(SCOPE, "concurrency", 1.0, CALLS)] if calls else []
    return tuple(found)


ENDINGS: tuple[tuple[Result, str, float], ...] = (
    ("answered", "", 0.1),
    ("answered", "", 0.1),
    ("answered", "", 2.0),
    ("limited", "rate_limited", 0.1),
    ("failed", "request_timeout", 3.0),
    ("failed", "provider_failed", 0.1),
    ("nothing", "", 0.1),
)


class Call(msgspec.Struct, frozen=True):
    permit: str
    candidate: Candidate
    generation: int
    limits: Limits | None

    @property
    def all_limits(self) -> Limits:
        return (*(self.candidate.limits or ()), *(self.limits or ()))

    @property
    def counted(self) -> int:
        return sum(limit.kind == "concurrency" for limit in self.all_limits)


class Machine(RuleBasedStateMachine):
    gates: ClassVar[tuple[Any, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.timed: list[Timed] = [make() for make in self.gates]
        self.serials = itertools.count(1)
        self.calls: dict[str, list[Call]] = {sender: [] for sender in SENDERS}
        self.heard: dict[str, float] = {}
        self.was_silent = False
        self.adaptive = False
        self.begun: list[float] = []
        self.booked = 0.0

    @property
    def now(self) -> float:
        return self.timed[0].now()

    @initialize(adaptive=st.booleans())
    def begin(self, *, adaptive: bool) -> None:
        self.adaptive = adaptive

    def held(self, sender: str) -> dict[str, int]:
        n = sum(call.counted for call in self.calls[sender])
        spend = sum(any(x.kind == "money" for x in call.all_limits) for call in self.calls[sender])
        return {SCOPE: n, "w:a": len(self.calls[sender]) - n, "b:1": spend}

    def exchange(
        self, sender: str, asks: list[Ask], reports: list[Report], *, twice: bool = False
    ) -> Exchanged:
        serial = next(self.serials)
        for _ in range(2 if twice else 1):
            told = [
                t.gate.exchange(
                    asks,
                    reports,
                    settings=SETTINGS,
                    sender=sender,
                    serial=serial,
                    spread=0.25,
                    flight=Flight(self.held(sender), self.adaptive),
                )
                for t in self.timed
            ]
        self.heard[sender] = self.now
        for other in told[1:]:
            assert _rounded(other) == _rounded(told[0])
        return told[0]

    @rule(
        sender=st.sampled_from(SENDERS),
        own=st.lists(
            st.builds(limits, rpm=st.booleans(), tpm=st.sampled_from([0, 30, 250.0]), calls=st.booleans()),
            min_size=1,
            max_size=6,
        ),
        spends=st.sampled_from([0.0, 100.0, 900.0]),
        lost=st.booleans(),
        twice=st.booleans(),
    )
    def ask(self, sender: str, own: list[Limits], spends: float, *, lost: bool, twice: bool) -> None:
        common = (Limit("b:1", "money", spends, MONEY),) if spends else None
        asks = [
            Ask(f"p{next(self.serials)}", (Candidate("a", "a", "k", "m", "", o or None),), common)
            for o in own
        ]
        told = self.exchange(sender, asks, [], twice=twice)
        for ask, verdict in zip(asks, told.verdicts, strict=True):
            if verdict.choice < 0:
                continue
            call = Call(ask.permit, ask.candidates[0], verdict.generation, common)
            self.begins(call)
            if not lost:
                self.calls[sender].append(call)
            assert not spends or self.booked <= MONEY

    def begins(self, call: Call) -> None:
        for limit in call.all_limits:
            if limit.kind == "rpm":
                self.begun.append(self.now)
            elif limit.kind == "money":
                self.booked += limit.amount

    @rule(
        sender=st.sampled_from(SENDERS),
        how=st.sampled_from(ENDINGS),
        share=st.sampled_from([None, 0.0, 0.5, 1.0, 1.5]),
        most=st.integers(1, 4),
    )
    def end(self, sender: str, how: tuple[Result, str, float], share: float | None, most: int) -> None:
        ended, self.calls[sender] = self.calls[sender][:most], self.calls[sender][most:]
        reports = []
        for call in ended:
            used: dict[str, float] | None = None
            if share is not None:
                used = {
                    limit.kind: share * limit.amount
                    for limit in call.all_limits
                    if limit.kind in {"tpm", "money"}
                }
                self.booked += sum((share - 1) * x.amount for x in call.all_limits if x.kind == "money")
            reports.append(
                Report(
                    call.permit,
                    call.candidate,
                    call.generation,
                    how[0],
                    how[1],
                    duration_s=how[2],
                    limits=call.limits,
                    used=used,
                )
            )
        self.exchange(sender, [], reports)

    @rule(sender=st.sampled_from(SENDERS))
    def beat(self, sender: str) -> None:
        self.exchange(sender, [], [])

    @rule(sender=st.sampled_from(SENDERS))
    def dies(self, sender: str) -> None:
        self.calls[sender] = []

    @rule(by_s=st.sampled_from([0.05, 0.2, 1.0, 3.0, 10.1]))
    def wait(self, by_s: float) -> None:
        for t in self.timed:
            t.pass_time(by_s)

    @invariant()
    def never_more_calls_than_allowed(self) -> None:
        """Of those senders that are heard of; one that was silent may have been forgotten."""
        alive = [s for s in SENDERS if self.heard.get(s, 0.0) + SILENT_S > self.now]
        assert sum(call.counted for s in alive for call in self.calls[s]) <= CALLS or self.was_silent

    @invariant()
    def all_see_the_same_windows(self) -> None:
        looks = [t.gate.look(["a"])[1][0].condition for t in self.timed]
        for c in looks:
            assert self.adaptive or not c.windows
            assert _windows(c) == _windows(looks[0])
            assert sorted(c.cool_downs) == sorted(looks[0].cool_downs)

    @invariant()
    def all_see_the_same_in_use(self) -> None:
        counted: list[tuple[Kind, str]] = [("concurrency", SCOPE), ("concurrency", "w:a")]
        counted += [("rpm", SCOPE), ("tpm", SCOPE), ("money", "b:1")]
        looks = [t.gate.taken(counted) for t in self.timed]
        for now, found in looks:
            assert now == pytest.approx(self.now, abs=1e-3)
            for (kind, _), mine, first in zip(counted, found, looks[0][1], strict=True):
                if kind in {"rpm", "tpm"}:  # a bucket that is full again is forgotten, or is not
                    ceiling = RPM if kind == "rpm" else TPM
                    assert not_back(mine, ceiling, self.now) == pytest.approx(
                        not_back(first, ceiling, self.now), abs=1e-3
                    )
                else:
                    assert mine == pytest.approx(first, abs=1e-3)
            assert found[4] <= MONEY or self.booked > MONEY

    @invariant()
    def note_silence(self) -> None:
        for sender in SENDERS:
            if self.calls[sender] and self.heard[sender] + SILENT_S <= self.now:
                self.was_silent = True

    @invariant()
    def never_faster_than_allowed(self) -> None:
        times = self.begun[-400:]
        for n, first in enumerate(times):
            allowed = (times[-1] - first) * RPM / 60 + RPM / 60
            assert len(times) - n <= allowed + 1e-6

    def teardown(self) -> None:
        for sender in SENDERS:
            ended, self.calls[sender] = self.calls[sender], []
            self.exchange(
                sender,
                [],
                [Report(c.permit, c.candidate, c.generation, "answered", limits=c.limits) for c in ended],
            )
        self.all_free()

    def all_free(self) -> None:
        """Nothing has leaked: as many calls as ever may begin."""
        for t in self.timed:
            t.gate.change("a", "enable", settings=SETTINGS)
            t.gate.change("a", "close", settings=SETTINGS)
        own = limits(rpm=False, tpm=0, calls=True)
        asks = [Ask(f"z{n}", (Candidate("a", "a", "k", "m", "", own),)) for n in range(6)]
        told = self.exchange("one", asks, [])
        assert sum(v.choice == 0 for v in told.verdicts) == CALLS


def _windows(c: Condition) -> Any:
    return {name: (round(w.size, 6), round(w.cut_at, 4), round(w.best_s, 6)) for name, w in c.windows.items()}


def _rounded(told: Exchanged) -> Any:
    def plain(verdict: Verdict) -> Any:
        blocks = [(b.provider, b.reason, round(b.until, 4), b.detail) for b in verdict.blocks]
        return verdict.choice, verdict.generation, verdict.probe, blocks

    return [plain(v) for v in told.verdicts], told.charged


class MemoryMachine(Machine):
    gates = (memory_gate,)


class TwinMachine(Machine):
    pass


TestMemory = case(MemoryMachine, examples=150)


@pytest.fixture(scope="module", autouse=True)
def _both(valkey_url: str) -> None:
    TwinMachine.gates = (memory_gate, lambda: valkey_gate(valkey_url))


TestTwin = case(TwinMachine, examples=40)
