"""Whatever providers answer, in whatever order: one job's life from classification over breaker and retry to its end.

The real table, attempt, breaker and decisions, in memory and by a clock that the test moves. What must come of each kind of
answer is written down here anew, from the vendors' documents, so that the table in the code has something to be held to.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.breaker import State
from shared.catalogue import Breaker, Catalogue, Provider
from shared.clock import ManualClock
from shared.errors import ProviderTimeoutError, ProviderUnreachableError
from shared.gate import Change
from shared.jobs import History, Outcome, Slip, Split
from shared.memory_batch import history_after
from shared.memory_gate import MemoryGate
from shared.permits import DirectDoorman
from workers.classify import classify
from workers.execute import Blocked, Failed, Job, attempt
from workers.provider import TokenUsage
from workers.retry import Decision, decide, park
from workers.transport import Answer
from workers.upstreams import Upstreams

BREAKER = Breaker()
ENDPOINT = "/v1/chat/completions"
BODY = b'{"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}'
PROVIDERS = ("a", "b", "c")


class Says(NamedTuple):
    """A provider's answer; `status` 0 is silence, -1 no connection. `kind` is what must come of it."""

    kind: str
    status: int
    code: str | None = None
    retry_after_s: float | None = None


OK = Says("answer", 200)
ANSWERS = (
    OK,
    *(Says("final", status) for status in (400, 413, 422, 405)),
    Says("final", 400, "content_filter"),
    Says("final", 400, "context_length_exceeded"),
    *(Says("key", status) for status in (401, 402)),
    Says("key", 429, "insufficient_quota"),
    Says("key", 429, "enforced_spend_limit_reached"),
    Says("key", 400, "contract_spend_limit_reached"),
    Says("model", 403),
    Says("model", 404, "model_not_found"),
    Says("here", 404),
    Says("here", 404, "not_found"),
    Says("limited", 429),
    Says("limited", 429, "rate_limit_exceeded", 7.0),
    Says("limited", 429, "ramp_limit_exceeded", 45.0),
    *(Says("busy", status) for status in (408, 409, 425)),
    *(Says("fault", status) for status in (0, -1, 500, 501, 502, 503, 504, 529)),
    Says("fault", 503, None, 12.0),
)


class Providers:
    """What each of them says at present, and every call that reached one: (provider, at, kind)."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.says: dict[str, Says] = dict.fromkeys(PROVIDERS, OK)
        self.calls: list[tuple[str, float, Says]] = []

    def fingerprint(self, provider: Provider) -> str:
        return provider.id

    def call(self, provider: Provider, endpoint: str, body: bytes) -> Answer:
        assert (endpoint, b'"model": "m"' in body) == (ENDPOINT, True)
        said = self.says[provider.id]
        self.calls.append((provider.id, self.clock.now(), said))
        if said.status == 0:
            raise ProviderTimeoutError("silent")
        if said.status < 0:
            raise ProviderUnreachableError("not there")
        if said.status != OK.status:
            error = {"error": {"message": "m", "type": "t", "param": None, "code": said.code}}
            headers = {} if said.retry_after_s is None else {"retry-after": str(said.retry_after_s)}
            raise classify(
                provider.id, said.status, headers, json.dumps(error).encode(), now=self.clock.now()
            )
        return Answer(body=b"{}", usage=TokenUsage(), request_id=None, duration_s=0.1)


class Life(RuleBasedStateMachine):
    """Jobs that are tried when they are due, while providers change their minds."""

    def __init__(self) -> None:
        super().__init__()
        self.begin_with(named=True, count=1, jobs=1)

    @initialize(named=st.booleans(), count=st.integers(1, 3), jobs=st.integers(1, 4))
    def begin(self, *, named: bool, count: int, jobs: int) -> None:
        self.begin_with(named=named, count=count, jobs=jobs)

    def begin_with(self, *, named: bool, count: int, jobs: int) -> None:
        self.clock = ManualClock()
        self.providers = Providers(self.clock)
        self.named = named
        models = {"m": "m"} if named else {"*": "*"}
        self.catalogue = Catalogue(
            providers=tuple(
                Provider(id=name, endpoint="http://127.0.0.1:1/v1", models=models)
                for name in PROVIDERS[:count]
            )
        )
        self.gate = MemoryGate(self.clock)
        self.changes: list[Change] = []
        doorman = DirectDoorman(self.gate, BREAKER, self.changes.extend)
        self.upstreams = Upstreams(lambda: self.catalogue, self.providers, self.gate, doorman)  # type: ignore[arg-type]
        self.histories = dict.fromkeys(range(jobs), History())
        self.due = dict.fromkeys(range(jobs), self.clock.now())
        self.ended: dict[int, str] = {}
        self.shut: dict[str, float] = {}
        """Until when a provider must not be called, by what it said last."""
        self.row: dict[str, int] = {}
        """Faults in a row."""

    @property
    def open(self) -> list[int]:
        return [job for job in self.histories if job not in self.ended]

    @rule(which=st.integers(0, 2), says=st.sampled_from(ANSWERS))
    def change_mind(self, which: int, says: Says) -> None:
        self.providers.says[PROVIDERS[which]] = says

    @rule(by_s=st.sampled_from([0.1, 0.5, 3.0, 31.0, 61.0, 301.0]))
    def wait(self, by_s: float) -> None:
        self.clock.advance(by_s)

    @rule(name=st.sampled_from(PROVIDERS))
    def enable(self, name: str) -> None:
        self._enable(name)

    def _enable(self, name: str) -> None:
        self.gate.change(name, "enable", settings=BREAKER)
        self.shut.pop(name, None)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), times=st.sampled_from([1, 1, 1, 7]))
    def try_one(self, which: int, times: int) -> None:
        number = self.open[which % len(self.open)]
        for _ in range(times):
            if number not in self.ended:
                self._try(number)

    def _try(self, number: int) -> None:
        self.clock.advance(max(0.0, self.due[number] - self.clock.now()))
        before = len(self.providers.calls)
        slip = Slip(index=number, offset=0, length=len(BODY), history=self.histories[number])
        found = attempt(Job("batch", ENDPOINT, slip, BODY, "ref", 1), self.catalogue, self.upstreams)
        calls = self.providers.calls[before:]
        self._nobody_was_called_in_vain(calls)
        self._judge(number, found, calls)

    def _nobody_was_called_in_vain(self, calls: Sequence[tuple[str, float, Says]]) -> None:
        names = [name for name, _, _ in calls]
        assert len(set(names)) == len(names), "one attempt asks nobody twice"
        for name, at, says in calls:
            assert at >= self.shut.get(name, 0.0), f"{name} was called though it may not be"
            if says.kind in {"fault", "answer"}:  # nothing else speaks for or against it
                self.row[name] = self.row.get(name, 0) + 1 if says.kind == "fault" else 0
            if says.kind in {"key", "model"} and (says.kind == "key" or self.named):
                self.shut[name] = at + BREAKER.out_of_service_probe_s
            elif says.kind == "limited":
                self.shut[name] = at + (says.retry_after_s or 0.5)
            elif says.kind == "fault" and self.row[name] >= BREAKER.failure_threshold:
                self.shut[name] = at + BREAKER.reset_timeout_s

    def _judge(
        self, number: int, found: Outcome | Failed | Blocked, calls: Sequence[tuple[str, float, Says]]
    ) -> None:
        last = calls[-1][2] if calls else None
        if isinstance(found, Outcome):
            assert last is not None
            assert last.kind == "answer"
            self.ended[number] = "answered"
            return
        assert last is None or last.kind != "answer"
        assert [t.status for t in found.tries] == [max(0, says.status) for _, _, says in calls]
        if isinstance(found, Blocked):
            decision = park(
                found.blocks, self.histories[number], now=self.clock.now(), spread=0.5, alone=False
            )
            assert all(says.kind in {"key", "model", "here", "limited"} for _, _, says in calls)
        else:
            assert last is not None
            decision = decide(found.error, self.histories[number], self.catalogue.retry, spread=0.5)
            assert decision.kind in self._allowed(last)
        self._apply(number, found, decision)

    def _allowed(self, last: Says) -> set[str]:
        return {
            "final": {"fail"},
            "key": set(),  # it waits, blocked, for a person
            "model": set() if self.named else {"fail"},  # a name that nobody knows
            "here": {"fail"},  # nobody else is left, and nothing is held against anybody
            "limited": {"retry", "park"},
            "busy": {"retry", "park", "fail"},  # as a probe it is charged to nobody, and may wait longer
            "fault": {"retry", "park", "doubt"},
        }[last.kind]

    def _apply(self, number: int, found: Failed | Blocked, decision: Decision) -> None:
        before = self.histories[number]
        if decision.kind == "fail":
            assert isinstance(found, Failed)
            if self.providers.calls[-1][2].kind == "busy":
                assert before.attempts == self.catalogue.retry.max_retries
            self.ended[number] = "failed"
            return
        split = Split(
            kind="retry" if decision.kind == "retry" else "park",
            jobs=(number,),
            delay_s=decision.delay_s,
            provider=found.provider if isinstance(found, Failed) else "",
            charged=decision.charged and decision.kind != "doubt",
            anew=decision.kind == "doubt",
            blocked=decision.blocked,
            tries=(found.tries,),
        )
        after = history_after(None if before == History() else before, split, self.clock.now(), found.tries)
        self.histories[number] = after or History()
        charged = sum(t.charged for t in found.tries)
        assert charged <= 1
        if decision.kind != "doubt":
            assert self.histories[number].attempts == before.attempts + charged
        self.due[number] = self.clock.now() + decision.delay_s
        assert 0 < decision.delay_s <= 62

    @invariant()
    def no_job_has_more_attempts_than_it_may(self) -> None:
        for history in self.histories.values():
            assert history.attempts <= self.catalogue.retry.max_retries

    @invariant()
    def only_faults_speak_against_a_provider(self) -> None:
        for change in self.changes:
            if change.after is State.OPEN and change.before is State.CLOSED:
                faults = [says.kind for name, _, says in self.providers.calls if name == change.provider]
                assert faults.count("fault") >= BREAKER.failure_threshold

    def teardown(self) -> None:
        """Once every provider answers again, what is open ends well, whatever came before; a probe at a time."""
        self.providers.says = dict.fromkeys(PROVIDERS, OK)
        for name in PROVIDERS:
            self._enable(name)
        for number in self.open:
            self._try(number)
        assert self.open == []


TestLife: Any = Life.TestCase
TestLife.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=40)
