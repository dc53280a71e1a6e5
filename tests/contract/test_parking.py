"""What is parked says why and keeps what was tried; on Valkey it comes back when a provider that it waits for serves again."""

import itertools

import pytest
import redis
from support.ledgers import index, spec, worker
from support.lone import claim as claim_lone
from support.lone import job
from support.stores import Stores
from support.waiting import wait_for

from shared.catalogue import Breaker
from shared.gate import NOBODY, Action, Ask, Candidate, Report
from shared.jobs import BatchSpec, Claim, History, JobState, Split, Try
from shared.ledger import Ledger
from shared.redis_client import connect
from shared.redis_gate import RedisGate
from shared.redis_ledger import RedisLedger
from shared.redis_lone import RedisLone
from shared.redis_url import parse_redis_url

LONG_S = 60.0
TRY = Try("p1", 503, "provider_failed", 0.25, charged=False, at=1.0)
_prefixes = itertools.count()


def started(ledger: Ledger, total: int) -> BatchSpec:
    made = spec()
    ledger.create(made)
    ledger.beat(worker())
    chore = ledger.take_chore(5.0)
    assert chore is not None
    assert ledger.start(chore, index=index(total), model="m")
    return made


def claimed(ledger: Ledger, size: int) -> list[Claim]:
    found = [ledger.claim(ref, holder="w1", lease_s=LONG_S) for ref in ledger.feed(shard_size=size, most=10)]
    return [claim for claim in found if claim is not None]


def parked(jobs: tuple[int, ...] | tuple[str, ...], **more: object) -> Split:
    fields: dict[str, object] = {
        "kind": "park",
        "jobs": jobs,
        "delay_s": LONG_S,
        "charged": False,
        "reason": "breaker_open",
        "wait_for": ("p1",),
        "blocked": True,
        **more,
    }
    return Split(**fields)  # type: ignore[arg-type]


def test_progress_tells_where_a_batchs_jobs_are(stores: Stores) -> None:
    ledger = stores.ledger
    made = started(ledger, 30)
    assert ledger.progress(made.id).queued == 30
    claims = claimed(ledger, 10)
    total = sum(len(claim.slips) for claim in claims)
    first = claims[0]
    jobs = tuple(slip.index for slip in first.slips)
    ledger.split(first.ref, first.token, parked(jobs[:3]))
    ledger.split(first.ref, first.token, parked(jobs[3:5], reason="key_refused", wait_for=("p2", "p1")))
    ledger.split(first.ref, first.token, Split(kind="retry", jobs=jobs[5:6], delay_s=5.0, provider="p1"))
    found = ledger.progress(made.id)
    assert (found.queued, found.running, found.retrying) == (30 - total, total - 6, 1)
    told = {(w.reason, w.provider, w.jobs) for w in found.waiting}
    assert told == {("breaker_open", "p1", 3), ("key_refused", "p2", 2)}
    now = first.claimed_at
    for waiting in found.waiting:
        assert waiting.since == pytest.approx(now, abs=1.0)
        assert waiting.until == pytest.approx(now + LONG_S, abs=1.0)
    assert found.next_due == pytest.approx(now + 5, abs=1.0)


def test_who_is_parked_again_has_waited_since_the_first_time(stores: Stores) -> None:
    ledger = stores.ledger
    made = started(ledger, 1)
    (claim,) = claimed(ledger, 10)
    ref = ledger.split(claim.ref, claim.token, parked((0,), delay_s=0.1))
    assert ref is not None
    stores.pass_time(0.6)
    again = ledger.claim(ref, holder="w1", lease_s=LONG_S)
    assert again is not None
    ledger.split(again.ref, again.token, parked((0,)))
    (waiting,) = ledger.progress(made.id).waiting
    assert waiting.since == pytest.approx(claim.claimed_at, abs=0.3)
    assert again.slips[0].history.parked == 0  # it was never called


@pytest.mark.parametrize("why", [{"reason": "rate_limited"}, {"wait_for": ("p2", "p1")}])
def test_who_is_parked_for_another_reason_or_provider_waits_anew(
    stores: Stores, why: dict[str, object]
) -> None:
    ledger, lone, new = stores.ledger, stores.lone, job()
    made = started(ledger, 1)
    (claim,) = claimed(ledger, 10)
    ref = ledger.split(claim.ref, claim.token, parked((0,), delay_s=0.1))
    lone.submit([new])
    held = claim_lone(lone)
    lone.split(held.ref, held.token, parked((new.spec.id,), delay_s=0.1))
    assert ref is not None
    stores.pass_time(0.6)
    again, held = ledger.claim(ref, holder="w1", lease_s=LONG_S), claim_lone(lone)
    assert again is not None
    ledger.split(again.ref, again.token, parked((0,), **why))
    lone.split(held.ref, held.token, parked((new.spec.id,), **why))
    (waiting,) = ledger.progress(made.id).waiting
    assert waiting.since >= claim.claimed_at + 0.4
    shown = lone.get(new.spec.id)
    assert shown is not None
    assert shown.waiting is not None
    assert shown.waiting.since >= shown.created_at + 0.4


def test_a_lone_job_parked_again_has_waited_since_the_first_time_unless_it_was_called_meanwhile(
    stores: Stores,
) -> None:
    lone, new = stores.lone, job()
    lone.submit([new])
    since: list[float] = []
    for split in (
        parked((new.spec.id,), delay_s=0.1),
        parked((new.spec.id,), delay_s=0.1),
        Split(kind="retry", jobs=(new.spec.id,), delay_s=0.1, provider="p1"),
        parked((new.spec.id,), delay_s=0.1),
    ):
        held = claim_lone(lone)
        lone.split(held.ref, held.token, split)
        shown = lone.get(new.spec.id)
        assert shown is not None
        since.append(shown.waiting.since if shown.waiting else 0.0)
        stores.pass_time(0.6)
    assert since[0] == since[1] > since[2] == 0.0
    assert since[3] >= since[0] + 1.0


def test_what_is_asked_about_before_anything_can_serve_tells_when_something_can(stores: Stores) -> None:
    ledger, lone, new = stores.ledger, stores.lone, job()
    made = started(ledger, 1)
    (claim,) = claimed(ledger, 10)
    ref = ledger.split(claim.ref, claim.token, parked((0,), delay_s=0.1, serves_s=3540.0))
    lone.submit([new])
    held = claim_lone(lone)
    lone.split(held.ref, held.token, parked((new.spec.id,), delay_s=0.1, serves_s=3540.0))
    (waiting,) = ledger.progress(made.id).waiting
    assert waiting.until == pytest.approx(claim.claimed_at + 3540, abs=1.0)
    shown = lone.get(new.spec.id)
    assert shown is not None
    assert shown.waiting is not None
    assert shown.waiting.until == pytest.approx(shown.created_at + 3540, abs=1.0)
    stores.pass_time(0.6)
    assert ref is not None
    assert ledger.claim(ref, holder="w1", lease_s=LONG_S) is not None
    assert claim_lone(lone)


def test_what_was_tried_is_remembered_the_latest_twenty_calls(stores: Stores) -> None:
    lone, new = stores.lone, job()
    lone.submit([new])
    for _ in range(12):
        found = claim_lone(lone)
        split = parked((new.spec.id,), delay_s=0.0, blocked=False, tries=((TRY, TRY),))
        assert lone.split(found.ref, found.token, split)
    shown = lone.get(new.spec.id)
    assert shown is not None
    history = claim_lone(lone).slips[0].history
    assert shown.history == history
    assert history.tries == (TRY,) * 20
    assert history.parked == 12


def test_a_batchs_job_tells_the_calls_so_far(stores: Stores) -> None:
    ledger = stores.ledger
    made = started(ledger, 3)
    (claim,) = claimed(ledger, 10)
    ledger.split(claim.ref, claim.token, parked((1,), blocked=False, charged=True, tries=((TRY,),)))
    found = ledger.job(made.id, 1)
    assert found is not None
    assert (found.state, found.history.attempts, found.history.tries) == ("p", 1, (TRY,))
    assert ledger.job(made.id, 2) == JobState(state="p", history=History())
    assert ledger.job(made.id, 3) is None
    assert ledger.job("batch_unknown", 0) is None


def test_a_parked_lone_job_says_what_it_waits_for(stores: Stores) -> None:
    lone, new = stores.lone, job()
    lone.submit([new])
    found = claim_lone(lone)
    lone.split(found.ref, found.token, parked((new.spec.id,), delay_s=0.1))
    waits = lone.get(new.spec.id)
    assert waits is not None
    assert waits.waiting is not None
    assert (waits.waiting.reason, waits.waiting.provider) == ("breaker_open", "p1")
    stores.pass_time(0.2)
    claim_lone(lone)
    called = lone.get(new.spec.id)
    assert called is not None
    assert called.waiting is None


class Redis:
    """Ledger, lone jobs and gate on one server."""

    def __init__(self, client: "redis.Redis") -> None:
        prefix = f"park{next(_prefixes)}"
        self.client = client
        self.prefix = prefix
        self.ledger = RedisLedger(client, prefix)
        self.lone = RedisLone(client, prefix)
        self.gate = RedisGate(client, prefix)

    def now(self) -> float:
        seconds, micros = self.client.time()
        return float(seconds + micros / 1e6)

    def due_in_s(self, members: int) -> list[float]:
        """How far off what is parked is due, for batches and lone jobs alike."""
        now = self.now()
        rows = [
            *self.client.zrange(f"{self.prefix}:later", 0, -1, withscores=True),
            *self.client.zrange(f"{self.prefix}:lone:later", 0, -1, withscores=True),
        ]
        assert len(rows) == members
        return sorted(float(score) - now for _, score in rows)


@pytest.fixture
def server(valkey_url: str) -> Redis:
    return Redis(connect(parse_redis_url(valkey_url), role="worker", max_connections=4))


def park_some(server: Redis) -> list[str]:
    """Ten shards and a lone job that wait for p1; the shards' refs."""
    started(server.ledger, 100)
    refs = []
    for claim in claimed(server.ledger, 10):
        ref = server.ledger.split(claim.ref, claim.token, parked(tuple(slip.index for slip in claim.slips)))
        assert ref is not None
        refs.append(ref)
    new = job()
    server.lone.submit([new])
    found = claim_lone(server.lone)
    server.lone.split(found.ref, found.token, parked((new.spec.id,)))
    return refs


@pytest.mark.parametrize("action", ["enable", "wake", "close"])
def test_what_waits_comes_back_spread_out(server: Redis, action: Action) -> None:
    refs = park_some(server)
    assert min(server.due_in_s(len(refs) + 1)) > LONG_S - 5
    if action == "close":
        server.gate.change("p1", "open", settings=Breaker())
    server.gate.change("p2", "wake", settings=Breaker())  # nothing waits for that one
    assert min(server.due_in_s(len(refs) + 1)) > LONG_S - 5
    server.gate.change("p1", action, settings=Breaker())
    due = server.due_in_s(len(refs) + 1)
    assert -0.5 < due[0] < 0.1
    assert 1.0 < due[-1] <= 2.0


def test_no_more_come_back_than_are_asked_for(server: Redis) -> None:
    refs = park_some(server)
    server.gate.change("p1", "wake", settings=Breaker(), most=2)
    due = server.due_in_s(len(refs) + 1)
    assert due[1] <= 2.0
    assert due[2] > LONG_S - 5


def test_what_nobody_serves_comes_back_when_one_may(server: Redis) -> None:
    made = started(server.ledger, 10)
    (claim, *_) = claimed(server.ledger, 10)
    jobs = tuple(slip.index for slip in claim.slips)
    nobodys = parked(jobs, reason="no_provider_for_model", wait_for=(NOBODY,))
    server.ledger.split(claim.ref, claim.token, nobodys)
    assert {(w.reason, w.provider) for w in server.ledger.progress(made.id).waiting} == {
        ("no_provider_for_model", "")
    }
    server.gate.change("p1", "wake", settings=Breaker())
    assert min(server.due_in_s(1)) > LONG_S - 5
    server.gate.change(NOBODY, "wake", settings=Breaker())
    assert server.due_in_s(1)[0] < 0.1
    assert not server.client.exists(f"{server.prefix}:pv:{NOBODY}"), "nobody has no condition"


def test_who_was_told_to_wait_just_before_it_serves_again_does_not_miss_it(server: Redis) -> None:
    """The worker's word to the ledger comes after the provider's."""
    started(server.ledger, 20)
    early, late, *_ = claimed(server.ledger, 8)
    asked_at = server.now()
    server.gate.change("p1", "wake", settings=Breaker())
    for claim, at in ((early, asked_at), (late, asked_at + 60)):
        jobs = tuple(slip.index for slip in claim.slips)
        server.ledger.split(claim.ref, claim.token, parked(jobs, asked_at=at, soon_s=0.5))
    soon, later = server.due_in_s(2)
    assert soon <= 0.5
    assert later > LONG_S - 5


@pytest.mark.parametrize("took_s", [0.0, 0.01])
def test_a_success_after_a_refused_key_brings_all_back(server: Redis, took_s: float) -> None:
    """However long it took: even if the refusal has meanwhile been forgotten."""
    candidate = Candidate("p1", "p1", "k", "m")
    settings = Breaker(out_of_service_probe_s=0.001)

    def exchange(serial: int, asks: list[Ask], reports: list[Report]) -> None:
        server.gate.exchange(asks, reports, settings=settings, sender="s", serial=serial, spread=0.0)

    exchange(1, [], [Report("a", candidate, 0, "key", "invalid_api_key")])
    refs = park_some(server)
    exchange(2, [Ask("b", (candidate,))], [])
    asked = server.now()
    assert min(server.due_in_s(len(refs) + 1)) > LONG_S - 5
    wait_for(lambda: server.now() > asked + took_s, 5, "the call to take its time", every_s=0.001)
    exchange(3, [], [Report("b", candidate, 0, "answered")])
    assert max(server.due_in_s(len(refs) + 1)) <= 2.0
