"""What an explanation says while Redis lets nothing begin."""

from support.ledgers import spec, worker

from api.explain_schema import Stopped, waiting_of
from shared.jobs import Batch, BatchStatus, Moments, Progress, Waiting
from shared.reasons import Reason

BATCH = Batch(spec=spec(), status=BatchStatus.IN_PROGRESS, at=Moments(created_at=0, expires_at=1))
SILENT = Waiting(reason=Reason.WORKER_SILENT, provider="", since=5.0, until=6.0, jobs=3)
PARKED = Waiting(reason=Reason.BREAKER_OPEN, provider="a", since=5.0, until=6.0, jobs=2)
PROGRESS = Progress(queued=10, running=4, waiting=(SILENT, PARKED))


def told(stopped: Stopped) -> dict[str, int]:
    return {group.reason: group.jobs for group in waiting_of(BATCH, PROGRESS, [], stopped=stopped)}


def test_where_redis_takes_no_write_nobody_is_called_silent_or_dead() -> None:
    assert told(Stopped(Reason.STORE_AWAY, "why")) == {"breaker_open": 2, "store_away": 17}


def test_where_it_is_full_workers_are_still_heard_of() -> None:
    assert told(Stopped(Reason.STORE_FULL)) == {"worker_silent": 3, "breaker_open": 2, "store_full": 14}


def test_its_own_words_come_before_the_reasons() -> None:
    words = {
        g.reason: g.message
        for g in waiting_of(BATCH, PROGRESS, [worker("w")], stopped=Stopped(Reason.STORE_AWAY, "a failover"))
    }
    assert words["store_away"] == "a failover"
