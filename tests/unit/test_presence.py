"""An API process' heartbeat: often enough, at once where there is news, and no fault of Redis' is its own."""

import msgspec

from api.presence import BEAT_S, Presence
from shared.clock import ManualClock
from shared.errors import StoreUnavailableError
from shared.jobs import ApiRecord, FileState


class Roster:
    def __init__(self) -> None:
        self.beats: list[ApiRecord] = []
        self.away = False

    def beat(self, record: ApiRecord) -> None:
        self.beats.append(record)
        if self.away:
            raise StoreUnavailableError("away")

    def retire(self, process: str) -> None:
        del process
        if self.away:
            raise StoreUnavailableError("away")

    def present(self) -> list[ApiRecord]:
        return [ApiRecord(id="b"), *self.beats[-1:]]


def test_it_beats_at_its_times_and_at_once_where_there_is_news() -> None:
    clock, state = ManualClock(), FileState(version="a")
    roster = Roster()
    here = Presence(roster, "a", lambda: state, clock.now)  # type: ignore[arg-type]
    for _ in range(3):
        here.tick()
    assert roster.beats == [ApiRecord(id="a", providers_file=state)]
    state = msgspec.structs.replace(state, fault="no YAML")
    here.tick()
    assert [record.providers_file.fault for record in roster.beats] == [None, "no YAML"]
    clock.advance(BEAT_S)
    roster.away = True
    here.tick()
    here.leave()
    assert len(roster.beats) == 3
    state = FileState(version="b")
    assert here.all() == [ApiRecord(id="a", providers_file=state), ApiRecord(id="b")]
