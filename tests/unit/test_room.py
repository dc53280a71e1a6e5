"""How much room there is, and what a process knows of it."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clock import ManualClock
from shared.errors import NO_ROOM, StoreUnavailableError
from shared.redis_room import room_of
from shared.room import NO_MAXMEMORY, Room, evicts, reckoned
from shared.room_watch import RoomWatch

sizes = st.integers(0, 10**9)


def test_the_thresholds() -> None:
    def state(used: int, jobs: int = 0) -> str:
        return Room(used=used, maxmemory=1000, open_jobs=jobs, answer_bytes=10).state

    assert [state(700), state(701), state(900), state(901)] == ["ok", "no_submits", "no_submits", "no_calls"]
    assert [state(500, 20), state(500, 21)] == ["ok", "no_submits"]
    assert Room(used=10**12).state == "ok"
    assert Room(known=False).state == "unknown"


@given(used=sizes, maxmemory=sizes, open_jobs=sizes, jobs=sizes, size=sizes)
def test_what_is_taken_leaves_every_promise_kept(
    used: int, maxmemory: int, open_jobs: int, jobs: int, size: int
) -> None:
    room = Room(used=used, maxmemory=maxmemory, open_jobs=open_jobs, answer_bytes=3)
    if room.takes(jobs=jobs, size=size) and maxmemory:
        after = Room(used=used + size, maxmemory=maxmemory, open_jobs=open_jobs + jobs, answer_bytes=3)
        assert after.takes()
        assert after.used + after.promised <= 0.7 * maxmemory
        assert after.calls


def test_an_answer_is_reckoned_at_the_average_and_at_least_at_the_floor() -> None:
    assert [reckoned(0, 2048), reckoned(2047.5, 2048), reckoned(5000.2, 2048)] == [2048, 2048, 5001]


def test_what_the_server_does_not_count_for_its_bound_is_not_counted() -> None:
    room = room_of({"used_memory": 500, "mem_not_counted_for_evict": 80, "maxmemory": 1000})
    assert (room.used, room.maxmemory, room.cautions) == (420, 1000, [])
    assert room_of({"used_memory": 5, "maxmemory_policy": "allkeys-lru"}).cautions == [
        NO_MAXMEMORY,
        evicts("allkeys-lru"),
    ]


class Server:
    """Says what it is told to, and counts how often it was asked."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.room = Room(used=100, maxmemory=1000)
        self.away = False
        self.asked = 0
        self.watch = RoomWatch(self.read, 0.5, self.clock.now)

    def read(self) -> Room:
        self.asked += 1
        if self.away:
            raise StoreUnavailableError("away")
        return self.room


def test_it_is_asked_no_more_often_than_that() -> None:
    server = Server()
    for _ in range(100):
        assert server.watch.calls()
        server.watch.check(jobs=1)
    assert server.asked == 1
    server.room = Room(used=950, maxmemory=1000)
    server.clock.advance(0.6)
    assert not server.watch.calls()
    with pytest.raises(StoreUnavailableError) as caught:
        server.watch.check()
    assert (caught.value.code, server.asked) == (NO_ROOM, 2)


def test_what_is_large_is_checked_afresh() -> None:
    server = Server()
    server.watch.check(size=1)
    server.room = Room(used=650, maxmemory=1000)
    with pytest.raises(StoreUnavailableError):
        server.watch.check(size=100, fresh=True)
    assert server.asked == 2


def test_while_the_store_is_away_the_last_room_counts() -> None:
    server = Server()
    server.room = Room(used=950, maxmemory=1000)
    assert not server.watch.calls()
    server.away = True
    server.clock.advance(0.6)
    for _ in range(3):
        assert not server.watch.calls()
    assert server.asked == 2


def test_a_store_that_was_away_from_the_start_is_asked_until_it_answers() -> None:
    server = Server()
    server.away = True
    assert server.watch.calls()
    for fresh in (False, True):
        with pytest.raises(StoreUnavailableError, match="away"):
            server.watch.check(fresh=fresh)
    server.away = False
    server.watch.check(jobs=1)
    server.watch.check(jobs=1)
    assert server.asked == 4


def test_what_is_known_of_old_is_used_by_nobody() -> None:
    """Calls that end together after a long time: none of them may go by what was before."""
    server = Server()
    assert server.watch.calls()
    server.clock.advance(60)
    asking, go = threading.Event(), threading.Event()

    def slowly() -> Room:
        asking.set()
        assert go.wait(10)
        return Room(used=950, maxmemory=1000)

    server.watch._ask = slowly
    found: list[bool] = []
    callers = [threading.Thread(target=lambda: found.append(server.watch.calls())) for _ in range(5)]
    for caller in callers:
        caller.start()
    assert asking.wait(10)
    assert found == []
    go.set()
    for caller in callers:
        caller.join(10)
    assert found == [False] * 5
