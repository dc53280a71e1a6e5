"""When those whose jobs nobody has begun are told why no worker can: none is alive, or the broker is away."""

from api.crew import GRACE_S, LOOK_S, SURE_S, Crew
from shared.clock import ManualClock
from shared.errors import StoreUnavailableError
from shared.lone import Parked
from shared.reasons import Reason


class Fleet:
    """Workers as a test wants them; None where Redis is away."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.alive: int | None = 0
        self.looks = 0
        self.told: list[Parked] = []
        self.broker_away = False
        self.crew = Crew(self.count, lambda: self.broker_away, self.told.append, self.clock.now)

    def count(self) -> int:
        self.looks += 1
        if self.alive is None:
            raise StoreUnavailableError("Redis cannot be reached.")
        return self.alive

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / LOOK_S)):
            self.clock.advance(LOOK_S)
            self.crew.tick()


def test_nobody_is_told_before_a_starting_worker_had_time_to_report() -> None:
    fleet = Fleet()
    assert fleet.crew.idle() is None, "not known yet"
    fleet.pass_time(GRACE_S)
    assert fleet.crew.idle() is Reason.NO_WORKER
    assert fleet.crew.idle(SURE_S) is Reason.NO_WORKER
    assert fleet.told == []
    fleet.pass_time(2 * LOOK_S)
    assert {told.reason for told in fleet.told} == {Reason.NO_WORKER}


def test_a_worker_that_reports_ends_it() -> None:
    fleet = Fleet()
    fleet.pass_time(GRACE_S - LOOK_S)
    fleet.alive = 1
    fleet.pass_time(LOOK_S)
    assert fleet.crew.idle() is None
    fleet.alive = 0
    fleet.pass_time(GRACE_S)
    assert fleet.told == []


def test_a_broker_that_is_away_is_told_when_it_has_been_for_a_while() -> None:
    fleet = Fleet()
    fleet.alive, fleet.broker_away = 1, True
    fleet.pass_time(GRACE_S)
    assert fleet.crew.idle(SURE_S) is Reason.BROKER_AWAY
    assert fleet.told == []
    fleet.alive = 0
    fleet.pass_time(LOOK_S)
    assert fleet.crew.idle() is Reason.NO_WORKER, "what takes a person comes first"
    fleet.alive = 1
    fleet.pass_time(GRACE_S + LOOK_S)
    assert {told.reason for told in fleet.told} == {Reason.BROKER_AWAY}
    fleet.broker_away = False
    fleet.pass_time(LOOK_S)
    assert fleet.crew.idle() is None


def test_while_redis_is_away_nothing_is_known_and_workers_may_report_afterwards() -> None:
    fleet = Fleet()
    fleet.pass_time(GRACE_S)
    fleet.alive = None
    fleet.pass_time(3 * GRACE_S)
    assert fleet.crew.idle() is None
    fleet.alive = 0
    fleet.pass_time(LOOK_S)
    assert fleet.crew.idle() is Reason.NO_WORKER
    assert fleet.crew.idle(SURE_S) is None
    assert fleet.told == []


def test_it_looks_once_a_second_however_often_it_is_called() -> None:
    fleet = Fleet()
    for _ in range(50):
        fleet.clock.advance(0.1)
        fleet.crew.tick()
    assert fleet.looks <= 6
