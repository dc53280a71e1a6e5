"""What the memory ledger keeps of one batch, and the arithmetic of histories and tallies that the scripts do in Lua."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from shared.jobs import (
    PENDING,
    TRIES,
    Batch,
    BatchStatus,
    History,
    Outcome,
    Split,
    Tally,
    Try,
    Usage,
    served,
)


@dataclass
class Shard:
    jobs: list[int]
    state: str = "ready"
    at: float = 0.0  # when the reaper must look at it
    due: float = 0.0
    token: int = 0
    claimed_at: float = 0.0
    holder: str = ""
    counted: int = 0  # jobs it counts for in the fleet's load
    reason: str = ""
    provider: str = ""
    parked_since: float | None = None
    until: float = 0.0
    lane: bool = False  # its jobs are suspects


@dataclass
class BatchState:
    view: Batch
    deadline: float
    closing: str = ""
    grace_at: float | None = None
    cursor: int = 0
    tokens: int = 0
    chore_token: int = 0
    states: list[str] = field(default_factory=list)
    index: bytes = b""
    results: dict[int, bytes] = field(default_factory=dict)
    rolled: set[int] = field(default_factory=set)
    histories: dict[int, History] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict)
    serial: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    keep_until: float = math.inf

    @property
    def leases(self) -> int:
        return sum(shard.state == "leased" for shard in self.shards.values())

    @property
    def claimable(self) -> bool:
        return self.view.status is BatchStatus.IN_PROGRESS and not self.closing

    def update(self, **changes: object) -> None:
        self.view = msgspec.structs.replace(self.view, **changes)

    def reach(self, status: BatchStatus, moment: str, now: float) -> None:
        self.update(status=status, at=msgspec.structs.replace(self.view.at, **{moment: int(now)}))

    def pending(self, jobs: Sequence[int]) -> list[int]:
        return [job for job in jobs if job < len(self.states) and self.states[job] == PENDING]


def history_after(
    before: History | None, split: Split, claimed_at: float, tries: Sequence[Try]
) -> History | None:
    if split.blocked and not tries:
        return before
    history = before or History(since=claimed_at)
    tried = tuple(p for p in history.tried if p != split.provider) + (
        (split.provider,) if split.provider else ()
    )
    attempts = history.attempts + (1 if split.charged else 0)
    faults = history.faults + sum(call.fault for call in tries)
    since = history.since
    if split.anew:
        attempts, faults, since = 0, 0, claimed_at
    if since == 0.0 and (attempts > 0 or faults > 0):
        since = claimed_at
    return msgspec.structs.replace(
        history,
        attempts=attempts,
        faults=faults,
        since=since,
        tried=tried,
        parked=history.parked + (1 if split.kind == "park" or not split.charged else 0),
        tries=(*history.tries, *tries)[-TRIES:],
    )


def note_served(latest: dict[str, float], outcomes: Sequence[Outcome]) -> None:
    """Into `latest`, which the ledger of batches and that of lone jobs have in common."""
    for provider, began in served(outcomes).items():
        latest[provider] = max(began, latest.get(provider, 0.0))


def tries_of(split: Split) -> dict[int | str, Sequence[Try]]:
    """By job."""
    return dict(zip(split.jobs, split.tries or ((),) * len(split.jobs), strict=True))


def booked(tally: Tally, outcome: Outcome, *, first: bool) -> Tally:
    used, sums = outcome.usage, tally.usage
    return Tally(
        completed=tally.completed + (1 if first and outcome.ok else 0),
        failed=tally.failed + (1 if first and not outcome.ok else 0),
        usage=Usage(
            input_tokens=sums.input_tokens + used.input_tokens,
            cached_tokens=sums.cached_tokens + used.cached_tokens,
            output_tokens=sums.output_tokens + used.output_tokens,
            reasoning_tokens=sums.reasoning_tokens + used.reasoning_tokens,
        ),
        cost_nanos=tally.cost_nanos + (outcome.cost_nanos or 0),
        unpriced=tally.unpriced + (1 if outcome.ok and outcome.cost_nanos is None else 0),
    )
