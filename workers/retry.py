"""What becomes of a job whose attempt failed, or could not be made: pure decisions from the error, the history, the gate's word."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from shared.catalogue import Retry
from shared.errors import ProviderError, RateLimitedError
from shared.gate import NOBODY, Block
from shared.jobs import History
from shared.reasons import Reason

OUTAGE_PAUSE_S = 60.0
"""The longest pause between two tries of a job whose providers answer nobody, or may not be asked."""

MOST_AWAITED = 8
"""So many providers bring a job back by serving again; it comes back in a minute anyway."""

AFTER_OTHERS_S = 0.5
"""Who has failed before comes back to a breaker later than who has not, so that it is the others who probe."""

PROBING_PAUSE_S = 1.0
"""While others probe a half-open breaker."""

SPREAD_S = 1.5
SPREAD_ALONE_S = 0.3
"""What was parked comes back within so many seconds after the time it waited for; a lone job is no crowd."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """`retry`: by Celery after `delay_s`; `park`: by the ledger after `delay_s`; `fail`: for good.

    `doubt`: as many calls as it has attempts spoke against the provider, charged or not (a few bad requests that are probes
    again and again must not keep a breaker open for everybody). The job fails if one of its providers has answered some
    other job between its first call and this one; else it is an outage, and the job waits `delay_s` with its attempts anew.
    What is parked has a `reason`, and the providers it waits for; `blocked`: none of them was called. `serves_s`: until the
    first of them may serve again, where that is after it is asked anew.
    """

    kind: Literal["retry", "park", "fail", "doubt"]
    delay_s: float = 0.0
    charged: bool = True
    reason: Reason | None = None
    wait_for: tuple[str, ...] = ()
    blocked: bool = False
    serves_s: float = 0.0


def backoff_s(retry: Retry, nth: int) -> float:
    """The pause before the n-th retry: `min(initial x multiplier^(n-1), max)`, so 0.1, 0.2, 0.4 s by default."""
    return min(retry.initial_backoff_s * retry.backoff_multiplier ** (nth - 1), retry.max_backoff_s)


def decide(error: ProviderError, history: History, retry: Retry, *, spread: float) -> Decision:
    """`spread` in [0, 1) draws apart jobs that wait for the same provider."""
    if not error.retryable:
        return Decision(kind="fail")
    if isinstance(error, RateLimitedError):
        pause_s = _pause_s(error, history, retry, spread)
        return _wait(pause_s, retry, Reason.RATE_LIMITED, charged=False)
    outage_s = outage_pause_s(retry, history.parked, spread)
    doubt = Decision(kind="doubt", delay_s=outage_s, reason=Reason.OUTAGE)
    if error.counts_against_breaker and history.faults >= retry.max_retries:
        return doubt
    if not error.charged:
        return _wait(outage_s, retry, Reason.OUTAGE, charged=False)
    made = history.attempts + 1
    if made <= retry.max_retries:
        return _wait(backoff_s(retry, made) * (1 + retry.jitter * spread), retry, Reason.OUTAGE, charged=True)
    return doubt if error.counts_against_breaker else Decision(kind="fail")


def is_last(history: History, retry: Retry) -> bool:
    """Whether the job is in doubt if its next call speaks against the provider."""
    return max(history.faults, history.attempts) >= retry.max_retries


def waits_briefly(error: ProviderError, history: History, retry: Retry) -> bool:
    """Whether a job that was answered 429 waits for this provider alone; for long it waits for whoever can serve first."""
    if not isinstance(error, RateLimitedError):
        return False
    return _pause_s(error, history, retry, 1.0) <= retry.max_backoff_s


def _pause_s(error: RateLimitedError, history: History, retry: Retry, spread: float) -> float:
    return error.retry_after_s or outage_pause_s(retry, history.parked, spread)


def park(blocks: Sequence[Block], history: History, *, now: float, spread: float, alone: bool) -> Decision:
    """For a job that may call none of its providers: it waits for the first that may serve again. `alone`: no crowd comes with it."""
    soonest = sorted(blocks, key=lambda block: (block.reason.takes_a_person, _serves(block, now)))
    first = soonest[0]
    serves_s = _serves(first, now) - now
    delay_s = max(0.05, _due(first, now) - now) + (SPREAD_ALONE_S if alone else SPREAD_S) * spread
    if first.reason in {Reason.BREAKER_OPEN, Reason.BREAKER_PROBING} and history.tries:
        delay_s += AFTER_OTHERS_S
    providers = dict.fromkeys(block.provider for block in soonest[:MOST_AWAITED])
    return Decision(
        kind="park",
        delay_s=delay_s,
        charged=False,
        reason=first.reason,
        wait_for=tuple(provider for provider in providers if provider) or _NOBODYS.get(first.reason, ()),
        blocked=True,
        serves_s=serves_s if 0 < serves_s < math.inf else 0.0,
    )


_NOBODYS = {Reason.NO_PROVIDER: (NOBODY,), Reason.COST_NOT_BOUNDED: (NOBODY,)}


def _serves(block: Block, now: float) -> float:
    """When it may serve again by itself; infinity where that is not known."""
    if block.reason is Reason.BREAKER_PROBING:
        return now + PROBING_PAUSE_S
    return block.until or math.inf


def _due(block: Block, now: float) -> float:
    """When to ask again; no later than after a minute, which costs nothing, but at a limit, where each has its turn."""
    if block.reason is Reason.LIMIT_REACHED:
        return block.until  # its turn
    return min(_serves(block, now), now + OUTAGE_PAUSE_S)


def _wait(delay_s: float, retry: Retry, reason: Reason, *, charged: bool) -> Decision:
    if delay_s <= retry.max_backoff_s:
        return Decision(kind="retry", delay_s=delay_s, charged=charged)
    return Decision(kind="park", delay_s=delay_s, charged=charged, reason=reason)


def outage_pause_s(retry: Retry, times: int, spread: float) -> float:
    """`min(max(initial, 0.5) x 2^times, 60)`, half of it fixed and half spread, so that jobs do not return all at once."""
    whole = min(max(retry.initial_backoff_s, 0.5) * 2.0 ** min(times, 10), OUTAGE_PAUSE_S)
    return whole * (0.5 + 0.5 * spread)
