"""A shard's run while the store is away: calls in flight keep their lease, what could not begin leaves once it can."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from support.batches import jsonl, line
from support.blind_fleet import BlindFleet
from support.ledgers import index, outcome, spec, worker
from support.lone import job
from support.waiting import wait_for

from shared import memory_lone
from shared.catalogue import Catalogue, Provider
from shared.clock import SystemClock
from shared.errors import ProviderError, ProviderFailedError, StoreUnavailableError
from shared.gate import Block, Candidate
from shared.jobs import Finished, History, Outcome, Progress, Split
from shared.ledger import Held
from shared.memory_files import MemoryFiles
from shared.memory_ledger import MemoryLedger
from shared.memory_lone import MemoryLone
from shared.permits import Permit
from shared.reasons import Reason
from shared.room import Room
from shared.room_watch import RoomWatch
from shared.versions import VERSION
from workers import shard
from workers.calls import Calls, Lane
from workers.leases import Leases
from workers.provider import TokenUsage
from workers.shard import Parts, run_lone, run_shard
from workers.transport import Answer
from workers.writer import Entry, Writer

LEASE_S = 0.3


class Ledger(MemoryLedger):
    """`away`: it takes neither splits nor releases. `loses`: it takes the next split, and the reply is lost.

    `refuses`: it takes no answers.
    """

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.away = self.loses = self.refuses = False
        self.refused = self.renewed = 0
        self.due: list[float] = []
        self.split_takes: Callable[[], object] = lambda: None

    def renew(self, held: Sequence[tuple[str, int]], *, lease_s: float) -> list[Held]:
        self.renewed += len(held)
        return super().renew(held, lease_s=lease_s)

    def split(self, ref: str, token: int, split: Split) -> str | None:
        self._refuse()
        found = super().split(ref, token, split)
        if split.kind == "retry":
            self.due.append(time.time() + split.delay_s)
        self.split_takes()
        if self.loses:
            self.loses = False
            raise StoreUnavailableError("the reply was lost")
        return found

    def release(self, ref: str, token: int) -> bool:
        self._refuse()
        return super().release(ref, token)

    def finish(self, batch_id: str, outcomes: Sequence[Outcome], *, writer: str, serial: int) -> Finished:
        if self.refuses:
            raise StoreUnavailableError("away")
        return super().finish(batch_id, outcomes, writer=writer, serial=serial)

    def _refuse(self) -> None:
        if self.away:
            self.refused += 1
            raise StoreUnavailableError("away")


class Lines(MemoryFiles):
    """One job that is called, one that finds no store to begin by."""

    def slices(self, file_id: str, places: Sequence[tuple[int, int]]) -> list[bytes]:
        del file_id, places
        return [jsonl([line(name, "hello", model=name)]) for name in ("called", "blocked")]


class Upstream(BlindFleet):
    """A call ends when it is told to."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.answers = threading.Event()
        self.fails: ProviderError | None = None

    def acquire(self, candidates: Sequence[Candidate]) -> Permit | tuple[Block, ...]:
        (candidate,) = candidates
        if candidate.model == "blocked":
            return (Block(candidate.provider, Reason.STORE_AWAY, 0.0),)
        return Permit("1", 0, candidate, 0)

    def release(self, permit: Permit) -> None: ...

    def call(self, permit: Permit, provider: Provider, model: str, endpoint: str, body: bytes) -> Answer:
        del permit, provider, model, endpoint, body
        self.called.set()
        assert self.answers.wait(20)
        if self.fails is not None:
            raise self.fails
        return Answer(body=b"{}", usage=TokenUsage(), request_id=None, duration_s=0.1)


class Worker:
    """What a worker has for its shards, and the run of one whose jobs are those of `Lines`."""

    def __init__(self, callers: int = 4) -> None:
        self.ledger, lone, clock = Ledger(), MemoryLone(SystemClock()), SystemClock()
        self.upstream, self.calls, self.stopping = Upstream(), Calls(callers), threading.Event()
        self.writer = Writer(self.ledger, lone, "w", lambda _, __: None)
        self.leases = Leases(self.ledger, LEASE_S, worker)
        self.parts = Parts(
            ledger=self.ledger,
            lone=lone,
            files=Lines(clock),
            calls=self.calls,
            writer=self.writer,
            leases=self.leases,
            upstream=self.upstream,
            now=clock.now,
            catalogue=lambda: Catalogue(providers=(Provider(id="p", endpoint="http://127.0.0.1:1/v1"),)),
            room=RoomWatch(Room, 60.0),
            stopping=self.stopping,
            holder="w",
            lease_s=LEASE_S,
        )
        self.task = threading.Thread(target=self._run)
        self.sent: list[float] = []
        self.blamed = History()

    def start(self) -> None:
        made = spec()
        self.batch_id = made.id
        self.ledger.create(made)
        chore = self.ledger.take_chore(60)
        assert chore is not None
        self.ledger.start(chore, index=index(2), model=None)
        self.ledger._batches[made.id].histories[1] = self.blamed
        self.leases.start()
        self.calls.start()
        self.writer.start()
        (self.ref,) = self.ledger.feed(shard_size=2, most=1)
        self.task.start()
        assert self.upstream.called.wait(10)

    def _run(self) -> None:
        run_shard(self.ref, Lane.FRESH, self.parts, self._send)

    def _send(self, ref: str, delay_s: float, error: Exception) -> None:
        del ref, error
        self.sent.append(time.time() + delay_s)

    def progress(self) -> Progress:
        return self.ledger.progress(self.batch_id)

    def completed(self) -> int:
        found = self.ledger.get(self.batch_id)
        assert found is not None
        return found.completed

    def stop(self) -> None:
        self.ledger.away = self.ledger.refuses = False
        self.upstream.answers.set()
        self.task.join(10)
        self.writer.stop()
        self.leases.stop()
        self.calls.stop()


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(shard, "AGAIN_S", 0.02)
    found = Worker()
    found.ledger.away = True
    yield found
    found.stop()


@pytest.fixture
def narrow() -> Iterator[Worker]:
    """One call at a time."""
    found = Worker(callers=1)
    yield found
    found.stop()


def test_a_split_that_the_store_does_not_take_is_tried_again_and_the_lease_kept(running: Worker) -> None:
    running.start()
    wait_for(lambda: running.ledger.refused > 2, 10, "a few tries")
    before = running.ledger.renewed
    wait_for(lambda: running.ledger.renewed > before + 5, 10, "renewals beyond the lease")
    assert running.ledger.reap(most=10).recovered == 0
    running.ledger.away = False
    wait_for(lambda: running.progress().waiting, 10, "what could not begin to be parked")
    assert running.progress().running == 1, "the call in flight has its lease still"
    running.upstream.answers.set()
    running.task.join(10)
    assert (running.completed(), running.progress().running) == (1, 0)


def test_a_split_whose_reply_was_lost_is_done_once(running: Worker) -> None:
    running.ledger.away, running.ledger.loses = False, True
    running.start()
    wait_for(lambda: running.progress().waiting, 10, "the split")
    running.upstream.answers.set()
    running.task.join(10)
    assert not running.ledger.loses
    assert [w.jobs for w in running.progress().waiting] == [1]
    assert (running.completed(), running.progress().running) == (1, 0)


def test_a_retrys_hint_never_comes_before_the_ledgers_due_time(running: Worker) -> None:
    """It would be in vain, and the job wait for the reaper; so it is counted from the reply, however long that took."""
    pause = threading.Event()
    running.ledger.away = False
    running.ledger.split_takes = lambda: pause.wait(0.2)
    running.upstream.fails = ProviderFailedError("500", http_status=500)
    running.start()
    running.upstream.answers.set()
    running.task.join(10)
    (sent,), (due,) = running.sent, running.ledger.due
    assert sent >= due


def test_a_release_that_the_store_does_not_take_is_tried_again(running: Worker) -> None:
    running.upstream.answers.set()
    running.start()
    wait_for(lambda: running.ledger.refused > 2, 10, "a few tries")
    running.ledger.away = False
    running.task.join(10)
    assert running.progress().running == 0


def test_a_worker_that_stops_meanwhile_waits_for_its_calls_and_leaves_the_rest_to_the_lease(
    running: Worker,
) -> None:
    running.start()
    wait_for(lambda: running.ledger.refused > 2, 10, "a few tries")
    running.stopping.set()
    before = running.ledger.renewed
    wait_for(lambda: running.ledger.renewed > before + 5, 10, "renewals beyond the lease")
    assert running.task.is_alive(), "a call is in flight"
    running.upstream.answers.set()
    running.task.join(10)
    assert not running.task.is_alive()
    assert (running.completed(), running.progress().waiting) == (1, ())


def test_what_does_not_begin_since_no_answer_could_be_kept_leaves_its_shard(
    narrow: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "STUCK_S", 0.0)
    narrow.start()
    narrow.ledger.refuses = True
    narrow.writer.put(Entry("batch_gone", outcome(0), lambda _: None))
    wait_for(lambda: narrow.writer.stuck_s, 10, "an answer to be refused")
    narrow.upstream.answers.set()
    found = wait_for(lambda: narrow.progress().waiting, 10, "the other job to leave")
    assert [(w.reason, w.jobs) for w in found] == [("store_away", 1)]
    assert narrow.task.is_alive(), "the answer waits here to be written"
    narrow.ledger.refuses = False
    narrow.task.join(10)
    assert narrow.completed() == 1


def test_a_job_that_killed_its_workers_ends_with_that_and_is_not_called(narrow: Worker) -> None:
    """The other runs as ever."""
    narrow.upstream.answers.set()
    narrow.blamed = History(recoveries=6, alone=3)
    narrow.start()
    narrow.task.join(10)
    rest = narrow.ledger.segment(narrow.batch_id, 0)
    assert rest.states == "df"
    line = json.loads(rest.results[1])
    assert line["error"]["code"] == "worker_killed"
    assert (
        "died 6 times while it ran this job, the last 3 times with no other suspect"
        in line["error"]["message"]
    )
    assert line["custom_id"] == "blocked"


@pytest.mark.parametrize("others", [0, 1])
def test_a_worker_that_finds_only_newer_lone_jobs_hints_where_there_are_others(
    monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    monkeypatch.setattr(memory_lone, "MOST_LEFT", 1)
    parts, hints, newer = Worker().parts, list[int](), job()
    assert isinstance(parts.lone, MemoryLone)
    parts.lone.submit([newer, *(job() for _ in range(others))])
    parts.lone._jobs[newer.spec.id].v = VERSION + 1
    assert not run_lone(parts, lambda *_: None, lambda: hints.append(1))
    assert len(hints) == others


def test_a_worker_leaves_a_newer_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "_run", None)
    found, made = Worker(), spec()
    found.ledger.create(made)
    chore = found.ledger.take_chore(60)
    assert chore is not None
    found.ledger.start(chore, index=index(2), model=None)
    found.ledger.beat(worker())
    (ref,) = found.ledger.feed(shard_size=2, most=1)
    found.ledger._batches[made.id].update(v=VERSION + 1)
    assert not run_shard(ref, Lane.FRESH, found.parts, lambda *_: None)
    assert found.ledger.progress(made.id).waiting[0].reason == Reason.NEWER
