"""What every ledger must do, on the memory twin and on a real Valkey."""

from collections.abc import Iterator

import msgspec
import pytest
from support.ledgers import index, outcome, spec, worker
from support.stores import Stores

from shared import forbearance, redis_ledger
from shared.jobs import (
    SEGMENT,
    Batch,
    BatchSpec,
    BatchStatus,
    Chore,
    Claim,
    Fault,
    Outcome,
    Split,
    Usage,
)
from shared.ledger import Ledger

LEASE_S = 0.3


def take(ledger: Ledger, batch_id: str) -> Chore:
    chore = ledger.take_chore(5.0)
    assert chore is not None
    assert chore.batch_id == batch_id
    return chore


def started(stores: Stores, total: int, **changes: object) -> BatchSpec:
    made = spec(**changes)
    stores.ledger.create(made)
    assert stores.ledger.start(take(stores.ledger, made.id), index=index(total), model="m")
    return made


def feed(stores: Stores, size: int = 10, most: int = 100) -> list[str]:
    return stores.ledger.feed(shard_size=size, most=most)


def claimed(stores: Stores, size: int = 10, lease_s: float = 30.0) -> Iterator[Claim]:
    for ref in feed(stores, size):
        claim = stores.ledger.claim(ref, holder="w1", lease_s=lease_s)
        assert claim is not None
        yield claim


def view(stores: Stores, batch_id: str) -> Batch:
    found = stores.ledger.get(batch_id)
    assert found is not None
    return found


def test_a_batch_goes_from_validating_to_completed(stores: Stores) -> None:
    ledger = stores.ledger
    made = spec(metadata={"a": "b"})
    first = ledger.create(made)
    assert (first.status, first.total, first.spec.metadata) == (BatchStatus.VALIDATING, 0, {"a": "b"})
    assert first.at.expires_at - first.at.created_at in {86400, 86401}
    assert ledger.create(made) == first
    chore = take(ledger, made.id)
    assert chore.kind == "validate"
    assert ledger.take_chore(5.0) is None
    assert ledger.keep_chore(chore, 5.0)
    assert ledger.start(chore, index=index(3), model="m")
    assert not ledger.start(chore, index=index(3), model="m")
    ledger.beat(worker())
    (claim,) = claimed(stores)
    assert [(s.index, s.offset, s.length) for s in claim.slips] == [(0, 0, 9), (1, 10, 9), (2, 20, 9)]
    assert claim.expires_at == first.at.expires_at
    done = ledger.finish(
        made.id,
        [outcome(0, claim=claim), outcome(1, ok=False, claim=claim), outcome(2, claim=claim)],
        writer="w1",
        serial=1,
    )
    assert done.accepted == (True, True, True)
    assert done.segments == (0,)
    assert not done.open
    assert view(stores, made.id).status is BatchStatus.FINALIZING
    assert ledger.release(claim.ref, claim.token)
    final = take(ledger, made.id)
    assert final.kind == "finalize"
    segment = ledger.segment(made.id, 0)
    assert segment.states == "dfd"
    assert segment.results == {i: f"line {i}\n".encode() for i in range(3)}
    assert ledger.roll_up(made.id, 0, output=(2, 14), errors=(1, 7))
    assert not ledger.roll_up(made.id, 0, output=(2, 14), errors=(1, 7))
    ended = ledger.end(final)
    assert ended is not None
    assert (ended.status, ended.total, ended.completed, ended.failed) == (BatchStatus.COMPLETED, 3, 2, 1)
    assert (ended.output_lines, ended.output_bytes, ended.error_lines) == (2, 14, 1)
    assert ended.usage == Usage(input_tokens=30, output_tokens=15, cached_tokens=6, reasoning_tokens=3)
    assert (ended.tallies["p1"].completed, ended.tallies["p1"].failed, ended.tallies["p1"].cost_nanos) == (
        2,
        1,
        21,
    )
    assert None not in (ended.at.in_progress_at, ended.at.finalizing_at, ended.at.completed_at)
    assert ledger.take_chore(5.0) is None


def test_faults_fail_a_batch(stores: Stores) -> None:
    made = spec()
    stores.ledger.create(made)
    chore = take(stores.ledger, made.id)
    faults = [Fault(code="invalid_json_line", message="no JSON", line=3)]
    assert stores.ledger.reject(chore, faults)
    batch = view(stores, made.id)
    assert (batch.status, batch.errors) == (BatchStatus.FAILED, tuple(faults))
    assert not stores.ledger.start(chore, index=index(1), model=None)


def test_only_a_jobs_first_outcome_counts_but_all_usage_is_booked(stores: Stores) -> None:
    made = started(stores, 2)
    stores.ledger.beat(worker())
    (claim,) = claimed(stores)
    assert stores.ledger.finish(made.id, [outcome(0)], writer="w1", serial=1).accepted == (True,)
    twice = stores.ledger.finish(made.id, [outcome(0, ok=False), outcome(0)], writer="w2", serial=1)
    assert twice.accepted == (False, False)
    batch = view(stores, made.id)
    assert (batch.completed, batch.failed) == (1, 0)
    assert batch.tallies["p1"].usage.input_tokens == 30
    assert batch.tallies["p1"].cost_nanos == 21
    assert claim.slips


def test_a_repeated_finish_gets_the_first_answer_and_counts_nothing(stores: Stores) -> None:
    made = started(stores, 2)
    first = stores.ledger.finish(made.id, [outcome(0)], writer="w1", serial=1)
    again = stores.ledger.finish(made.id, [outcome(0)], writer="w1", serial=1)
    assert first == again
    assert view(stores, made.id).tallies["p1"].usage.input_tokens == 10


def test_a_stale_holder_may_finish_but_not_renew_split_or_release(stores: Stores) -> None:
    made = started(stores, 4)
    stores.ledger.beat(worker())
    (old,) = claimed(stores, lease_s=LEASE_S)
    stores.pass_time(LEASE_S + 0.05)
    assert stores.ledger.reap(most=10).recovered == 1
    (ref,) = feed(stores)
    new = stores.ledger.claim(ref, holder="w2", lease_s=30.0)
    assert new is not None
    assert new.ref == old.ref
    assert new.token > old.token
    assert stores.ledger.renew([(old.ref, old.token), (new.ref, new.token)], lease_s=30.0) == ["lost", "held"]
    assert stores.ledger.split(old.ref, old.token, Split(kind="retry", jobs=(0,), delay_s=0.0)) is None
    assert not stores.ledger.release(old.ref, old.token)
    assert stores.ledger.finish(made.id, [outcome(0, claim=old)], writer="w1", serial=1).accepted == (True,)
    assert stores.ledger.finish(made.id, [outcome(0, claim=new)], writer="w2", serial=1).accepted == (False,)


def test_a_claimed_shard_is_nobody_elses(stores: Stores) -> None:
    started(stores, 4)
    stores.ledger.beat(worker())
    (ref,) = feed(stores)
    assert stores.ledger.claim(ref, holder="w1", lease_s=30.0) is not None
    assert stores.ledger.claim(ref, holder="w2", lease_s=30.0) is None


def test_without_workers_nothing_is_fed(stores: Stores) -> None:
    started(stores, 4)
    assert feed(stores) == []
    stores.ledger.beat(worker())
    assert len(feed(stores)) == 1
    stores.ledger.retire("w1")
    assert stores.ledger.workers() == []


def test_the_fleet_wants_what_its_workers_want(stores: Stores) -> None:
    """Its capacity is not added up anew by a beat that changes nothing."""
    started(stores, 200)
    jobs = 0
    for wanted, name, capacity in ((10, "w1", 10), (30, "w2", 20), (30, "w1", 10), (50, "w1", 30)):
        stores.ledger.beat(worker(name, capacity))
        jobs += len(feed(stores, size=1))
        assert jobs == wanted
    stores.ledger.retire("w2")
    stores.ledger.beat(worker("w1", 30))
    assert feed(stores, size=1) == []
    stores.ledger.beat(worker("w2", 25))
    assert len(feed(stores, size=1)) == 5


def test_feeding_stops_at_capacity_and_goes_on_as_jobs_end(stores: Stores) -> None:
    made = started(stores, 100)
    stores.ledger.beat(worker(capacity=20))
    refs = feed(stores, size=10)
    assert len(refs) == 2
    assert feed(stores, size=10) == []
    claim = stores.ledger.claim(refs[0], holder="w1", lease_s=30.0)
    assert claim is not None
    jobs = [outcome(slip.index, claim=claim) for slip in claim.slips]
    assert stores.ledger.finish(made.id, jobs, writer="w1", serial=1).hungry
    assert len(feed(stores, size=10)) == 1


def test_batches_share_the_fleet_in_turn(stores: Stores) -> None:
    made = [started(stores, 1000).id for _ in range(3)]
    stores.ledger.beat(worker(capacity=60))
    turns = [ref.rpartition("/")[0] for ref in feed(stores, size=10)]
    assert turns == [*made, *made]


def test_shards_shrink_towards_the_end(stores: Stores) -> None:
    started(stores, 100)
    stores.ledger.beat(worker("w1"))
    stores.ledger.beat(worker("w2"))
    sizes = [len(claim.slips) for claim in claimed(stores, size=50)]
    assert sum(sizes) == 100
    assert sizes[0] == 25
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes[:-1]) >= 8


def test_a_retry_waits_for_its_time_and_is_charged(stores: Stores) -> None:
    made = started(stores, 3)
    stores.ledger.beat(worker())
    (claim,) = claimed(stores)
    ref = stores.ledger.split(
        claim.ref, claim.token, Split(kind="retry", jobs=(1,), delay_s=0.2, provider="p1")
    )
    assert ref is not None
    assert stores.ledger.claim(ref, holder="w1", lease_s=30.0) is None
    stores.pass_time(0.21)
    retry = stores.ledger.claim(ref, holder="w1", lease_s=30.0)
    assert retry is not None
    (slip,) = retry.slips
    assert (slip.index, slip.history.attempts, slip.history.tried) == (1, 1, ("p1",))
    assert slip.history.since == pytest.approx(claim.claimed_at, abs=0.01)
    assert stores.ledger.release(claim.ref, claim.token)
    assert view(stores, made.id).status is BatchStatus.IN_PROGRESS


def test_an_overdue_retry_is_taken_over_by_the_reaper(stores: Stores) -> None:
    started(stores, 3)
    stores.ledger.beat(worker())
    (claim,) = claimed(stores)
    ref = stores.ledger.split(claim.ref, claim.token, Split(kind="retry", jobs=(0, 1), delay_s=0.1))
    stores.pass_time(0.5)
    assert not stores.ledger.reap(most=10).any
    stores.pass_time(0.7)
    assert stores.ledger.reap(most=10).woken == 1
    assert feed(stores) == [ref]


def test_parking_charges_nothing_and_wakes_when_due(stores: Stores) -> None:
    started(stores, 1)
    stores.ledger.beat(worker())
    (claim,) = claimed(stores)
    split = Split(kind="park", jobs=(0,), delay_s=0.1, provider="p1", charged=False, anew=True)
    ref = stores.ledger.split(claim.ref, claim.token, split)
    assert stores.ledger.release(claim.ref, claim.token)
    stores.pass_time(0.15)
    assert stores.ledger.reap(most=10).woken == 1
    (again,) = claimed(stores)
    assert again.ref == ref
    assert (again.slips[0].history.attempts, again.slips[0].history.parked) == (0, 1)


def test_what_comes_back_and_what_is_fresh_go_by_turns(stores: Stores) -> None:
    """Even where there is room for one shard at a time: jobs that wait again and again must not keep others from their first try."""
    late, fresh = started(stores, 60), started(stores, 60)
    stores.ledger.beat(worker(capacity=1))
    turns = []
    for _ in range(12):
        (ref,) = feed(stores, size=5)
        claim = stores.ledger.claim(ref, holder="w1", lease_s=30.0)
        assert claim is not None
        turns.append(ref.rpartition("/")[0])
        if turns[-1] == late.id:
            jobs = tuple(slip.index for slip in claim.slips)
            split = Split(kind="park", jobs=jobs, delay_s=0.01, provider="p1", charged=False, anew=True)
            stores.ledger.split(claim.ref, claim.token, split)
            stores.ledger.release(claim.ref, claim.token)
            stores.pass_time(0.05)
            stores.ledger.reap(most=10)
        else:
            done = [outcome(slip.index, claim=claim) for slip in claim.slips]
            stores.ledger.finish(fresh.id, done, writer="w1", serial=len(turns))
            stores.ledger.release(claim.ref, claim.token)
    assert turns.count(fresh.id) >= 3


def test_a_lost_hint_is_sent_again(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.ledger.HINT_TIMEOUT_S", 0.1)
    started(stores, 3)
    stores.ledger.beat(worker())
    refs = feed(stores)
    assert feed(stores) == []
    stores.pass_time(0.15)
    assert stores.ledger.reap(most=10).rehinted == 1
    assert feed(stores) == refs


def test_a_declined_hint_is_sent_again(stores: Stores) -> None:
    started(stores, 3)
    stores.ledger.beat(worker())
    refs = feed(stores)
    stores.ledger.decline(refs[0])
    assert feed(stores) == refs


def test_releasing_hands_back_what_has_not_ended(stores: Stores) -> None:
    made = started(stores, 3)
    stores.ledger.beat(worker())
    (claim,) = claimed(stores)
    stores.ledger.finish(made.id, [outcome(1, claim=claim)], writer="w1", serial=1)
    assert stores.ledger.release(claim.ref, claim.token)
    (again,) = claimed(stores)
    assert [slip.index for slip in again.slips] == [0, 2]


def test_cancel_waits_for_leases_then_seals_the_rest(stores: Stores) -> None:
    made = started(stores, 20)
    stores.ledger.beat(worker(capacity=10))
    (claim,) = claimed(stores)
    cancelled = stores.ledger.cancel(made.id)
    assert cancelled is not None
    assert cancelled.status is BatchStatus.CANCELLING
    assert stores.ledger.cancel(made.id) == cancelled
    assert stores.ledger.take_chore(5.0) is None
    assert stores.ledger.renew([(claim.ref, claim.token)], lease_s=30.0) == ["closing"]
    assert stores.ledger.finish(made.id, [outcome(0, claim=claim)], writer="w1", serial=1).accepted == (True,)
    assert stores.ledger.release(claim.ref, claim.token)
    assert feed(stores) == []
    chore = take(stores.ledger, made.id)
    assert not stores.ledger.roll_up(made.id, 0, output=(0, 0), errors=(0, 0))
    assert stores.ledger.seal(chore, 0)
    assert stores.ledger.segment(made.id, 0).states == "d" + 19 * "c"
    assert stores.ledger.roll_up(made.id, 0, output=(1, 1), errors=(19, 19))
    ended = stores.ledger.end(chore)
    assert ended is not None
    assert (ended.status, ended.completed, ended.failed) == (BatchStatus.CANCELLED, 1, 19)
    late = stores.ledger.finish(made.id, [outcome(1)], writer="w1", serial=2)
    assert late.accepted == (False,)
    assert view(stores, made.id).tallies["p1"].usage.input_tokens == 20


def test_a_batch_that_has_come_to_its_max_cost_says_so_and_so_do_its_jobs(stores: Stores) -> None:
    made = started(stores, 20)
    stores.ledger.beat(worker(capacity=10))
    (claim,) = claimed(stores)
    stores.ledger.finish(made.id, [outcome(0, claim=claim)], writer="w1", serial=1)
    fault = Fault(code="max_cost_reached", message="spent", param="max_cost")
    ending = stores.ledger.cancel(made.id, fault)
    assert ending is not None
    assert (ending.status, ending.errors) == (BatchStatus.CANCELLING, (fault,))
    assert stores.ledger.cancel(made.id) == ending, "who cancels it then changes nothing"
    stores.ledger.release(claim.ref, claim.token)
    assert feed(stores) == []
    chore = take(stores.ledger, made.id)
    assert stores.ledger.seal(chore, 0)
    assert stores.ledger.segment(made.id, 0).states == "d" + 19 * "m"
    assert stores.ledger.roll_up(made.id, 0, output=(1, 1), errors=(19, 19))
    ended = stores.ledger.end(chore)
    assert ended is not None
    assert (ended.status, ended.completed, ended.failed) == (BatchStatus.CANCELLED, 1, 19)
    assert ended.errors == (fault,)


def test_a_claim_says_whose_money_it_spends(stores: Stores) -> None:
    started(stores, 2, owner="alice", max_cost_nanos=10**9)
    stores.ledger.beat(worker())
    (claim,) = claimed(stores)
    assert (claim.owner, claim.max_cost_nanos) == ("alice", 10**9)


def test_a_closing_batch_does_not_wait_for_a_dead_worker(stores: Stores) -> None:
    made = started(stores, 2)
    stores.ledger.beat(worker())
    list(claimed(stores, lease_s=LEASE_S))
    stores.ledger.cancel(made.id)
    assert stores.ledger.take_chore(5.0) is None
    stores.pass_time(LEASE_S + 0.05)
    stores.ledger.reap(most=10)
    assert take(stores.ledger, made.id).kind == "finalize"


def test_leases_that_ran_out_while_nobody_reaped_wait_a_moment_for_their_holders(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence_s, forbear_s = 0.5, 0.3
    for module in (forbearance, redis_ledger):
        monkeypatch.setattr(module, "SILENCE_S", silence_s)
        monkeypatch.setattr(module, "FORBEAR_S", forbear_s)
    made = started(stores, 2)
    stores.ledger.beat(worker())
    alive, dead = claimed(stores, 1, LEASE_S)
    stores.ledger.reap(most=10)
    stores.pass_time(silence_s + LEASE_S)  # Redis was silent, say
    assert stores.ledger.reap(most=10).recovered == 0
    assert stores.ledger.renew([(alive.ref, alive.token)], lease_s=60) == ["held"]
    stores.pass_time(forbear_s + 0.05)
    assert stores.ledger.reap(most=10).recovered == 1
    assert stores.ledger.renew([(dead.ref, dead.token)], lease_s=60) == ["lost"]
    assert view(stores, made.id).status is BatchStatus.IN_PROGRESS


def test_a_window_that_ends_closes_the_batch(stores: Stores) -> None:
    made = started(stores, 2, window_s=0.2)
    stores.pass_time(0.25)
    assert stores.ledger.reap(most=10).expired == 1
    chore = take(stores.ledger, made.id)
    assert view(stores, made.id).status is BatchStatus.FINALIZING
    assert stores.ledger.seal(chore, 0)
    ended = stores.ledger.end(chore)
    assert ended is not None
    assert (ended.status, ended.failed) == (BatchStatus.EXPIRED, 2)
    assert ended.at.expired_at is not None


def test_a_chore_passes_on_when_its_holder_is_silent(stores: Stores) -> None:
    made = spec()
    stores.ledger.create(made)
    first = stores.ledger.take_chore(LEASE_S)
    assert first is not None
    assert stores.ledger.take_chore(5.0) is None
    stores.pass_time(LEASE_S + 0.05)
    second = take(stores.ledger, made.id)
    assert not stores.ledger.keep_chore(first, 5.0)
    assert not stores.ledger.start(first, index=index(1), model=None)
    assert not stores.ledger.reject(first, [])
    assert stores.ledger.start(second, index=index(1), model=None)


def test_cancelling_while_validating(stores: Stores) -> None:
    made = spec()
    stores.ledger.create(made)
    chore = take(stores.ledger, made.id)
    stores.ledger.cancel(made.id)
    assert not stores.ledger.start(chore, index=index(3), model=None)
    ended = stores.ledger.end(take(stores.ledger, made.id))
    assert ended is not None
    assert (ended.status, ended.total) == (BatchStatus.CANCELLED, 0)


def test_pages_run_from_new_to_old_and_skip_other_owners(stores: Stores) -> None:
    ids = []
    for n in range(5):
        made = spec(id=f"batch_{n}")
        stores.ledger.create(made)
        ids.append(made.id)
    stores.ledger.create(spec(owner="somebody"))
    page, more = stores.ledger.page("default", after=None, limit=2)
    assert ([b.spec.id for b in page], more) == ([ids[4], ids[3]], True)
    page, more = stores.ledger.page("default", after=ids[3], limit=3)
    assert ([b.spec.id for b in page], more) == ([ids[2], ids[1], ids[0]], False)
    assert stores.ledger.page("nobody", after=None, limit=2) == ([], False)


def test_segments_are_reported_when_they_are_whole(stores: Stores) -> None:
    made = started(stores, SEGMENT + 2)
    first = [outcome(i) for i in range(SEGMENT - 1)]
    assert stores.ledger.finish(made.id, first, writer="w1", serial=1).segments == ()
    rest = [outcome(SEGMENT - 1), outcome(SEGMENT)]
    assert stores.ledger.finish(made.id, rest, writer="w1", serial=2).segments == (0,)
    assert stores.ledger.segment(made.id, 1).states == "dp"
    assert stores.ledger.segment(made.id, 1).first == SEGMENT


def test_who_has_answered_since(stores: Stores) -> None:
    made = started(stores, 2)
    stores.ledger.beat(worker())
    (claim,) = claimed(stores)
    assert not stores.ledger.answered_since(["p1"], claim.claimed_at)
    stores.pass_time(0.01)
    stores.ledger.finish(made.id, [outcome(0, ok=False)], writer="w1", serial=1)
    assert not stores.ledger.answered_since(["p1"], claim.claimed_at)
    began_before = msgspec.structs.replace(outcome(1), began_at=claim.claimed_at - 1.0)
    stores.ledger.finish(made.id, [began_before], writer="w1", serial=2)
    assert not stores.ledger.answered_since(["p1"], claim.claimed_at)
    began_after = msgspec.structs.replace(outcome(1), began_at=claim.claimed_at + 0.001)
    stores.ledger.finish(made.id, [began_after], writer="w1", serial=3)
    assert stores.ledger.answered_since(["p0", "p1"], claim.claimed_at)
    assert not stores.ledger.answered_since(["p0"], claim.claimed_at)
    stores.ledger.finish(made.id, [began_before], writer="w1", serial=4)  # it came late
    assert stores.ledger.answered_since(["p1"], claim.claimed_at)


def test_jobs_of_a_worker_that_is_not_heard_of_wait_for_the_end_of_its_lease(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.ledger.HEARTBEAT_TIMEOUT_S", 0.2)
    made = started(stores, 3)
    stores.ledger.beat(worker())
    (claim,) = claimed(stores)
    progress = stores.ledger.progress(made.id)
    assert (progress.running, progress.waiting) == (3, ())
    stores.pass_time(0.25)
    silent = stores.ledger.progress(made.id)
    assert silent.running == 0
    (waiting,) = silent.waiting
    assert (waiting.reason, waiting.provider, waiting.jobs) == ("worker_silent", "", 3)
    assert waiting.since <= claim.claimed_at < waiting.until
    stores.ledger.beat(worker())
    assert stores.ledger.progress(made.id).running == 3


def test_a_lone_jobs_answer_speaks_for_its_provider_too(stores: Stores) -> None:
    answered = Outcome(index=0, id="job_1", ok=True, line=b"{}", provider="p1", began_at=10.0)
    stores.lone.finish([answered], writer="w1", serial=1)
    assert stores.ledger.answered_since(["p1"], 9.0)
    assert not stores.ledger.answered_since(["p1"], 10.0)


def test_one_process_leads(stores: Stores) -> None:
    assert stores.ledger.lead("a", 0.2)
    assert not stores.ledger.lead("b", 0.2)
    assert stores.ledger.lead("a", 0.2)
    stores.pass_time(0.25)
    assert stores.ledger.lead("b", 0.2)
    assert not stores.ledger.lead("a", 0.2)
