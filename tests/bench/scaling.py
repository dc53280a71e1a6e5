"""What a second worker brings, from the start and in the middle of a batch. The provider answers after 50 ms."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from bench.prompts import rows
from bench.report import Budget, Finding
from bench.section import IN_FLIGHT, Size, batch, fleet, run_batch, wait_for_status, warm
from support.stack import Stack
from support.waiting import wait_for

LATENCY_S = 0.05
SHARE = 0.45
"""Of the calls in a window; half is a worker's fair share."""
WINDOW_S = 0.5


def _rate(workers: int, jobs: int) -> float:
    with fleet(LATENCY_S, workers) as stack:
        warm(stack)
        return jobs / run_batch(stack, rows(jobs))


@contextmanager
def _two_keys(stack: Stack) -> Iterator[None]:
    """Each worker shows the provider a key of its own, so that the simulator's log tells whose call it was."""
    sim = {"id": "sim", "endpoint": stack.simulator.base_url, "api_key_env": "BENCH_KEY"}
    stack.configure([{**sim, "cost_per_1k_tokens": 0.01}])
    stack.env["BENCH_KEY"] = "first"
    stack.start_worker()
    yield
    stack.env["BENCH_KEY"] = "second"


def _joining(jobs: int) -> tuple[float, float, float]:
    """Seconds after the second worker's process was started: until it reported, its first call, its full share."""
    with fleet(LATENCY_S, workers=0, BENCH_KEY="first") as stack:
        with _two_keys(stack):
            warm(stack)
            done = stack.simulator.stats()["default"]["calls"]
            batch_id = batch(stack, rows(jobs)).id
            wait_for(lambda: stack.simulator.stats()["default"]["calls"] > done + 500, 60, "the first worker")
        started = time.time()
        stack.start_worker()
        reported_s = time.time() - started
        wait_for_status(stack, batch_id, "completed")
        calls = stack.simulator.calls(after=done)
    own, second = calls[0]["authorization_sha256"], [c for c in calls if c["received_at"] >= started]
    first_s = next(c["received_at"] for c in second if c["authorization_sha256"] != own) - started
    seen: Counter[int] = Counter()
    joined: Counter[int] = Counter()
    for call in second:
        window = int((call["received_at"] - started) / WINDOW_S)
        seen[window] += 1
        joined[window] += call["authorization_sha256"] != own
    full = next((w for w in sorted(seen) if joined[w] >= SHARE * seen[w]), None)
    return reported_s, first_s, float("inf") if full is None else (full + 1) * WINDOW_S


def run(size: Size) -> Finding:
    one = [_rate(1, size.jobs(10_000)) for _ in range(size.rounds)]
    two = [_rate(2, size.jobs(20_000)) for _ in range(size.rounds)]
    reported_s, first_s, full_s = _joining(max(size.jobs(20_000), 10_000))
    ratio = median(two) / median(one)
    return Finding(
        title="A second worker, provider answering after 50 ms",
        columns=["", ""],
        rows=[
            ["one worker, completions/s", ", ".join(f"{r:,.0f}" for r in one)],
            ["two workers", ", ".join(f"{r:,.0f}" for r in two)],
            ["ratio of the medians", f"{ratio:.2f} x"],
            ["worker started in mid-batch: reports after", f"{reported_s:.1f} s"],
            ["makes its first call after", f"{first_s:.1f} s"],
            [f"has {SHARE:.0%} of the calls after", f"{full_s:.1f} s"],
        ],
        budgets=[
            Budget("two workers to one", ">= 1.8 x", f"{ratio:.2f} x", ratio >= 1.8),
            Budget("an added worker carries its share", "within 5 s", f"{full_s:.1f} s", full_s <= 5),
        ],
        notes=[
            (
                f"{IN_FLIGHT} calls in flight a worker, so {IN_FLIGHT / LATENCY_S:,.0f} completions/s each at most;"
                " seconds are counted from the start of the worker's process, its imports included."
            )
        ],
        figures={"one": one, "two": two, "reported_s": reported_s, "first_s": first_s, "full_s": full_s},
    )
