"""A worker's providers while their file changes."""

from collections.abc import Sequence
from typing import Any

import pytest

from shared.catalogue import Breaker, Catalogue, Provider
from shared.clock import ManualClock
from shared.errors import ModelRefusedError, NotServedError, ProviderError, StoreUnavailableError
from shared.gate import NOBODY, Action, Candidate, Change
from shared.jobs import Outcome, Slip
from shared.limits import Limit, Limits
from shared.lines import read_request
from shared.memory_gate import MemoryGate
from shared.permits import DirectDoorman, Permit
from shared.reasons import Reason
from shared.tokens import OTHERS, Learned, expect, measure
from workers.execute import Blocked, Job, attempt
from workers.provider import TokenUsage
from workers.transport import Answer
from workers.upstreams import Upstreams


class Gate(MemoryGate):
    """Remembers whom it was to wake."""

    def __init__(self) -> None:
        super().__init__(ManualClock())
        self.woken: list[str] = []
        self.away = False

    def change(
        self, provider: str, action: Action, *, settings: Breaker, target: str = "", most: int = 0
    ) -> list[Change]:
        del most
        if self.away:
            raise StoreUnavailableError("away")
        if action == "wake":
            self.woken.append(provider)
        return super().change(provider, action, settings=settings, target=target)


class Transport:
    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self.refuses: dict[tuple[str, str], ProviderError] = {}
        """By provider and endpoint."""
        self.usage = TokenUsage()

    def fingerprint(self, provider: Provider) -> str:
        return self.keys.get(provider.id, provider.endpoint)

    def call(self, provider: Provider, endpoint: str, body: bytes) -> Answer:
        if refusal := self.refuses.get((provider.id, endpoint)):
            raise refusal
        said = f"{provider.id} {endpoint} {body!r}"
        return Answer(body=said.encode(), usage=self.usage, request_id=None, duration_s=0.1)


def provider(name: str, **more: Any) -> Provider:
    return Provider(id=name, endpoint="http://127.0.0.1:1/v1", **more)


class Worker:
    def __init__(self, *providers: Provider) -> None:
        self.catalogue = Catalogue(providers=providers)
        self.gate, self.transport = Gate(), Transport()
        doorman = DirectDoorman(self.gate, Breaker())
        self.upstreams = Upstreams(lambda: self.catalogue, self.transport, self.gate, doorman)  # type: ignore[arg-type]

    def write(self, *providers: Provider, **sections: Any) -> None:
        self.catalogue = Catalogue(providers=providers, **sections)

    def candidates(self, *names: str) -> list[Candidate]:
        return [Candidate(name, name, "k", "m") for name in names]

    def woken(self) -> list[str]:
        self.gate.woken.clear()
        self.upstreams.look_for_mended()
        return list(self.gate.woken)


A, B, C = provider("a"), provider("b"), provider("c")


def test_who_has_left_the_file_is_called_by_no_attempt_that_began_before() -> None:
    worker = Worker(A, B, C)
    candidates = worker.candidates("a", "b", "c")
    worker.write(provider("a", enabled=False), C)
    found = worker.upstreams.acquire(candidates)
    assert isinstance(found, Permit)
    assert (found.choice, found.candidate.provider) == (2, "c")
    assert worker.upstreams.call(found, C, "m", "/v1", b"{}")
    worker.gate.change("c", "drain", settings=Breaker())
    told = worker.upstreams.acquire(candidates)
    assert isinstance(told, tuple)
    assert [(block.provider, block.reason) for block in told] == [(n, Reason.DISABLED) for n in "abc"]
    assert isinstance(worker.upstreams.acquire(worker.candidates("b")), tuple)


def test_who_leaves_the_file_while_a_call_waits_for_its_permit_is_not_called() -> None:
    worker = Worker(A, B)
    acquire = worker.upstreams._doorman.acquire

    def after_a_wait(candidates: Sequence[Candidate], limits: Limits | None = None) -> Any:
        found = acquire(candidates, limits)
        worker.write(B)
        return found

    worker.upstreams._doorman.acquire = after_a_wait  # type: ignore[method-assign]
    slow = Limit("p:a", "rpm", 1, 1)
    candidates = [Candidate("a", "a", "k", "m", "", (slow,)), *worker.candidates("b")]
    found = worker.upstreams.acquire(candidates)
    assert isinstance(found, Permit)
    assert (found.choice, found.candidate.provider) == (1, "b")
    worker.write(A, B)
    told = worker.upstreams.acquire(candidates[:1])
    assert isinstance(told, tuple)
    assert [block.reason for block in told] == [Reason.DISABLED], "the first permit was given back"


def test_how_fast_a_provider_answers_is_learned_by_the_token_and_reserved_by_the_token() -> None:
    worker = Worker(provider("a", limits={"tpm": 6000, "rpm": 60}))
    worker.transport.usage = TokenUsage(prompt_tokens=3, completion_tokens=8, known=True)
    asked: list[Candidate] = []
    acquire = worker.upstreams._doorman.acquire

    def noted(candidates: Sequence[Candidate], limits: Limits | None = None) -> Any:
        asked.extend(candidates)
        return acquire(candidates, limits)

    worker.upstreams._doorman.acquire = noted  # type: ignore[method-assign]
    assert answered_by(worker) == "a"
    amounts = {limit.kind: limit.amount for limit in asked[0].limits or ()}
    expected = expect(measure(read_request(LINE).body))
    assert amounts == {"rpm": 1, "tpm": expected.input_tokens + expected.output_tokens}
    learned = worker.gate.condition("a")
    assert learned.per_token_s == pytest.approx(learned.latency_s / 8)


def test_the_breakers_follow_the_file() -> None:
    worker = Worker(A)
    (candidate,) = worker.candidates("a")
    before = worker.upstreams._breaker(candidate)
    assert worker.upstreams._breaker(candidate) is before
    worker.write(A, breaker=Breaker(slow_call_s=1.0, failure_threshold=2))
    after = worker.upstreams._breaker(candidate)
    assert (after.settings.slow_call_s, after.fail_max) == (1.0, 2)
    assert worker.upstreams._breaker(candidate) is after


def test_all_that_waits_comes_back_when_the_file_is_another_and_else_only_for_a_mended_key() -> None:
    worker = Worker(A, B)
    assert worker.woken() == [NOBODY, "a", "b"]  # a worker has started
    assert worker.woken() == []
    worker.transport.keys["b"] = "mended"
    assert worker.woken() == ["b"]
    worker.write(B, C)
    worker.gate.away = True
    assert worker.woken() == []
    worker.gate.away = False
    assert worker.woken() == [NOBODY, "a", "b", "c"]
    assert worker.woken() == []


CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
LINE = b'{"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}'


def answered_by(worker: Worker, endpoint: str = CHAT) -> str:
    """The provider that serves the next job, or what else becomes of it."""
    job = Job("batch", endpoint, Slip(index=0, offset=0, length=len(LINE)), LINE, "ref", 1)
    found = attempt(job, worker.catalogue, worker.upstreams)
    if isinstance(found, Blocked):
        return found.blocks[0].reason
    return found.provider if isinstance(found, Outcome) else type(found.error).__name__


def test_a_model_that_is_refused_at_one_endpoint_is_still_asked_for_at_the_other() -> None:
    worker = Worker(provider("a", models={"m": "m"}))
    worker.transport.refuses["a", PLAIN] = ModelRefusedError("a answered 404", http_status=404)
    assert answered_by(worker, PLAIN) == Reason.MODEL_REFUSED
    worker.transport.refuses.clear()
    assert answered_by(worker, CHAT) == "a"
    assert answered_by(worker, PLAIN) == Reason.MODEL_REFUSED


def test_what_is_not_there_is_looked_for_elsewhere_and_held_against_nobody() -> None:
    first, second = (provider(name, models={"m": "m"}) for name in "ab")
    worker = Worker(first, second)
    worker.transport.refuses["a", CHAT] = NotServedError("a answered 404", http_status=404)
    assert [answered_by(worker), answered_by(worker)] == ["b", "b"]
    worker.write(first)
    assert answered_by(worker) == "NotServedError"
    worker.transport.refuses.clear()
    assert answered_by(worker) == "a"
    assert worker.gate.look(["a"])[1][0].condition.refusals == {}


def test_where_another_may_serve_it_later_the_job_waits_for_that_one() -> None:
    worker = Worker(*(provider(name, models={"m": "m"}) for name in "ab"))
    worker.transport.refuses["a", CHAT] = NotServedError("a answered 404", http_status=404)
    worker.gate.change("b", "disable", settings=Breaker())
    assert answered_by(worker) == Reason.DISABLED


def test_what_answers_teach_is_known_by_model_where_the_file_names_it_and_seen_after_a_look() -> None:
    worker = Worker(provider("a", models={"m": "own-name"}))
    worker.transport.usage = TokenUsage(prompt_tokens=6, completion_tokens=40, known=True)
    assert [answered_by(worker), answered_by(worker)] == ["a", "a"]
    worker.write(provider("b"))
    assert answered_by(worker) == "b"
    known = worker.gate.conditions(["a", "b"])
    estimated = measure(b'{"model": "m", "messages": []}').input_tokens
    assert known["a"].tokens == {"m": Learned(2, estimated, 6, 40)}
    assert known["b"].tokens == {OTHERS: Learned(1, estimated, 6, 40)}
    worker.write(provider("a", models={"m": "own-name", "*": "*"}), provider("b"))
    a, b = worker.catalogue.providers
    assert worker.upstreams.learned(a, "m") == Learned()
    worker.upstreams.look_for_mended()
    assert [worker.upstreams.learned(a, name).calls for name in ("m", "other")] == [2, 0]
    assert [worker.upstreams.learned(b, name).calls for name in ("m", "other")] == [1, 1]
