"""What becomes of a job whose attempt failed: a pure decision from the error and the job's history."""

from typing import Literal

import msgspec

from shared.catalogue import Retry
from shared.errors import ProviderError
from shared.jobs import History

OUTAGE_PAUSE_S = 60.0
"""The longest pause between two tries of a job whose providers answer nobody."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """`retry`: by Celery after `delay_s`; `park`: by the ledger after `delay_s`; `fail`: for good.

    `doubt`: the attempts are used up by errors that speak against the provider. The job fails if one of its providers
    has answered some other job meanwhile; else it is an outage, and the job waits `delay_s` with its attempts anew.
    """

    kind: Literal["retry", "park", "fail", "doubt"]
    delay_s: float = 0.0
    charged: bool = True


def backoff_s(retry: Retry, nth: int) -> float:
    """The pause before the n-th retry: `min(initial x multiplier^(n-1), max)`, so 0.1, 0.2, 0.4 s by default."""
    return min(retry.initial_backoff_s * retry.backoff_multiplier ** (nth - 1), retry.max_backoff_s)


def decide(error: ProviderError, history: History, retry: Retry, *, spread: float) -> Decision:
    """`spread` in [0, 1) draws apart jobs that wait for the same provider."""
    if not error.retryable:
        return Decision(kind="fail")
    if not error.charged:
        pause_s = error.retry_after_s or outage_pause_s(retry, history.parked, spread)
        return _wait(pause_s, retry, charged=False)
    made = history.attempts + 1
    if made <= retry.max_retries:
        return _wait(max(backoff_s(retry, made), error.retry_after_s or 0.0), retry, charged=True)
    if error.counts_against_breaker:
        return Decision(kind="doubt", delay_s=outage_pause_s(retry, history.parked, spread))
    return Decision(kind="fail")


def _wait(delay_s: float, retry: Retry, *, charged: bool) -> Decision:
    kind: Literal["retry", "park"] = "retry" if delay_s <= retry.max_backoff_s else "park"
    return Decision(kind=kind, delay_s=delay_s, charged=charged)


def outage_pause_s(retry: Retry, times: int, spread: float) -> float:
    """`min(max(initial, 0.5) x 2^times, 60)`, half of it fixed and half spread, so that jobs do not return all at once."""
    whole = min(max(retry.initial_backoff_s, 0.5) * 2.0 ** min(times, 10), OUTAGE_PAUSE_S)
    return whole * (0.5 + 0.5 * spread)
