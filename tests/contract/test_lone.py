"""What every store of lone jobs must do, on the memory twin and on a real Valkey."""

import itertools

import pytest
from support.lone import claim, ids, job, result
from support.stores import Stores

from shared.jobs import Split
from shared.ledger import HINT_TIMEOUT_S
from shared.lone import LONE, JobStatus, LoneJobs

_serials = itertools.count(1)


def status(lone: LoneJobs, job_id: str) -> JobStatus | None:
    found = lone.get(job_id)
    return found.status if found else None


def finish(lone: LoneJobs, job_id: str, *, ok: bool = True) -> bool:
    return lone.finish([result(job_id, ok=ok)], writer="w1", serial=next(_serials)).accepted[0]


def test_a_job_goes_from_queued_to_completed(stores: Stores) -> None:
    lone, new = stores.lone, job(body=b'{"model":"m","x":"\xc3\xa4"}')
    assert lone.submit([new]).known == (False,)
    assert status(lone, new.spec.id) is JobStatus.QUEUED
    found = claim(lone)
    (slip,) = found.slips
    assert (found.batch_id, slip.id, slip.body, slip.endpoint) == (
        LONE,
        new.spec.id,
        new.body,
        new.spec.endpoint,
    )
    taken = lone.get(new.spec.id)
    assert taken is not None
    assert taken.status is JobStatus.IN_PROGRESS
    assert slip.expires_at == pytest.approx(taken.expires_at)
    assert finish(lone, new.spec.id)
    ended = lone.get(new.spec.id)
    assert ended is not None
    assert (ended.status, ended.line) == (JobStatus.COMPLETED, result(new.spec.id).line)
    assert ended.ended_at is not None
    assert lone.release(found.ref, found.token)
    assert lone.claim(waited=9, rest=9, holder="w1", lease_s=9) is None


def test_submitting_again_by_the_same_id_changes_nothing(stores: Stores) -> None:
    new = job()
    stores.lone.submit([new])
    finish(stores.lone, new.spec.id)
    assert stores.lone.submit([new, job()]).known == (True, False)
    assert status(stores.lone, new.spec.id) is JobStatus.COMPLETED


def test_one_hint_is_outstanding_at_a_time(stores: Stores) -> None:
    lone = stores.lone
    assert lone.submit([job()]).hint
    assert not lone.submit([job(), job()]).hint
    assert not lone.wants_hint()
    assert claim(lone, rest=2).more  # one is left: its hint is now the claimant's to send
    assert not lone.submit([job()]).hint
    lone.decline()
    assert lone.wants_hint()
    stores.pass_time(0.01)
    assert not lone.wants_hint()
    assert len(claim(lone).slips) == 2
    assert not lone.wants_hint()


def test_a_lost_hint_is_wanted_again(stores: Stores) -> None:
    assert stores.lone.submit([job()]).hint
    stores.pass_time(HINT_TIMEOUT_S + 0.1)
    assert stores.lone.wants_hint()


def test_those_whose_callers_wait_go_first_and_are_counted_apart(stores: Stores) -> None:
    lone = stores.lone
    nobody = [job() for _ in range(3)]
    waited = [job(caller="api1") for _ in range(3)]
    lone.submit([*nobody, *waited])
    first = claim(lone, waited=2, rest=1)
    assert ids(first) == [waited[0].spec.id, waited[1].spec.id, nobody[0].spec.id]
    assert [slip.waited for slip in first.slips] == [True, True, False]
    assert ids(claim(lone, waited=5, rest=0)) == [waited[2].spec.id]


def test_only_the_first_outcome_counts_and_a_repeated_write_gets_the_first_answer(stores: Stores) -> None:
    lone, new = stores.lone, job()
    lone.submit([new])
    claim(lone)
    first = lone.finish([result(new.spec.id)], writer="w9", serial=1)
    assert lone.finish([result(new.spec.id)], writer="w9", serial=1) == first
    assert first.accepted == (True,)
    assert not finish(lone, new.spec.id, ok=False)
    assert status(lone, new.spec.id) is JobStatus.COMPLETED


def test_a_retry_waits_for_its_due_time_and_keeps_its_history(stores: Stores) -> None:
    lone, new = stores.lone, job(caller="api1")
    lone.submit([new])
    found = claim(lone)
    split = Split(kind="retry", jobs=(new.spec.id,), delay_s=0.2, provider="p1")
    assert lone.split(found.ref, found.token, split) == LONE
    assert lone.split(found.ref, found.token, split) is None
    assert lone.claim(waited=9, rest=9, holder="w", lease_s=9) is None
    assert lone.release(found.ref, found.token)
    assert lone.claim(waited=9, rest=9, holder="w", lease_s=9) is None
    stores.pass_time(0.25)
    again = claim(lone)
    assert again.slips[0].history.attempts == 1
    assert again.slips[0].history.tried == ("p1",)
    assert again.slips[0].waited
    assert again.token > found.token


def test_an_overdue_job_wants_a_hint(stores: Stores) -> None:
    lone, new = stores.lone, job()
    lone.submit([new])
    found = claim(lone)
    lone.split(found.ref, found.token, Split(kind="park", jobs=(new.spec.id,), delay_s=0.0))
    assert not lone.wants_hint()
    stores.pass_time(1.1)
    assert lone.wants_hint()


def test_a_lease_that_runs_out_gives_the_jobs_back(stores: Stores) -> None:
    lone, new = stores.lone, job()
    lone.submit([new])
    lost = claim(lone, lease_s=0.2)
    assert lone.renew([(lost.ref, lost.token)], lease_s=0.2) == ["held"]
    stores.pass_time(0.3)
    assert lone.reap(most=10).recovered == 1
    assert lone.wants_hint()
    assert lone.renew([(lost.ref, lost.token)], lease_s=9) == ["lost"]
    assert not lone.release(lost.ref, lost.token)
    again = claim(lone)
    assert ids(again) == [new.spec.id]
    assert lone.split(lost.ref, lost.token, Split(kind="retry", jobs=(new.spec.id,), delay_s=0)) is None
    assert finish(lone, new.spec.id)  # from any holder: a paid answer is never thrown away


def test_released_jobs_go_back_to_the_front(stores: Stores) -> None:
    lone, first, second = stores.lone, job(), job()
    lone.submit([first])
    found = claim(lone)
    lone.submit([second])
    lone.release(found.ref, found.token)
    assert lone.wants_hint()
    assert ids(claim(lone)) == [first.spec.id, second.spec.id]


def test_cancel_ends_a_job_at_once_and_refuses_its_answer(stores: Stores) -> None:
    lone, queued, running = stores.lone, job(), job()
    lone.submit([running])
    claim(lone)
    lone.submit([queued])
    for new in (queued, running):
        cancelled = lone.cancel(new.spec.id)
        assert cancelled is not None
        assert cancelled.status is JobStatus.CANCELLED
    assert not finish(lone, running.spec.id)
    assert lone.claim(waited=9, rest=9, holder="w", lease_s=9) is None
    assert lone.cancel("job_unknown") is None


def test_a_caller_who_leaves_cancels_only_what_nobody_has_begun_or_waits_for(stores: Stores) -> None:
    lone = stores.lone
    begun, alone, shared, kept = (job(caller="api1") for _ in range(4))
    lone.submit([begun])
    claim(lone)
    lone.submit([alone, shared, kept])
    assert lone.wait(shared.spec.id, "api2") is not None
    lone.leave(kept.spec.id, "api1", cancel=False)
    for new in (begun, alone, shared):
        lone.leave(new.spec.id, "api1", cancel=True)
    found = [status(lone, new.spec.id) for new in (begun, alone, shared, kept)]
    assert found == [JobStatus.IN_PROGRESS, JobStatus.CANCELLED, JobStatus.QUEUED, JobStatus.QUEUED]


def test_a_repeated_request_finds_the_job_whose_caller_has_gone(stores: Stores) -> None:
    lone = stores.lone
    stop = stores.listen("api1")
    stop_other = stores.listen("api2")
    new = job(caller="api1", fingerprint="same")
    lone.submit([new])
    assert lone.attach("default", "same", "api2") is None  # its caller is still there
    assert lone.attach("other", "same", "api2") is None
    claim(lone)
    lone.leave(new.spec.id, "api1", cancel=True)
    assert lone.attach("other", "same", "api2") is None  # the same words of another owner
    assert lone.attach("default", "same", "api2") == new.spec.id
    assert lone.attach("default", "same", "api1") is None
    lone.leave(new.spec.id, "api2", cancel=True)
    finish(lone, new.spec.id)
    assert lone.attach("default", "same", "api2") == new.spec.id  # a result that nobody has heard

    crashed = job(caller="api1", fingerprint="crashed")
    lone.submit([crashed])
    assert lone.attach("default", "crashed", "api2") is None
    stop()
    stores.pass_time(0.2)
    assert lone.attach("default", "crashed", "api2") == crashed.spec.id
    stop_other()


def test_what_was_delivered_or_cancelled_is_not_found_by_a_repetition(stores: Stores) -> None:
    lone = stores.lone
    heard, cancelled = job(caller="api1", fingerprint="a"), job(caller="api1", fingerprint="b")
    stop = stores.listen("api1")
    lone.submit([heard, cancelled])
    finish(lone, heard.spec.id)
    lone.leave(cancelled.spec.id, "api1", cancel=True)
    assert lone.attach("default", "a", "api2") is None
    assert lone.attach("default", "b", "api2") is None
    stop()


def test_a_result_whose_caller_died_or_left_as_it_came_is_found_by_a_repetition_once(stores: Stores) -> None:
    lone = stores.lone
    dead, left = job(caller="dead", fingerprint="a"), job(caller="api1", fingerprint="b")
    stop, stop_other = stores.listen("api1"), stores.listen("api2")
    lone.submit([dead, left])
    finish(lone, dead.spec.id)
    finish(lone, left.spec.id)
    assert lone.attach("default", "b", "api2") is None
    lone.leave(left.spec.id, "api1", cancel=True)
    assert [lone.attach("default", what, "api2") for what in "ab"] == [dead.spec.id, left.spec.id]
    assert [lone.attach("default", what, "api2") for what in "ab"] == [None, None]
    stop_other()
    stores.pass_time(0.2)
    assert [lone.attach("default", what, "api1") for what in "ab"] == [dead.spec.id, left.spec.id]
    stop()


def test_of_a_flood_of_equal_requests_only_some_results_stay_to_be_found(stores: Stores) -> None:
    lone = stores.lone
    stop = stores.listen("api1")
    jobs = [job(caller="api1", fingerprint="a") for _ in range(100)]
    lone.submit(jobs)
    for new in jobs:
        finish(lone, new.spec.id)
    stop()
    stores.pass_time(0.2)
    stop_other = stores.listen("api2")
    found = [lone.attach("default", "a", "api2") for _ in range(100)]
    assert 0 < len([job_id for job_id in found if job_id]) <= 64
    stop_other()


def test_of_jobs_that_nobody_waits_for_a_repetition_finds_the_latest(stores: Stores) -> None:
    lone = stores.lone
    first, second = job(fingerprint="a"), job(fingerprint="a")
    lone.submit([first])
    assert lone.attach("default", "a", "") == first.spec.id
    lone.submit([second])
    assert [lone.attach("default", "a", "") for _ in range(2)] == [second.spec.id] * 2
    assert not any(slip.waited for slip in claim(lone).slips)
    finish(lone, second.spec.id)
    assert [lone.attach("default", "a", "") for _ in range(2)] == [second.spec.id] * 2


def test_ended_names_those_that_need_no_more_waiting(stores: Stores) -> None:
    lone, done, open_ = stores.lone, job(), job()
    lone.submit([done, open_])
    finish(lone, done.spec.id)
    assert lone.ended([done.spec.id, open_.spec.id, "job_unknown"]) == [done.spec.id, "job_unknown"]


def test_a_window_that_is_over_ends_the_job(stores: Stores) -> None:
    lone, new = stores.lone, job(window_s=0.2)
    lone.submit([new])
    claim(lone)
    assert lone.reap(most=10).expired == 0
    stores.pass_time(0.25)
    assert lone.reap(most=10).expired == 1
    assert status(lone, new.spec.id) is JobStatus.EXPIRED
    assert not finish(lone, new.spec.id)


@pytest.mark.parametrize("caller", ["", "api1"])
def test_results_go_after_their_retention(stores: Stores, caller: str) -> None:
    lone = stores.lone
    new = job(caller=caller, retention_s=1.0, delivered_retention_s=0.2)
    stop = stores.listen(caller)
    lone.submit([new])
    finish(lone, new.spec.id)
    stop()
    stores.pass_time(0.3)
    assert lone.reap(most=10).removed == (1 if caller else 0)
    stores.pass_time(0.8)
    lone.reap(most=10)
    assert lone.get(new.spec.id) is None
    assert lone.page("default", after=None, limit=10) == ([], False)


def test_lists_are_the_owners_newest_first(stores: Stores) -> None:
    lone = stores.lone
    mine, theirs = [job() for _ in range(5)], job(owner="other")
    lone.submit([*mine, theirs])
    newest = sorted((new.spec.id for new in mine), reverse=True)
    page, more = lone.page("default", after=None, limit=3)
    assert ([found.spec.id for found in page], more) == (newest[:3], True)
    page, more = lone.page("default", after=newest[2], limit=3)
    assert ([found.spec.id for found in page], more) == (newest[3:], False)


def test_deleting_forgets_only_what_has_ended(stores: Stores) -> None:
    lone, new = stores.lone, job()
    lone.submit([new])
    lone.delete(new.spec.id)
    assert status(lone, new.spec.id) is JobStatus.QUEUED
    finish(lone, new.spec.id)
    lone.delete(new.spec.id)
    assert lone.get(new.spec.id) is None
    assert lone.page("default", after=None, limit=3) == ([], False)
