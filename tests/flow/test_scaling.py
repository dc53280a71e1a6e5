"""`make scaling` in its small form: simulated workers work a real ledger off, and nothing is lost or doubled."""

from scaling import lonely
from scaling.filling import Filler
from scaling.life import live
from scaling.scene import scene
from scaling.working import Phases

from shared.jobs import BatchStatus

JOBS, WORKERS, BATCH = 20_000, 20, 7_000


def test_each_job_is_finished_once() -> None:
    with scene() as made:
        phases, ended = live(made, Filler(made, most=BATCH), JOBS, WORKERS)
        assert phases.jobs["finish"] == JOBS
        totals = []
        for name in ended:
            batch = made.ledger.get(name)
            assert batch is not None
            assert (batch.status, batch.completed, batch.failed) == (BatchStatus.COMPLETED, batch.total, 0)
            record = made.files.get(batch.spec.output_file_id)
            assert record is not None
            lines = b"".join(made.files.read(record.id, record.chunks)).splitlines()
            assert len(set(lines)) == len(lines) == batch.output_lines == batch.total
            totals.append(batch.total)
        assert sorted(totals) == [6_000, 7_000, 7_000]
        assert made.client.get("le:load") == b"0"


def test_each_lone_job_is_finished_once() -> None:
    jobs = 2_000
    with scene() as made:
        phases = Phases()
        lonely.submit(made, jobs, phases)
        assert lonely.work(made, jobs, phases) == jobs
        assert lonely.work(made, jobs, phases) == 0
