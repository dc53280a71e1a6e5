"""Jobs that may be killing their workers: when one is a suspect, how suspects run, and when one is to blame. Pure.

A recovery is a death: the lease of a job's worker ran out, and the worker was not heard of any more. Every job that was there
counts it, the culprit and who merely ran beside it. From the second on a job is a *suspect* and runs in the suspects' lane only, where
one shard of them, or one lone job, is out at a time in the whole fleet: at first up to `GROUP` of a batch together, and singly once
their worker has died, too. Only a death while it was the lane's only job speaks against a job (`alone`), and only if since the death before
no worker has died that had no suspect: else something else kills workers, too. After three of them it fails.
The same in Lua: `lua/_lane.lua`. Why three alone, and not three at all: ops/decisions/0012-poison-jobs.md.
"""

from typing import Any

import msgspec

from shared.jobs import History

SUSPECT_FROM = 2
"""Recoveries from which on a job runs in the lane only."""

SINGLE_FROM = 3
"""Recoveries from which on it runs there by itself."""

MOST_ALONE = 3
"""Recoveries alone after which it fails."""

GROUP = 8
"""So many suspects of a batch run together at first."""

PAUSES_S: tuple[float, ...] = (0.0, 1.0, 5.0)
"""After so many recoveries alone it waits so long, that a series of kills which are not its doing may pass by."""

SILENT_S = 1.9
"""A worker that beats says so every 1.5 s at the latest (`workers.leases`); one that was not heard for longer is dead when its lease ends.

Where leases are shorter than this, deaths are not told from living workers, and count nothing.
"""


def after_death(history: History, *, alone: bool, deaths: int) -> History:
    """`alone`: it was the lane's only job on the worker that died. `deaths`: of workers that had no suspect, in all."""
    counts = alone and history.deaths == deaths
    return msgspec.structs.replace(
        history,
        recoveries=history.recoveries + 1,
        alone=history.alone + (1 if counts else 0),
        deaths=deaths,
    )


def is_suspect(history: History) -> bool:
    return history.recoveries >= SUSPECT_FROM and not is_blamed(history)


def is_blamed(history: History) -> bool:
    """Whether it has killed often enough, with nobody else to blame: it is not called any more."""
    return history.alone >= MOST_ALONE


def pause_s(history: History) -> float:
    """How long a suspect waits before it may run again."""
    return PAUSES_S[min(history.alone, len(PAUSES_S) - 1)]


def script_args() -> dict[str, Any]:
    """These rules, for the scripts that recover."""
    return {
        "suspect_from": SUSPECT_FROM,
        "single_from": SINGLE_FROM,
        "most_alone": MOST_ALONE,
        "group": GROUP,
        "pauses_s": PAUSES_S,
        "silent_s": SILENT_S,
    }
