"""Whom an attempt asks first: the turns of lone jobs and of batches, and a user's own strategy."""

import sys
from collections import Counter
from collections.abc import Sequence
from types import ModuleType

import pytest
from support.blind_fleet import BlindFleet
from support.routes import ids, provider

from shared.catalogue import Catalogue, Provider, Routing
from shared.gate import Block, Candidate
from shared.jobs import Slip
from shared.permits import Permit
from shared.reasons import Reason
from workers.execute import Blocked, Job, attempt
from workers.transport import Answer

ABC = (provider("a"), provider("b"), provider("c"))
BODY = b'{"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}'


class Shut(BlindFleet):
    """Lets nobody through, and keeps in which order they were asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def acquire(self, candidates: Sequence[Candidate]) -> tuple[Block, ...]:
        self.asked.append([c.provider for c in candidates])
        return (Block("a", Reason.BREAKER_OPEN, 0.0),)

    def release(self, permit: Permit) -> None:
        raise AssertionError(permit)

    def call(self, permit: Permit, provider: Provider, model: str, endpoint: str, body: bytes) -> Answer:
        raise AssertionError((permit, provider, model, endpoint, body))


def order(job: Job, routing: Routing) -> list[str]:
    shut = Shut()
    assert isinstance(attempt(job, Catalogue(providers=ABC, routing=routing), shut), Blocked)
    return shut.asked[0]


def of_batch(batch: str, index: int) -> Job:
    return Job(batch, "/v1/chat/completions", Slip(index=index, offset=0, length=len(BODY)), BODY, "ref", 1)


def alone(name: str) -> Job:
    slip = Slip(index=0, offset=0, length=0, id=name)
    return Job("lone", "/v1/chat/completions", slip, b'{"model": "m", "messages": []}', "ref", 1)


def test_a_batchs_jobs_go_in_turn_wherever_they_begin() -> None:
    firsts = [order(of_batch("batch_1", index), Routing())[0] for index in range(6)]
    assert firsts[:3] == firsts[3:]
    assert sorted(firsts[:3]) == ["a", "b", "c"]
    assert {order(of_batch(f"batch_{n}", 0), Routing())[0] for n in range(20)} == {"a", "b", "c"}


def test_lone_jobs_do_not_all_go_to_the_first() -> None:
    found = Counter(order(alone(f"job_{n}"), Routing())[0] for n in range(300))
    assert min(found[p.id] for p in ABC) >= 60


def test_a_users_own_strategy_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("own_strategies")
    monkeypatch.setitem(sys.modules, "own_strategies", module)
    module.rank = lambda _job, providers, _views, _now: sorted(providers, key=lambda p: p.id, reverse=True)  # type: ignore[attr-defined]
    own = Routing(strategies={"mine": "own_strategies:rank"}, strategy="mine")
    assert order(alone("job"), own) == ids(list(reversed(ABC)))
