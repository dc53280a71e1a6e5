"""`python -m tests.bench.memory [JOBS]`: what Redis keeps of a job, measured on an embedded Valkey. Prints; asserts nothing.

Bodies and answers are cut from one long real text (docstrings), which repeats itself only beyond what compression sees.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from redis import Redis
from rich.console import Console
from rich.table import Table
from support.batches import jsonl, line
from support.ledgers import outcome, spec
from support.lone import job, result
from support.valkey import running_valkey

from api.cli.corpus import functions
from shared.catalogue import Catalogue, Provider
from shared.files import CHUNK_BYTES, FileRecord
from shared.finalize import finalize
from shared.jobs import SEGMENT, Outcome
from shared.redis_client import connect
from shared.redis_files import RedisFiles
from shared.redis_ledger import RedisLedger
from shared.redis_lone import RedisLone
from shared.redis_url import parse_redis_url
from shared.validate import validate

KB = 1000
BODIES = (1 * KB, 4 * KB)
ANSWER = 1 * KB
_GROUP = 128


def texts(size: int) -> Iterator[str]:
    """Pieces of that many characters of one text, for ever."""
    whole = _whole()
    for at in itertools.cycle(range(0, len(whole) - size, size)):
        yield whole[at : at + size]


@cache
def _whole() -> str:
    return "\n\n".join(function.prompt for function in functions())


class Meter:
    """Bytes of Redis per job since the last reading."""

    def __init__(self, client: "Redis", jobs: int) -> None:
        self._client = client
        self._jobs = jobs
        self._before = self._used()

    def _used(self) -> int:
        return int(self._client.info("memory")["used_memory"])

    def per_job(self) -> float:
        return (self._used() - self._before) / self._jobs


def batch_of(client: "Redis", jobs: int, size: int) -> list[float]:
    """(line, queued, answered but not rolled up, ended) bytes a job."""
    ledger, files = RedisLedger(client), RedisFiles(client)
    made = spec(input_chunks=0)
    pieces = texts(size - 190)
    data = jsonl([line(f"job-{n}", next(pieces)) for n in range(jobs)])
    meter = Meter(client, jobs)
    chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    for first in range(0, len(chunks), 16):
        files.put(made.input_file_id, first, chunks[first : first + 16])
    record = FileRecord(
        id=made.input_file_id, owner="default", filename="in.jsonl", purpose="batch", bytes=len(data),
        created_at=int(time.time()), expires_at=None, chunks=len(chunks), chunk_bytes=CHUNK_BYTES, lines=jobs,
    )  # fmt: skip
    files.publish(record)
    made = spec(id=made.id, input_file_id=record.id, input_chunks=len(chunks), lines=jobs)
    ledger.create(made)
    chore = ledger.take_chore(600)
    assert chore is not None
    catalogue = Catalogue(providers=(Provider(id="p", endpoint="http://127.0.0.1:9/v1"),))
    validate(chore, made, ledger=ledger, files=files, catalogue=catalogue, max_jobs=jobs, keep=lambda: True)
    batch = ledger.get(made.id)
    assert batch is not None
    assert batch.total == jobs, batch.errors
    queued = meter.per_job()
    answers = answered(texts(ANSWER - 40))
    serials = itertools.count(1)
    for first in range(0, jobs, SEGMENT):
        some = [answers(n) for n in range(first, min(first + SEGMENT, jobs))]
        ledger.finish(made.id, some, writer="w", serial=next(serials))
    open_ = meter.per_job()
    chore = ledger.take_chore(600)
    batch = ledger.get(made.id)
    assert chore is not None
    assert batch is not None
    finalize(chore, batch, ledger=ledger, files=files, keep=lambda: True)
    return [len(data) / jobs, queued, open_, meter.per_job()]


def answered(pieces: Iterator[str]) -> Callable[[int], Outcome]:
    def answer(n: int) -> Outcome:
        text = jsonl([{"id": f"batch_req_{n}", "response": next(pieces)}])
        return outcome(n, line=text)

    return answer


def lone_of(client: "Redis", jobs: int, size: int) -> list[float]:
    """(body, queued, ended) bytes a job; nothing of a lone job is compressed."""
    lone = RedisLone(client)
    pieces = texts(size - 40)
    known = [job(body=jsonl([{"model": "m", "x": next(pieces)}])) for _ in range(jobs)]
    size_ = sum(len(new.body) for new in known) / jobs
    meter = Meter(client, jobs)
    for first in range(0, jobs, _GROUP):
        lone.submit(known[first : first + _GROUP])
    queued = meter.per_job()
    answers = texts(ANSWER - 40)
    serials = itertools.count(1)
    while (claim := lone.claim(waited=0, rest=50, holder="w", lease_s=600)) is not None:
        some = [result(slip.id) for slip in claim.slips]
        lines = [jsonl([{"id": o.id, "response": next(answers)}]) for o in some]
        rows = [Outcome(index=0, id=o.id, ok=True, line=text) for o, text in zip(some, lines, strict=True)]
        lone.finish(rows, writer="w", serial=next(serials))
        lone.release(claim.ref, claim.token)
    return [size_, queued, meter.per_job()]


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    table = Table(
        title=f"bytes of Redis a job (GB a million jobs: / 1,000), {jobs:,} jobs, answers of {ANSWER / KB:g} kB"
    )
    for column in (
        "",
        "the line's own",
        "queued",
        "beyond the line",
        "all answered, none rolled up",
        "ended",
    ):
        table.add_column(column)
    with running_valkey(maxmemory=16 * 2**30) as server:
        client = connect(parse_redis_url(server.url), role="worker", max_connections=4)
        for size in BODIES:
            client.flushall()
            own, queued, open_, ended = batch_of(client, jobs, size)
            row = [own, queued, queued - own, open_, ended]
            table.add_row(f"batch, {size / KB:g} kB", *(f"{value:,.0f}" for value in row))
        for size in BODIES:
            client.flushall()
            own, queued, ended = lone_of(client, jobs, size)
            row = [own, queued, queued - own]
            table.add_row(f"lone, {size / KB:g} kB", *(f"{value:,.0f}" for value in row), "", f"{ended:,.0f}")
        client.close()
        client.connection_pool.disconnect()
    Console().print(table)


if __name__ == "__main__":
    main()
