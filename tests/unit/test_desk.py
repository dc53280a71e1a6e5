"""The desk between waiting callers and the store of lone jobs."""

import asyncio
import threading
from collections.abc import Iterable, Sequence

import pytest
from support.lone import job, result

from api.crew import unbegun as unbegun_for
from api.desk import Desk
from shared.broker import Hints
from shared.clock import ManualClock
from shared.errors import StoreUnavailableError
from shared.idempotency import Once
from shared.lone import JobStatus, NewJob, Parked, Submitted
from shared.memory_lone import MemoryLone
from shared.reasons import Reason
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
        heard = await asyncio.wait_for(ended, 10)
        assert isinstance(heard, str)
        return heard

    try:
        assert asyncio.run(run()) == ""  # as heard of by asking: the record has the line
    finally:
        desk.stop()


class Deaf(MemoryLone):
    """Takes jobs in, but the answers are lost as often as is said."""

    lost = 0

    def submit(self, jobs: Sequence[NewJob]) -> Submitted:
        found = super().submit(jobs)
        if self.lost:
            self.lost -= 1
            raise StoreUnavailableError("Redis cannot be reached.")
        return found


def test_a_job_taken_in_without_an_answer_is_left_to_its_repetition() -> None:
    lone = Deaf(ManualClock())
    desk = Desk(lone, NoHints(), "api-1", RoomWatch(Room, API_AGE_S))
    polled, waited = job(fingerprint="f1"), job(caller="api-1", fingerprint="f2")

    async def run() -> None:
        desk.start()
        try:
            for new in (polled, waited):
                lone.lost = 2
                with pytest.raises(StoreUnavailableError):
                    await desk.submit(new)
            assert lone.attach("default", "f1", "") == polled.spec.id
            assert lone.attach("default", "f2", "api-1") == waited.spec.id
            desk.expect(waited.spec.id, in_store=True)
            desk.tick(True)
            for new in (polled, waited):
                found = lone.get(new.spec.id)
                assert found is not None
                assert found.status is JobStatus.QUEUED
        finally:
            desk.stop()

    asyncio.run(run())


@pytest.mark.parametrize(("keyed", "status"), [(True, JobStatus.QUEUED), (False, JobStatus.CANCELLED)])
def test_a_job_taken_in_without_an_answer_waits_for_its_key(*, keyed: bool, status: JobStatus) -> None:
    lone = Deaf(ManualClock())
    desk = Desk(lone, NoHints(), "api-1", RoomWatch(Room, API_AGE_S))
    once = Once(owner="default", name="k", fingerprint="aa", keep_s=60) if keyed else None
    new = job(caller="api-1", once=once)

    async def run() -> None:
        desk.start()
        try:
            lone.lost = 2
            with pytest.raises(StoreUnavailableError):
                await desk.submit(new)
            desk.tick(True)  # the store is back
            found = lone.get(new.spec.id)
            assert found is not None
            assert found.status is status
            lone.lost = 1  # and now the answer to the repetition is lost once
            again = await desk.submit(job(caller="api-1", once=once))
            assert (again.id == new.spec.id) is keyed
        finally:
            desk.stop()

    asyncio.run(run())


def test_only_those_whose_jobs_nobody_has_begun_are_told_what_keeps_them() -> None:
    lone = MemoryLone(ManualClock())
    desk = Desk(lone, NoHints(), "api-1", RoomWatch(Room, API_AGE_S))
    begun, unbegun = job(caller="api-1"), job(caller="api-1")

    async def run() -> None:
        desk.start()
        try:
            heard = [desk.expect(new.spec.id) for new in (begun, unbegun)]
            await desk.submit(begun)
            assert lone.claim(waited=1, rest=0, holder="w1", lease_s=60.0) is not None
            await desk.submit(unbegun)
            desk.tell_unbegun(unbegun_for(Reason.NO_WORKER))
            told = await asyncio.wait_for(heard[1], 10)
            assert isinstance(told, Parked)
            assert told.reason == "no_worker_alive"
            assert not heard[0].done()
        finally:
            desk.stop()

    asyncio.run(run())
