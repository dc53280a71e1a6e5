"""A fleet without limits, and a provider that bears so many calls at a time and tells nobody: what it saw, second by second."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from support.batches import lines, outcomes, submit, wait_for_end
from support.stack import running_stack

LATENCY_S = 1.0
REFUSES_AT = 1.25
"""Times its capacity: above the one it becomes slow, above the other it answers 429."""

WORKERS = 4
CONCURRENCY = 64
BATCH_CALLS = WORKERS * int(CONCURRENCY * 0.8)
"""That would be in flight, were it for the workers alone."""

_TAIL_S = 5
_END_S = 240.0
_REFUSED = 429


class Second(NamedTuple):
    """`in_flight` is a mean over time of calls that the provider worked on; those that it refused take no time."""

    in_flight: float
    answered: int
    refused: int


class Run(NamedTuple):
    """`failed` counts jobs. The last seconds, in which fewer jobs are left than the provider bears, are not among `seconds`."""

    capacity: int
    jobs: int
    failed: int
    seconds: list[Second]

    @property
    def settled(self) -> list[Second]:
        """The last half."""
        return self.seconds[len(self.seconds) // 2 :]

    @property
    def in_flight(self) -> float:
        """The mean of the last half, as is what follows."""
        return sum(s.in_flight for s in self.settled) / len(self.settled)

    @property
    def of_best(self) -> float:
        """Answers, as a share of what the provider gives at its best."""
        return sum(s.answered for s in self.settled) / len(self.settled) * LATENCY_S / self.capacity

    @property
    def refused(self) -> float:
        """The share of calls answered 429."""
        bad, good = sum(s.refused for s in self.settled), sum(s.answered for s in self.settled)
        return bad / (bad + good)

    @property
    def in_words(self) -> str:
        return (
            f"bears {self.capacity}: {self.in_flight:.1f} in flight, {self.of_best:.0%} of the best throughput,"
            f" {self.refused:.1%} answered 429, over the last {len(self.settled)} of {len(self.seconds)} s"
        )


def observe(capacity: int, span_s: float) -> Run:
    """A batch that takes `span_s` seconds at the provider's best, over real workers, as the simulator's log has it."""
    refuses = round(capacity * REFUSES_AT)
    simulator = ("--latency-s", f"{LATENCY_S}", "--capacity", f"{capacity}", "--concurrency", f"{refuses}")
    jobs = round(capacity / LATENCY_S * span_s)
    with running_stack(*simulator, workers=WORKERS, LLM_EDGE_CONCURRENCY=str(CONCURRENCY)) as stack:
        ended = wait_for_end(stack.client, submit(stack.client, lines(jobs)).id, _END_S, every_s=1.0)
        found = outcomes(stack.client, ended)
        calls = stack.simulator.calls()
    assert len(found) == jobs
    failed = sum(row["error"] is not None for row in found.values())
    return Run(capacity, jobs, failed, by_second(calls)[:-_TAIL_S])


def by_second(calls: Sequence[dict[str, Any]]) -> list[Second]:
    """Of the simulator's log, from its first call on."""
    began = min(call["received_at"] for call in calls)
    count = int(max(call["ended_at"] for call in calls) - began) + 1
    borne, answered, refused = [0.0] * count, [0] * count, [0] * count
    for call in calls:
        start, end = call["received_at"] - began, call["ended_at"] - began
        if call["status"] == _REFUSED:
            refused[int(start)] += 1
            continue
        answered[int(end)] += 1
        for n in range(int(start), int(end) + 1):
            borne[n] += min(end, n + 1) - max(start, n)
    return [Second(*each) for each in zip(borne, answered, refused, strict=True)]
