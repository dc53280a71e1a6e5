"""How fast a batch is taken in, and how much of Redis a queued job takes."""

import time

from bench.prompts import rows
from bench.report import Budget, Finding
from bench.section import Size, batch, fleet, wait_for_status
from support.stack import Stack


def _memory(stack: Stack) -> float:
    with stack.valkey.client() as redis:
        info = redis.info("memory")
        assert isinstance(info, dict)
        return float(info["used_memory"])


def _once(data: bytes, jobs: int) -> tuple[float, float]:
    """(jobs/s, bytes a job); without workers, so that all of them stay queued."""
    with fleet(workers=0) as stack:
        before = _memory(stack)
        started = time.monotonic()
        wait_for_status(stack, batch(stack, data).id, "in_progress")
        return jobs / (time.monotonic() - started), (_memory(stack) - before) / jobs


def run(size: Size) -> Finding:
    jobs = size.jobs(50_000)
    data = rows(jobs)
    line = len(data) / jobs
    found = [_once(data, jobs) for _ in range(size.rounds)]
    rate, stored = min(r for r, _ in found), max(b for _, b in found)
    return Finding(
        title="Taking a batch in",
        columns=["", ""],
        rows=[
            [
                f"{jobs:,} lines, jobs/s from upload to `in_progress`",
                ", ".join(f"{r:,.0f}" for r, _ in found),
            ],
            ["bytes of Redis a queued job", f"{stored:,.0f}, its line having {line:,.0f}"],
        ],
        budgets=[
            Budget("accepting a batch", ">= 20,000 jobs/s", f"{rate:,.0f} jobs/s", rate >= 20_000),
            Budget("Redis a queued job", "<= its line + 200 bytes", f"{stored:,.0f}", stored <= line + 200),
        ],
        notes=["Input files are kept compressed; a job is a slice of one."],
        figures={"per_s": [r for r, _ in found], "bytes": stored, "line": line},
    )
