from collections.abc import Sequence

from support.ledgers import index, outcome, spec
from support.waiting import wait_for

from shared.clock import SystemClock
from shared.errors import StoreUnavailableError
from shared.jobs import Finished, Outcome, Usage
from shared.memory_ledger import MemoryLedger
from shared.memory_lone import MemoryLone
from workers.writer import Entry, Writer


class FlakyLedger(MemoryLedger):
    """Away for the first calls; then it takes one and loses the answer."""

    def __init__(self, away: int, lost: int) -> None:
        super().__init__(SystemClock())
        self.away, self.lost, self.calls = away, lost, 0

    def finish(self, batch_id: str, outcomes: Sequence[Outcome], *, writer: str, serial: int) -> Finished:
        self.calls += 1
        if self.calls <= self.away:
            raise StoreUnavailableError("away")
        finished = super().finish(batch_id, outcomes, writer=writer, serial=serial)
        if self.calls <= self.away + self.lost:
            raise StoreUnavailableError("the answer was lost")
        return finished


def started(ledger: MemoryLedger, total: int) -> str:
    made = spec()
    ledger.create(made)
    chore = ledger.take_chore(60)
    assert chore is not None
    ledger.start(chore, index=index(total), model=None)
    return made.id


def test_an_answer_that_redis_refuses_is_kept_and_counted_once() -> None:
    ledger = FlakyLedger(away=1, lost=1)
    batch_id = started(ledger, 3)
    written: list[bool | None] = []
    told: list[Finished] = []
    writer = Writer(ledger, MemoryLone(SystemClock()), "w", lambda _, finished: told.append(finished))
    for job in (0, 1, 1):
        writer.put(Entry(batch_id, outcome(job), written.append))
    writer.start()
    wait_for(lambda: len(written) == 3, 10, "all to be written")
    writer.stop()
    assert written == [True, True, False]
    assert writer.stuck_s == 0.0
    batch = ledger.get(batch_id)
    assert batch is not None
    assert batch.completed == 2
    assert batch.tallies["p1"].usage.input_tokens == 30
    assert len(told) == 1


def test_an_outcome_that_cannot_be_written_keeps_back_no_other() -> None:
    class Choosy(FlakyLedger):
        def finish(self, batch_id: str, outcomes: Sequence[Outcome], *, writer: str, serial: int) -> Finished:
            if any(o.index == 1 or (o.index == 2 and o.usage != Usage()) for o in outcomes):
                raise OverflowError("no room for it")
            return super().finish(batch_id, outcomes, writer=writer, serial=serial)

    ledger = Choosy(away=0, lost=0)
    batch_id = started(ledger, 3)
    written: list[bool | None] = []
    writer = Writer(ledger, MemoryLone(SystemClock()), "w", lambda *_: None)
    for job in range(3):
        writer.put(Entry(batch_id, outcome(job), written.append))
    writer.start()
    wait_for(lambda: len(written) == 3, 10, "all to be told")
    writer.stop()
    assert written == [True, None, True]
    batch = ledger.get(batch_id)
    assert batch is not None
    assert batch.tallies["p1"].usage.input_tokens == 10, "the third was kept without its figures"


def test_what_waits_goes_out_together_and_by_batch() -> None:
    ledger = FlakyLedger(away=0, lost=0)
    one, two = started(ledger, 50), started(ledger, 50)
    written: list[bool | None] = []
    writer = Writer(ledger, MemoryLone(SystemClock()), "w", lambda *_: None)
    for job in range(50):
        writer.put(Entry(one, outcome(job), written.append))
        writer.put(Entry(two, outcome(job), written.append))
    writer.start()
    wait_for(lambda: len(written) == 100, 10, "all to be written")
    writer.stop()
    assert ledger.calls == 2


def test_stopping_writes_what_is_waiting() -> None:
    ledger = FlakyLedger(away=0, lost=0)
    batch_id = started(ledger, 5)
    writer = Writer(ledger, MemoryLone(SystemClock()), "w", lambda *_: None)
    writer.start()
    for job in range(5):
        writer.put(Entry(batch_id, outcome(job), lambda _: None))
    writer.stop()
    batch = ledger.get(batch_id)
    assert batch is not None
    assert batch.completed == 5
