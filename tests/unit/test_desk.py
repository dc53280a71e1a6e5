"""The desk between waiting callers and the store of lone jobs."""

import asyncio
import threading
from collections.abc import Iterable, Sequence

from support.lone import job, result

from api.desk import Desk
from shared.broker import Hints
from shared.clock import ManualClock
from shared.lone import NewJob, Submitted
from shared.memory_lone import MemoryLone
from shared.room import Room
from shared.room_watch import API_AGE_S, RoomWatch


class NoHints(Hints):
    def __init__(self) -> None: ...

    def warm(self) -> None: ...

    def send(self, refs: Iterable[str]) -> int:
        return len(list(refs))


class SlowStore(MemoryLone):
    """Takes jobs in only when it is let."""

    def __init__(self) -> None:
        super().__init__(ManualClock())
        self.asked, self.go_on = threading.Event(), threading.Event()

    def submit(self, jobs: Sequence[NewJob]) -> Submitted:
        self.asked.set()
        assert self.go_on.wait(10)
        return super().submit(jobs)


def test_a_job_on_its_way_into_the_store_is_not_taken_for_one_that_has_ended() -> None:
    store, new = SlowStore(), job(caller="api1")
    desk = Desk(store, NoHints(), "api1", RoomWatch(Room, API_AGE_S))

    async def run() -> str:
        desk.start()
        ended = desk.expect(new.spec.id)
        submitted = asyncio.ensure_future(desk.submit(new))
        assert await asyncio.to_thread(store.asked.wait, 10)
        desk.tick(anew=True)
        store.go_on.set()
        await submitted
        desk.tick(anew=True)
        await asyncio.sleep(0)
        assert not ended.done()
        store.finish([result(new.spec.id)], writer="w", serial=1)
        desk.tick(anew=True)
        return await asyncio.wait_for(ended, 10)

    try:
        assert asyncio.run(run()) == ""  # as heard of by asking: the record has the line
    finally:
        desk.stop()
