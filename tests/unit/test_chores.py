"""Validation and finalizing on the memory twins: from an input file to its output and error files."""

import json

import pytest

from shared.catalogue import Catalogue, Provider
from shared.clock import ManualClock
from shared.files import CHUNK_BYTES, FileRecord
from shared.finalize import finalize, roll_up
from shared.ids import new_batch_id, new_file_id
from shared.jobs import SEGMENT, Batch, BatchSpec, BatchStatus, Chore, Outcome, Usage, WorkerRecord
from shared.lines import MAX_FAULTS
from shared.memory_files import MemoryFiles
from shared.memory_ledger import MemoryLedger
from shared.validate import validate

CATALOGUE = Catalogue(providers=(Provider(id="p1", endpoint="http://127.0.0.1:1/v1"),))


class World:
    def __init__(self, data: bytes, max_jobs: int = 50_000) -> None:
        self.clock = ManualClock()
        self.ledger = MemoryLedger(self.clock)
        self.files = MemoryFiles(self.clock)
        self.max_jobs = max_jobs
        file_id = new_file_id()
        chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        self.files.put(file_id, 0, chunks)
        self.spec = BatchSpec(
            id=new_batch_id(),
            owner="default",
            endpoint="/v1/chat/completions",
            input_file_id=file_id,
            input_chunks=len(chunks),
            completion_window="24h",
            window_s=86400,
            retention_s=3600,
            output_file_id=new_file_id(),
            error_file_id=new_file_id(),
        )
        self.files.publish(
            FileRecord(
                id=file_id,
                owner="default",
                filename="in.jsonl",
                purpose="batch",
                bytes=len(data),
                created_at=0,
                expires_at=None,
                chunks=len(chunks),
                chunk_bytes=CHUNK_BYTES,
            )
        )
        self.ledger.create(self.spec)
        self.files.pin(file_id, self.spec.id, self.clock.now() + 1e6)

    def chore(self) -> Chore:
        chore = self.ledger.take_chore(10)
        assert chore is not None
        return chore

    def validate(self) -> Batch:
        validate(
            self.chore(),
            self.spec,
            ledger=self.ledger,
            files=self.files,
            catalogue=CATALOGUE,
            max_jobs=self.max_jobs,
            keep=lambda: True,
        )
        return self.batch()

    def batch(self) -> Batch:
        batch = self.ledger.get(self.spec.id)
        assert batch is not None
        return batch

    def finish(self, jobs: range, *, ok: bool = True) -> None:
        outcomes = [
            Outcome(
                index=j,
                ok=ok,
                line=json.dumps({"custom_id": f"j{j}"}).encode() + b"\n",
                provider="p1",
                usage=Usage(),
            )
            for j in jobs
        ]
        self.ledger.finish(self.spec.id, outcomes, writer="w", serial=hash((jobs.start, jobs.stop, ok)))

    def finalize(self) -> Batch:
        chore = self.chore()
        ended = finalize(chore, self.batch(), ledger=self.ledger, files=self.files, keep=lambda: True)
        assert ended is not None
        return ended

    def lines(self, file_id: str) -> list[dict[str, object]]:
        record = self.files.get(file_id)
        assert record is not None
        data = b"".join(self.files.read(file_id, record.chunks))
        assert len(data) == record.bytes
        return [json.loads(line) for line in data.splitlines()]


def request(custom_id: str, **body: object) -> bytes:
    fields = {"model": "m", "messages": [{"role": "user", "content": "hello"}], **body}
    return json.dumps(
        {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": fields}
    ).encode()


def requests(count: int) -> bytes:
    return b"\n".join(request(f"j{n}") for n in range(count))


def test_a_good_file_starts_its_batch() -> None:
    batch = World(requests(300)).validate()
    assert (batch.status, batch.total, batch.model) == (BatchStatus.IN_PROGRESS, 300, "m")


def test_two_models_leave_the_batchs_model_open() -> None:
    assert World(request("a") + b"\n" + request("b", model="n")).validate().model is None


@pytest.mark.parametrize("data", [b"", b"\n\n  \r\n"])
def test_an_empty_file_fails(data: bytes) -> None:
    batch = World(data).validate()
    assert batch.status is BatchStatus.FAILED
    assert [f.code for f in batch.errors] == ["empty_file"]


def test_every_fault_is_named_with_its_line() -> None:
    data = b"\n".join([request("a"), b"{", request("a"), request("b", stream=True)])
    batch = World(data).validate()
    assert [(f.line, f.code) for f in batch.errors] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "stream_not_supported"),
    ]


def test_only_the_first_hundred_faults_are_listed() -> None:
    assert len(World(b"{\n" * 500).validate().errors) == MAX_FAULTS


def test_one_line_too_many_fails() -> None:
    assert World(requests(10), max_jobs=10).validate().status is BatchStatus.IN_PROGRESS
    batch = World(requests(11), max_jobs=10).validate()
    assert [f.code for f in batch.errors] == ["too_many_tasks"]


def test_a_file_that_is_gone_fails_its_batch() -> None:
    world = World(requests(3))
    world.files.unpin(world.spec.input_file_id, world.spec.id)
    world.files.delete(world.spec.input_file_id)
    batch = world.validate()
    assert [f.code for f in batch.errors] == ["file_not_found"]


def test_a_file_deleted_after_the_batch_was_made_still_runs() -> None:
    world = World(requests(3))
    world.files.delete(world.spec.input_file_id)
    assert world.validate().status is BatchStatus.IN_PROGRESS


def test_the_output_comes_in_input_order_and_is_complete() -> None:
    total = 2 * SEGMENT + 5
    world = World(requests(total))
    world.validate()
    world.finish(range(SEGMENT, total))
    world.finish(range(3), ok=False)
    world.finish(range(3, SEGMENT))
    assert roll_up(world.spec, 1, ledger=world.ledger, files=world.files)
    ended = world.finalize()
    assert (ended.status, ended.completed, ended.failed) == (BatchStatus.COMPLETED, total - 3, 3)
    ids = [line["custom_id"] for line in world.lines(world.spec.output_file_id)]
    assert ids == [f"j{n}" for n in range(3, total)]
    assert [line["custom_id"] for line in world.lines(world.spec.error_file_id)] == ["j0", "j1", "j2"]


def test_without_failures_there_is_no_error_file() -> None:
    world = World(requests(2))
    world.validate()
    world.finish(range(2))
    world.finalize()
    assert world.files.get(world.spec.error_file_id) is None


@pytest.mark.parametrize(("expire", "code"), [(True, "batch_expired"), (False, "batch_cancelled")])
def test_what_never_ran_stands_in_the_error_file(expire: bool, code: str) -> None:
    world = World(requests(SEGMENT + 4))
    world.validate()
    world.finish(range(2))
    if expire:
        world.clock.advance(86401)
        world.ledger.reap(most=10)
    else:
        world.ledger.cancel(world.spec.id)
    ended = world.finalize()
    assert ended.completed + ended.failed == SEGMENT + 4
    errors = world.lines(world.spec.error_file_id)
    assert [line["custom_id"] for line in errors] == [f"j{n}" for n in range(2, SEGMENT + 4)]
    assert {line["error"]["code"] for line in errors} == {code}  # type: ignore[index]
    assert len(world.lines(world.spec.output_file_id)) == 2


def test_finalizing_that_was_cut_short_is_taken_up_by_another() -> None:
    world = World(requests(3 * SEGMENT))
    world.validate()
    world.finish(range(3 * SEGMENT))
    steps = iter([True, True, False])
    cut = finalize(
        world.chore(), world.batch(), ledger=world.ledger, files=world.files, keep=lambda: next(steps)
    )
    assert cut is None
    assert world.batch().status is BatchStatus.FINALIZING
    world.clock.advance(11)
    assert world.finalize().completed == 3 * SEGMENT
    assert len(world.lines(world.spec.output_file_id)) == 3 * SEGMENT


def test_a_worker_keeps_its_turn_only_while_it_holds_the_chore() -> None:
    world = World(requests(500))
    validate(
        world.chore(),
        world.spec,
        ledger=world.ledger,
        files=world.files,
        catalogue=CATALOGUE,
        max_jobs=1000,
        keep=lambda: False,
    )
    assert world.batch().status is BatchStatus.VALIDATING
    world.ledger.beat(WorkerRecord(id="w", pool="p", concurrency=1, capacity=1, version="0", started_at=0))
