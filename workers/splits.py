"""What leaves a shard to wait: jobs that failed or may call nobody, grouped by what was decided, as the ledger takes them. Pure but for chance and the clock."""

import random
import time
from collections.abc import Iterator, Sequence

import msgspec

from shared.jobs import Split
from workers.execute import Blocked, Failed
from workers.retry import SPREAD_S, Decision

_TOLD_S = 0.25
"""The gate's word is so old at most when a job is known to wait: what is brought back for nothing only asks once more."""


class Waiter(msgspec.Struct, frozen=True):
    """A job that has failed, or may call nobody, and what was decided about it."""

    result: Failed | Blocked
    decision: Decision
    since_s: float

    @property
    def provider(self) -> str:
        return self.result.provider if isinstance(self.result, Failed) else ""

    @property
    def why(self) -> Exception | None:
        return self.result.error if isinstance(self.result, Failed) else None


def left_s(pause_s: float, group: Sequence[Waiter]) -> float:
    """What is left of it for the latest of them; none of them comes too early."""
    return max(0.0, pause_s - (time.monotonic() - max(w.since_s for w in group)))


def split_of(decision: Decision, group: Sequence[Waiter], claimed_at: float, now: float) -> Split:
    slips = [w.result.job.slip for w in group]
    provider = group[0].provider
    return Split(
        kind="retry" if decision.kind == "retry" else "park",
        claimed_at=claimed_at,
        jobs=tuple(s.id for s in slips) if slips[0].id else tuple(s.index for s in slips),
        delay_s=left_s(decision.delay_s, group),
        provider=provider,
        charged=decision.charged and decision.kind != "doubt",
        anew=decision.kind == "doubt",
        reason=decision.reason.value if decision.reason else "",
        wait_for=decision.wait_for or ((provider,) if provider else ()),
        serves_s=left_s(decision.serves_s, group),
        blocked=decision.blocked,
        tries=tuple(w.result.tries for w in group),
        asked_at=now - (time.monotonic() - min(w.since_s for w in group)) - _TOLD_S,
        soon_s=SPREAD_S * random.random(),
    )


def by_fate(waiting: list[Waiter]) -> Iterator[tuple[Decision, list[Waiter]]]:
    """Groups that may ride together: the same decision, the same providers; of differing delays the longest."""
    groups: dict[object, list[Waiter]] = {}
    for w in waiting:
        d = w.decision
        step = round(d.delay_s, 1) if d.kind == "retry" else d.delay_s // 5
        fate = (d.kind, d.charged, d.reason, d.wait_for, w.provider, step, d.serves_s // 5)
        groups.setdefault(fate, []).append(w)
    for group in groups.values():
        yield max((w.decision for w in group), key=lambda d: d.delay_s), group
