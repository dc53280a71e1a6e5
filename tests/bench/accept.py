"""`python -m tests.bench.accept [small|full]`: how fast a batch is taken in, from upload to `in_progress`. Prints; asserts nothing."""

import sys
import time
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.shown import show
from bench.table import Table
from support.batches import jsonl, line, submit
from support.stack import Stack, running_stack
from support.waiting import wait_for

from api.cli.corpus import functions

LINES = {"small": 5000, "full": 50_000}
TIMES = 3


def rows(size: str) -> Table:
    count = LINES[size]
    data = corpus(count)
    with running_stack(workers=0) as stack:
        took_s = sorted(_accepted(stack, data) for _ in range(TIMES))
    return Table(
        name="accepting a batch, from upload to in_progress",
        head=["lines", "MB", "jobs/s", "seconds", "fastest", "slowest"],
        rows=[
            [
                f"{count:,}",
                f"{len(data) / 1e6:.1f}",
                f"{count / took_s[TIMES // 2]:,.0f}",
                f"{took_s[TIMES // 2]:.2f}",
                f"{took_s[0]:.2f}",
                f"{took_s[-1]:.2f}",
            ]
        ],
        notes=f"the median of {TIMES} batches one after another; nothing of them runs meanwhile",
    )


def corpus(count: int) -> bytes:
    """Real text: docstrings, the same ones again with another number where there are not enough."""
    prompts = [function.prompt for function in islice(functions(), 4000)]
    return jsonl([line(f"job-{n}", f"{n}: {prompts[n % len(prompts)]}") for n in range(count)])


def _accepted(stack: Stack, data: bytes) -> float:
    with stack.client as client:
        started = time.perf_counter()
        batch = submit(client, data)
        wait_for(
            lambda: client.batches.retrieve(batch.id).status == "in_progress", 60, "validation", every_s=0.01
        )
        return time.perf_counter() - started


if __name__ == "__main__":
    show(rows)
