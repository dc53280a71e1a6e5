"""What is newer than a process reads is left for others, and nothing else waits for it: on the memory twin and on a real Valkey."""

import itertools

import msgspec
import pytest
from support.ledgers import index, outcome, spec, worker
from support.lone import claim, ids, job, result
from support.stores import Stores
from support.versions import age_batch, age_job

from shared.errors import NewerRecordError
from shared.jobs import BatchStatus, Waiting
from shared.ledger import HINT_TIMEOUT_S
from shared.lone import JobStatus
from shared.reasons import Reason
from shared.versions import LOOK_AGAIN_S, VERSION

NEXT = VERSION + 1
LATER_S = LOOK_AGAIN_S + 0.05

_serials = itertools.count(1)


def running(stores: Stores, total: int, *, v: int = VERSION) -> str:
    made = spec()
    stores.ledger.create(made)
    chore = stores.ledger.take_chore(5.0)
    assert chore is not None
    assert stores.ledger.start(chore, index=index(total), model="m")
    age_batch(stores, made.id, v)
    return made.id


def fed(stores: Stores) -> list[str]:
    """The batches of the shards that are to be hinted at."""
    return [ref.rpartition("/")[0] for ref in refs(stores)]


def refs(stores: Stores) -> list[str]:
    return stores.ledger.feed(shard_size=8, most=100)


def beat(stores: Stores, name: str, reads: int, capacity: int = 10_000) -> None:
    stores.ledger.beat(msgspec.structs.replace(worker(name, capacity), reads=reads))


def test_what_is_made_bears_the_version(stores: Stores) -> None:
    found = stores.ledger.get(running(stores, 1))
    assert found is not None
    assert found.v == VERSION


def test_a_batch_that_no_worker_reads_is_not_cut_and_others_are(stores: Stores) -> None:
    newer, known = running(stores, 80, v=NEXT), running(stores, 16)
    beat(stores, "old", VERSION)
    assert fed(stores) == [known] * 2
    assert fed(stores) == []
    progress = stores.ledger.progress(newer)
    assert (progress.queued, progress.waiting) == (80, ())
    beat(stores, "new", NEXT)
    assert fed(stores) == [newer] * 10


def test_when_the_last_that_reads_it_has_gone_what_was_cut_waits(stores: Stores) -> None:
    newer = running(stores, 16, v=NEXT)
    beat(stores, "old", VERSION)
    beat(stores, "new", NEXT)
    first, second = refs(stores)
    held = stores.ledger.claim(first, holder="new", lease_s=30, reads=NEXT)
    assert held is not None
    assert stores.ledger.release(first, held.token)
    stores.ledger.decline(second)
    stores.ledger.retire("new")
    assert refs(stores) == []
    (waiting,) = stores.ledger.progress(newer).waiting
    assert (waiting.reason, waiting.jobs) == (Reason.NEWER, 16)
    assert refs(stores) == [], "it is looked at again a little later, not at once"
    beat(stores, "new", NEXT)
    stores.pass_time(LATER_S)
    stores.ledger.reap(most=100)
    assert sorted(refs(stores)) == sorted([first, second])


def test_a_claim_leaves_a_newer_shard_and_says_so(stores: Stores) -> None:
    newer = running(stores, 8, v=NEXT)
    beat(stores, "old", VERSION)
    beat(stores, "new", NEXT)
    (ref,) = refs(stores)
    with pytest.raises(NewerRecordError) as caught:
        stores.ledger.claim(ref, holder="old", lease_s=30)
    assert (caught.value.met, caught.value.reads) == (NEXT, VERSION)
    assert stores.ledger.claim(ref, holder="new", lease_s=30, reads=NEXT) is None, "not before it is due"
    assert (refs(stores), stores.ledger.reap(most=100).woken) == ([], 0)
    since = stores.ledger.progress(newer).waiting[0].since
    stores.pass_time(LATER_S)
    assert stores.ledger.reap(most=100).woken == 1
    assert refs(stores) == [ref]
    with pytest.raises(NewerRecordError):
        stores.ledger.claim(ref, holder="old", lease_s=30)
    assert stores.ledger.progress(newer).waiting[0].since == since
    stores.pass_time(LATER_S)
    found = stores.ledger.claim(ref, holder="new", lease_s=30, reads=NEXT)
    assert found is not None
    assert [slip.index for slip in found.slips] == list(range(8))
    done = stores.ledger.finish(newer, [outcome(n, claim=found) for n in range(8)], writer="w", serial=1)
    assert all(done.accepted)
    assert stores.ledger.progress(newer).waiting == ()


def test_what_is_left_takes_no_room_from_others(stores: Stores) -> None:
    """Its jobs are no load of the fleet while they wait."""
    running(stores, 8, v=NEXT)
    beat(stores, "old", VERSION, capacity=8)
    beat(stores, "new", NEXT, capacity=0)
    (ref,) = refs(stores)
    known = running(stores, 8)
    assert refs(stores) == []
    with pytest.raises(NewerRecordError):
        stores.ledger.claim(ref, holder="old", lease_s=30)
    assert fed(stores) == [known]


def test_chores_of_a_newer_batch_are_left_and_hide_no_others(stores: Stores) -> None:
    newer, known = spec(), spec()
    stores.ledger.create(newer)
    age_batch(stores, newer.id, NEXT)
    stores.ledger.create(known)
    chore = stores.ledger.take_chore(5.0)
    assert chore is not None
    assert chore.batch_id == known.id
    assert stores.ledger.take_chore(5.0) is None
    stores.pass_time(LATER_S)
    assert stores.ledger.take_chore(5.0) is None
    stores.pass_time(LATER_S)
    found = stores.ledger.take_chore(5.0, reads=NEXT)
    assert found is not None
    assert (found.batch_id, found.kind) == (newer.id, "validate")


def test_a_newer_batch_can_be_cancelled_and_is_ended_by_its_own_release(stores: Stores) -> None:
    newer = running(stores, 8, v=NEXT)
    cancelled = stores.ledger.cancel(newer)
    assert cancelled is not None
    assert cancelled.status is BatchStatus.CANCELLING
    assert stores.ledger.take_chore(5.0) is None
    stores.pass_time(LATER_S)
    chore = stores.ledger.take_chore(5.0, reads=NEXT)
    assert chore is not None
    assert chore.kind == "finalize"


def test_a_lone_job_that_is_newer_is_left_and_others_are_taken(stores: Stores) -> None:
    newer, known = job(caller="a"), job(caller="a")
    stores.lone.submit([newer, known])
    age_job(stores, newer.spec.id, NEXT)
    found = claim(stores.lone)
    assert (ids(found), found.more) == ([known.spec.id], False)
    left = stores.lone.get(newer.spec.id)
    assert left is not None
    assert left.status is JobStatus.QUEUED
    assert left.waiting == Waiting(
        reason=Reason.NEWER, provider="", since=left.waiting.since if left.waiting else 0, until=0, jobs=1
    )
    assert not stores.lone.wants_hint(), "it is hinted at again a little later, not at once"
    assert stores.lone.claim(waited=9, rest=9, holder="old", lease_s=9) is None
    stores.pass_time(LATER_S)
    assert stores.lone.wants_hint()
    assert stores.lone.claim(waited=9, rest=9, holder="old", lease_s=9) is None
    assert not stores.lone.wants_hint()
    taken = stores.lone.claim(waited=9, rest=9, holder="new", lease_s=9, reads=NEXT)
    assert taken is not None
    assert (ids(taken), taken.slips[0].waited) == ([newer.spec.id], True)
    running_now = stores.lone.get(newer.spec.id)
    assert running_now is not None
    assert running_now.waiting is None
    assert stores.lone.finish([result(newer.spec.id)], writer="w", serial=next(_serials)).accepted == (True,)


def test_a_claim_that_finds_only_newer_lone_jobs_says_so(stores: Stores) -> None:
    new = [job() for _ in range(60)]
    stores.lone.submit(new)
    for made in new:
        age_job(stores, made.spec.id, NEXT)
    with pytest.raises(NewerRecordError) as caught:
        stores.lone.claim(waited=5, rest=5, holder="old", lease_s=9)
    assert caught.value.met == NEXT
    first = stores.lone.claim(waited=50, rest=50, holder="new", lease_s=9, reads=NEXT)
    assert first is not None
    assert first.more, "the rest is hinted at, at once"
    second = stores.lone.claim(waited=50, rest=50, holder="new", lease_s=9, reads=NEXT)
    assert second is not None
    assert sorted(ids(first) + ids(second)) == sorted(made.spec.id for made in new)


def test_a_newer_lone_job_can_be_cancelled(stores: Stores) -> None:
    new = job()
    stores.lone.submit([new])
    age_job(stores, new.spec.id, NEXT)
    with pytest.raises(NewerRecordError):
        stores.lone.claim(waited=9, rest=9, holder="old", lease_s=9)
    stores.lone.cancel(new.spec.id)
    stores.pass_time(LATER_S)
    assert not stores.lone.wants_hint()
    assert stores.lone.claim(waited=9, rest=9, holder="new", lease_s=9, reads=NEXT) is None


def test_a_newer_lone_job_ends_with_its_window(stores: Stores) -> None:
    new = job(window_s=0.2)
    stores.lone.submit([new])
    age_job(stores, new.spec.id, NEXT)
    with pytest.raises(NewerRecordError):
        stores.lone.claim(waited=9, rest=9, holder="old", lease_s=9)
    stores.pass_time(0.3)
    assert stores.lone.reap(most=10).expired == 1
    assert HINT_TIMEOUT_S > LOOK_AGAIN_S
