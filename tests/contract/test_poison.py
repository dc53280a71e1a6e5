"""Jobs whose workers die: who counts it, who runs alone, who is to blame. On the memory twin and on a real Valkey."""

import itertools

import pytest
from support.ledgers import index, outcome, spec, worker
from support.lone import claim as claim_lone
from support.lone import job, result
from support.stores import Stores

from shared import suspects
from shared.jobs import Claim, History, Reaped, Split
from shared.reasons import Reason

LEASE_S = 0.2
LONG_S = 60.0
PAUSES_S = (0.0, 0.5, 0.7)
_serials = itertools.count(1)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "PAUSES_S", PAUSES_S)


def started(stores: Stores, total: int) -> str:
    """A batch, and the fleet's capacity, which is a worker's that holds nothing."""
    made = spec()
    stores.ledger.create(made)
    chore = stores.ledger.take_chore(5.0)
    assert chore is not None
    assert stores.ledger.start(chore, index=index(total), model="m")
    stores.ledger.beat(worker("idle"))
    return made.id


def claims(
    stores: Stores, size: int = 100, *, holder: str = "doomed", lease_s: float = LEASE_S
) -> list[Claim]:
    found = [
        stores.ledger.claim(ref, holder=holder, lease_s=lease_s)
        for ref in stores.ledger.feed(shard_size=size, most=100)
    ]
    return [claim for claim in found if claim is not None]


def jobs_of(claim: Claim) -> list[int]:
    return [slip.index for slip in claim.slips]


def finish(stores: Stores, claim: Claim, *jobs: int) -> None:
    outcomes = [outcome(job, claim=claim) for job in jobs]
    stores.ledger.finish(claim.batch_id, outcomes, writer="w", serial=next(_serials))


def die(stores: Stores) -> Reaped:
    """Whoever holds a lease has not been heard of when it ends."""
    stores.pass_time(LEASE_S + 0.05)
    stores.ledger.beat(worker("idle"))
    return stores.ledger.reap(most=100)


def history(stores: Stores, batch_id: str, job: int) -> History:
    found = stores.ledger.job(batch_id, job)
    assert found is not None
    return found.history


def to_the_lane(stores: Stores, total: int) -> str:
    """A batch all of whose jobs are suspects."""
    batch_id = started(stores, total)
    for _ in range(suspects.SUSPECT_FROM):
        assert sum(len(claim.slips) for claim in claims(stores)) == total
        die(stores)
    return batch_id


def test_every_open_job_of_a_dead_worker_counts_it_and_who_has_ended_does_not(stores: Stores) -> None:
    batch_id = started(stores, 4)
    (claim,) = claims(stores)
    finish(stores, claim, 1)
    assert die(stores).recovered == 1
    assert [history(stores, batch_id, n).recoveries for n in range(4)] == [1, 0, 1, 1]
    (again,) = claims(stores)
    assert jobs_of(again) == [0, 2, 3]
    assert {slip.history for slip in again.slips} == {History(recoveries=1, deaths=1)}


def test_a_worker_that_still_beats_or_has_said_goodbye_counts_nothing(stores: Stores) -> None:
    batch_id = started(stores, 1)
    claims(stores, holder="idle")
    assert die(stores).recovered == 1
    stores.ledger.beat(worker("leaving", 0))
    stores.ledger.retire("leaving")
    claims(stores, holder="leaving")
    assert die(stores).recovered == 1
    assert history(stores, batch_id, 0) == History()


def test_suspects_run_in_small_groups_one_at_a_time_in_the_whole_fleet(stores: Stores) -> None:
    batch_id = to_the_lane(stores, 10)
    (waiting,) = stores.ledger.progress(batch_id).waiting
    assert (waiting.reason, waiting.jobs) == (Reason.SUSPECT, 10)
    (first,) = claims(stores, holder="idle", lease_s=LONG_S)
    assert jobs_of(first) == list(range(8))
    assert claims(stores) == [], "one at a time"
    progress = stores.ledger.progress(batch_id)
    assert (progress.running, progress.waiting[0].jobs) == (8, 2)
    finish(stores, first, *range(7))
    assert claims(stores) == []
    finish(stores, first, 7)
    (second,) = claims(stores, holder="idle", lease_s=LONG_S)  # before the first has been released
    assert jobs_of(second) == [8, 9]


def test_a_hint_that_is_doubled_late_or_declined_lets_no_suspect_out_of_turn(stores: Stores) -> None:
    to_the_lane(stores, 10)
    (ref,) = stores.ledger.feed(shard_size=10, most=100)
    stores.pass_time(0.01)
    stores.ledger.decline(ref)
    assert stores.ledger.claim(ref, holder="w", lease_s=LONG_S) is None
    (other,) = stores.ledger.feed(shard_size=10, most=100)
    assert other != ref, "who has been turned away stands behind"
    assert stores.ledger.claim(ref, holder="w", lease_s=LONG_S) is None
    assert stores.ledger.claim(other, holder="w", lease_s=LONG_S) is not None


def test_a_group_whose_worker_dies_runs_singly_and_three_deaths_alone_are_to_blame(stores: Stores) -> None:
    batch_id = to_the_lane(stores, 3)
    (group,) = claims(stores)
    assert jobs_of(group) == [0, 1, 2]
    found = die(stores)
    assert [(s.recoveries, s.alone) for s in found.suspects] == [(3, 0)] * 3
    for n in range(2):  # the innocent end, the third kills
        (innocent,) = claims(stores, holder="idle", lease_s=LONG_S)
        assert jobs_of(innocent) == [n]
        finish(stores, innocent, n)
    for alone, pause_s in ((1, PAUSES_S[1]), (2, PAUSES_S[2])):
        (claim,) = claims(stores)
        assert jobs_of(claim) == [2]
        die(stores)
        assert history(stores, batch_id, 2) == History(recoveries=3 + alone, alone=alone, deaths=1)
        assert claims(stores) == [], "it waits a moment"
        stores.pass_time(pause_s)
    claims(stores)
    assert die(stores).suspects == (), "no suspect any more"
    (last,) = claims(stores, holder="idle", lease_s=LONG_S)
    assert last.slips[0].history == History(recoveries=6, alone=3, deaths=1)
    assert suspects.is_blamed(last.slips[0].history)


def test_while_workers_die_of_something_else_too_a_death_alone_proves_nothing(stores: Stores) -> None:
    """Those that had no suspect, that is; here they have a lone job."""
    batch_id, other = to_the_lane(stores, 1), job()
    for n in range(6):
        (claim,) = claims(stores, holder=f"mine-{n}")
        assert jobs_of(claim) == [0]
        if n < 4:
            other = job()
            stores.lone.submit([other])
            stores.lone.claim(waited=1, rest=1, holder=f"other-{n}", lease_s=LEASE_S)
        stores.pass_time(LEASE_S + 0.05)
        stores.lone.reap(most=10)
        stores.lone.finish([result(other.spec.id)], writer="w", serial=next(_serials))
        die(stores)
        assert history(stores, batch_id, 0).alone == max(0, n - 3)
        stores.pass_time(PAUSES_S[-1])
    assert history(stores, batch_id, 0).recoveries == suspects.SUSPECT_FROM + 6


def test_the_last_of_a_group_was_alone(stores: Stores) -> None:
    batch_id = to_the_lane(stores, 3)
    (claim,) = claims(stores)
    finish(stores, claim, 0, 1)
    die(stores)
    assert history(stores, batch_id, 2) == History(recoveries=3, alone=1, deaths=1)


@pytest.mark.parametrize("kind", ["retry", "park"])
def test_who_was_called_and_killed_nobody_leaves_the_lane_and_keeps_its_counts(
    stores: Stores, kind: str
) -> None:
    batch_id = to_the_lane(stores, 9)
    (claim,) = claims(stores, lease_s=LONG_S)
    moved = Split(kind=kind, jobs=tuple(jobs_of(claim)), delay_s=0.0, provider="p")  # type: ignore[arg-type]
    ref = stores.ledger.split(claim.ref, claim.token, moved)
    assert ref is not None
    (other,) = claims(stores, lease_s=LONG_S)
    assert jobs_of(other) == [8], "the lane is free"
    again = stores.ledger.claim(ref, holder="idle", lease_s=LONG_S)
    assert again is not None
    assert {slip.history.recoveries for slip in again.slips} == {2}
    assert history(stores, batch_id, 8).recoveries == 2


def test_who_could_not_be_called_is_a_suspect_still(stores: Stores) -> None:
    to_the_lane(stores, 1)
    (claim,) = claims(stores, lease_s=LONG_S)
    waits = Split(
        kind="park", jobs=(0,), delay_s=0.1, charged=False, blocked=True, reason=Reason.BREAKER_OPEN
    )
    ref = stores.ledger.split(claim.ref, claim.token, waits)
    assert ref is not None
    stores.pass_time(0.15)
    assert stores.ledger.claim(ref, holder="idle", lease_s=LONG_S) is None
    assert stores.ledger.reap(most=10).woken == 1
    (again,) = claims(stores)
    assert again.ref == ref
    die(stores)
    assert history(stores, again.batch_id, 0).alone == 1


@pytest.mark.parametrize(
    "way", ["finished", "released", "lapsed", "hint lost", "cancelled", "cancelled and released", "ended"]
)
def test_the_lane_is_free_whichever_way_a_shard_leaves_it(
    stores: Stores, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other batch's suspect is next, whatever has become of the first."""
    monkeypatch.setattr("shared.ledger.HINT_TIMEOUT_S", LEASE_S)
    monkeypatch.setattr("shared.ledger.CLOSING_GRACE_S", LEASE_S)
    stuck, other = started(stores, 1), started(stores, 1)
    for _ in range(suspects.SUSPECT_FROM):
        assert len(claims(stores)) == 2
        die(stores)
    (ref,) = stores.ledger.feed(shard_size=10, most=100)
    stuck, other = (stuck, other) if ref.startswith(stuck) else (other, stuck)
    if way != "hint lost":
        claim = stores.ledger.claim(ref, holder="idle", lease_s=LEASE_S if way == "lapsed" else LONG_S)
        assert claim is not None
        if way == "finished":
            finish(stores, claim, 0)
        if way in {"cancelled", "cancelled and released", "ended"}:
            stores.ledger.cancel(stuck)
        stores.pass_time(0.01)
        if way in {"released", "cancelled and released"}:
            stores.ledger.release(claim.ref, claim.token)
    stores.pass_time(LEASE_S + 0.05)
    stores.ledger.beat(worker("idle"))
    stores.ledger.reap(most=10)
    if way == "ended":
        chore = stores.ledger.take_chore(5.0)
        assert chore is not None
        assert stores.ledger.seal(chore, 0)
        assert stores.ledger.end(chore) is not None
    found = [claim.batch_id for claim in claims(stores, lease_s=LONG_S)]
    assert found == ([] if way == "cancelled" else [other]), "a cancelled batch's call is under way still"


def test_a_suspect_of_a_batch_that_closes_does_not_stand_in_the_way(stores: Stores) -> None:
    batches = [started(stores, 1), started(stores, 1)]
    for _ in range(suspects.SUSPECT_FROM):
        claims(stores)
        die(stores)
    stores.ledger.cancel(min(batches))
    assert [claim.batch_id for claim in claims(stores)] == [max(batches)]


# lone jobs


def test_a_lone_suspect_runs_singly_and_three_deaths_alone_are_to_blame(stores: Stores) -> None:
    lone = stores.lone
    bad, good = job(), job()
    lone.submit([bad, good])
    for n in range(suspects.SUSPECT_FROM):
        assert len(claim_lone(lone, lease_s=LEASE_S).slips) == 2, n
        stores.pass_time(LEASE_S + 0.05)
        lone.reap(most=10)
    found = lone.get(good.spec.id)
    assert found is not None
    assert found.waiting is not None
    assert (found.waiting.reason, found.history) == (Reason.SUSPECT, History(recoveries=2, deaths=1))
    plain = job()
    lone.submit([plain])
    first = claim_lone(lone)
    assert [slip.id for slip in first.slips] == [min(bad.spec.id, good.spec.id)]
    second = claim_lone(lone)
    assert [slip.id for slip in second.slips] == [plain.spec.id], "the lane is taken"
    assert lone.claim(waited=9, rest=9, holder="w", lease_s=9) is None
    lone.finish([result(first.slips[0].id)], writer="w", serial=1)
    for alone in (1, 2, 3):
        killer = claim_lone(lone, lease_s=LEASE_S)
        assert len(killer.slips) == 1
        stores.pass_time(LEASE_S + 0.05)
        told = lone.reap(most=10).suspects
        assert [(s.recoveries, s.alone) for s in told] == ([(2 + alone, alone)] if alone < 3 else [])
        if alone < 3:
            assert lone.claim(waited=9, rest=9, holder="w", lease_s=9) is None, "it waits a moment"
            stores.pass_time(PAUSES_S[alone])
    blamed = claim_lone(lone)
    assert blamed.slips[0].history == History(recoveries=5, alone=3, deaths=1)
    assert suspects.is_blamed(blamed.slips[0].history)


@pytest.mark.parametrize("way", ["finished", "released", "lapsed", "cancelled", "split"])
def test_the_lane_is_free_whichever_way_a_lone_job_leaves_it(stores: Stores, way: str) -> None:
    lone = stores.lone
    lone.submit([job(), job()])
    for _ in range(suspects.SUSPECT_FROM):
        claim_lone(lone, lease_s=LEASE_S)
        stores.pass_time(LEASE_S + 0.05)
        lone.reap(most=10)
    stuck = claim_lone(lone, lease_s=LEASE_S if way == "lapsed" else LONG_S)
    (slip,) = stuck.slips
    assert lone.claim(waited=9, rest=9, holder="w1", lease_s=LONG_S) is None
    stores.pass_time(0.01)
    if way == "finished":
        lone.finish([result(slip.id)], writer="w", serial=1)
    if way == "released":
        lone.release(stuck.ref, stuck.token)
    if way == "cancelled":
        lone.cancel(slip.id)
    if way == "split":
        lone.split(stuck.ref, stuck.token, Split(kind="retry", jobs=(slip.id,), delay_s=0.0))
    if way == "lapsed":
        stores.pass_time(LEASE_S + 0.05)
        lone.reap(most=10)
    found = claim_lone(lone, lease_s=LONG_S)
    assert [s.id for s in found.slips] != [slip.id]
    assert len(found.slips) == 1


def test_a_lone_suspect_and_one_of_a_batch_share_the_lane(stores: Stores) -> None:
    to_the_lane(stores, 1)
    stores.lone.submit([job()])
    for _ in range(suspects.SUSPECT_FROM):
        claim_lone(stores.lone, lease_s=LEASE_S)
        stores.pass_time(LEASE_S + 0.05)
        stores.lone.reap(most=10)
    assert stores.lone.claim(waited=9, rest=9, holder="w", lease_s=LONG_S) is None, "the batch's came first"
    (first,) = claims(stores, lease_s=LONG_S)
    assert stores.lone.claim(waited=9, rest=9, holder="w", lease_s=LONG_S) is None
    finish(stores, first, 0)
    assert stores.lone.wants_hint()
    assert len(claim_lone(stores.lone).slips) == 1
