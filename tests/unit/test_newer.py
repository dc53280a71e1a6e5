"""What a worker does with records of a newer release, and what the API says of them. The stores' part: tests/contract/test_versions.py."""

import msgspec
import pytest
from structlog.testing import capture_logs
from support.ledgers import spec
from support.ledgers import worker as a_worker

from api.explain_schema import Explanation, waiting_of
from api.job_schema import JobWaiting
from shared.jobs import Batch, BatchStatus, Moments, Progress, Waiting
from shared.newer import NewerSeen
from shared.reasons import Reason
from shared.versions import VERSION

NEXT = VERSION + 1
OLD, NEW = a_worker("old"), msgspec.structs.replace(a_worker("new"), reads=NEXT)
LEFT = Waiting(reason=Reason.NEWER, provider="", since=5.0, until=6.0, jobs=3)
PARKED = Waiting(reason=Reason.BREAKER_OPEN, provider="a", since=5.0, until=6.0, jobs=2)


def batch(v: int, status: BatchStatus = BatchStatus.IN_PROGRESS) -> Batch:
    return Batch(spec=spec(), v=v, status=status, at=Moments(created_at=0, expires_at=1))


def test_a_newer_version_is_told_once_with_both_versions() -> None:
    with capture_logs() as said:
        seen = NewerSeen()
        for met in (0, NEXT, NEXT, 0, NEXT + 1):
            seen.note(met)
    assert [(entry["event"], entry["log_level"]) for entry in said] == [("newer_version_left", "warning")] * 2
    assert [(entry["met"], entry["reads"]) for entry in said] == [(NEXT, VERSION), (NEXT + 1, VERSION)]


def test_what_no_worker_alive_reads_waits_all_of_it_for_one_that_does() -> None:
    progress = Progress(queued=10, waiting=(LEFT, PARKED))
    found = {w.reason: w for w in waiting_of(batch(NEXT), progress, [OLD])}
    assert (found["newer_version"].jobs, found["newer_version"].until) == (13, None)
    assert found["newer_version"].since == 5
    assert found["breaker_open"].jobs == 2


def test_beside_a_worker_that_reads_it_only_what_was_left_waits() -> None:
    progress = Progress(queued=10, waiting=(LEFT,))
    (found,) = waiting_of(batch(NEXT), progress, [OLD, NEW])
    assert (found.reason, found.jobs, found.until) == ("newer_version", 3, 6)
    assert waiting_of(batch(VERSION), Progress(queued=10), [OLD]) == []


def test_without_any_worker_that_is_the_reason() -> None:
    (found,) = waiting_of(batch(NEXT), Progress(queued=10), [])
    assert (found.reason, found.jobs) == ("no_worker_alive", 10)


@pytest.mark.parametrize("status", [BatchStatus.VALIDATING, BatchStatus.FINALIZING, BatchStatus.CANCELLING])
def test_a_newer_batch_whose_chores_wait_is_explained(status: BatchStatus) -> None:
    assert "made by a newer release" in Explanation.of(batch(NEXT, status), Progress(), []).summary
    assert "newer" not in Explanation.of(batch(VERSION, status), Progress(), []).summary
    assert "newer" not in Explanation.of(batch(NEXT, BatchStatus.COMPLETED), Progress(), []).summary


def test_a_lone_job_shows_no_time_for_what_nobody_can_tell() -> None:
    waiting = Waiting(reason=Reason.NEWER, provider="", since=5.0, until=0.0, jobs=1)
    assert JobWaiting.of(waiting).model_dump() == {
        "reason": "newer_version",
        "provider": None,
        "since": 5,
        "until": None,
    }
