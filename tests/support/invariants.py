"""What must hold once the dust has settled: seven invariants, looked at from outside.

I1 every accepted id is terminal. I2 completed and failed add up to the distinct ids accepted. I3 each id ended once: one line
of one file, one outcome, and what was told is what is recorded. I4 nothing is left queued, unacknowledged, held or due.
I5 a canary job runs within two seconds. I6 the provider was called at most once a job, but for what was in flight at each
kill. I7 no call counts as in flight, no breaker or permit is stuck.

The witnesses are the ids that the API accepted, as its clients keep them (`Accepted`), and the simulator's log of calls.
"""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import requests
from support.batches import TERMINAL, lines, outcomes, submit
from support.callers import submit_async
from support.faults import Trial, called_again
from support.stack import Stack
from support.waiting import wait_for

from shared.config import load_settings
from shared.queues import BATCH_QUEUE, INTERACTIVE_QUEUE

CANARY_S = 2.0
QUIET_S = 30.0
"""A killed worker's hints leave the broker after `LLM_EDGE_HINT_VISIBILITY_S` and a sweep."""
SETTLES_S = 120.0


@dataclass
class Accepted:
    """What the API answered 2xx: batches with their custom ids, lone jobs by id. Kept by who asked, not by the stack."""

    stack: Stack
    batches: dict[str, frozenset[str]] = field(default_factory=dict)
    jobs: list[str] = field(default_factory=list)

    def batch(self, count: int, prefix: str = "job", rows: list[dict[str, Any]] | None = None) -> str:
        """One batch more, of `count` lines, or of `rows`: its id."""
        asked = rows or lines(count, prefix)
        with self.stack.client as client:
            made = submit(client, asked)
        self.batches[made.id] = frozenset(row["custom_id"] for row in asked)
        return made.id

    def lone(self, text: str) -> str:
        """One lone job more, that nobody waits for: its id."""
        self.jobs.append(submit_async(self.stack, text))
        return self.jobs[-1]

    @property
    def count(self) -> int:
        return sum(len(ids) for ids in self.batches.values()) + len(self.jobs)


def get(stack: Stack, path: str) -> Any:
    """A GET of the API as it answers while things happen to it. Raises AssertionError for what is not 200."""
    answer = requests.get(
        f"{stack.base_url}{path}", headers={"Authorization": f"Bearer {stack.key}"}, timeout=5
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def settled(accepted: Accepted, trial: Trial, *, failed: int = 0, timeout_s: float = SETTLES_S) -> None:
    """I1 to I3, and their figures: every accepted id ended, once, and `failed` of them not as completed."""
    stack = accepted.stack
    endings = [_batch(accepted, batch_id, timeout_s) for batch_id in accepted.batches]
    endings += [_lone(stack, job_id, timeout_s) for job_id in accepted.jobs]
    if trial.at:
        trial.settled()
    figures = trial.figures
    ended = sum(good + bad for good, bad in endings)
    figures.lost = accepted.count - ended
    figures.again = sum(called_again(stack.simulator).values())
    figures.refused = refused(stack)
    assert (figures.lost, figures.doubled) == (0, 0)
    assert sum(bad for _, bad in endings) == failed, "jobs failed"


def _batch(accepted: Accepted, batch_id: str, timeout_s: float) -> tuple[int, int]:
    """How many completed, and how many not, by the lines of its two files."""
    stack = accepted.stack

    def ended() -> Any:
        found = get(stack, f"/batches/{batch_id}")
        counts = found["request_counts"]
        assert counts["completed"] + counts["failed"] <= counts["total"], f"jobs ended twice: {counts}"
        return found if found["status"] in TERMINAL else None

    try:
        wait_for(ended, timeout_s, f"{batch_id} to end")
    except AssertionError as exc:
        raise AssertionError(f"{exc}; explain says: {_told(stack, batch_id)}") from exc
    with stack.client as client:
        found = outcomes(
            client, client.batches.retrieve(batch_id)
        )  # no line twice, and the counts are the files'
    assert found.keys() == accepted.batches[batch_id], "the lines are not those that were accepted"
    completed = sum(row["error"] is None and row["response"]["status_code"] == 200 for row in found.values())
    return completed, len(found) - completed


def _told(stack: Stack, batch_id: str) -> str:
    try:
        return str(get(stack, f"/batches/{batch_id}/explain")["summary"])
    except (AssertionError, requests.RequestException) as exc:
        return f"the API cannot say why: {exc}"


def _lone(stack: Stack, job_id: str, timeout_s: float) -> tuple[int, int]:
    def ended() -> Any:
        found = get(stack, f"/jobs/{job_id}")
        return found if found["status"] in TERMINAL else None

    status = wait_for(ended, timeout_s, f"{job_id} to end")["status"]
    return (1, 0) if status == "completed" else (0, 1)


def refused(stack: Stack) -> int:
    """Answers that the ledger did not take, since another was their job's first, as the workers' logs tell it."""
    found = 0
    for path in sorted(stack.folder.glob("worker-*.log")):
        for row in path.read_text(errors="replace").splitlines():
            if '"shard_done"' in row and row.startswith("{"):
                found += json.loads(row).get("refused", 0)
    return found


def at_rest(stack: Stack, *, besides: frozenset[str] = frozenset()) -> None:
    """I4, I5 and I7: nothing queued, held or in flight; a canary runs at once; every provider may be called.

    `besides`: what may be left, by the names of `leftovers`.
    """
    _rests(stack, besides)
    canary(stack)
    _rests(stack, besides)


def _rests(stack: Stack, besides: frozenset[str]) -> None:
    try:
        wait_for(lambda: leftovers(stack).keys() <= besides, QUIET_S, "all to be at rest")
    except AssertionError as exc:
        raise AssertionError(f"{exc}; left: {leftovers(stack)}") from exc


def leftovers(stack: Stack) -> dict[str, Any]:
    """What is still queued, unacknowledged, held, due or in flight, by where. Empty when all is done."""
    p = load_settings(stack.env).key_prefix
    with stack.valkey.client(decode_responses=True) as redis:
        found: dict[str, Any] = {name: redis.llen(name) for name in (BATCH_QUEUE, INTERACTIVE_QUEUE)}
        found["unacked"] = redis.hlen("unacked")
        for name in ("active", "ready", "lone:now", "lone:soon"):
            found[name] = redis.llen(f"{p}:{name}")
        for name in ("hints", "leases", "later", "lone:later", "lone:leases"):
            found[name] = redis.zcard(f"{p}:{name}")
        found["load"] = int(str(redis.get(f"{p}:load") or 0))
        for key in redis.scan_iter(match=f"{p}:fl:*"):
            found[key] = sum(int(str(held).split(" ", maxsplit=1)[0]) for held in redis.hvals(key))
    for provider in get(stack, "/providers")["data"]:
        found[f"in flight at {provider['id']}"] = provider["in_flight"]
        if provider["state"] != "closed":
            found[f"breaker of {provider['id']}"] = provider["state"]
    return {name: left for name, left in found.items() if left}


def canary(stack: Stack) -> float:
    """I5: a lone job whose caller waits is answered within two seconds. How many it took."""
    began = time.monotonic()
    answer = requests.post(
        f"{stack.base_url}/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": f"canary {time.time()}"}]},
        headers={"Authorization": f"Bearer {stack.key}"},
        timeout=10,
    )
    took_s = time.monotonic() - began
    assert answer.status_code == 200, answer.text
    assert took_s < CANARY_S, f"the canary took {took_s:.1f} s"
    return took_s


def called_at_most(stack: Stack, accepted: Accepted, kills: int, concurrency: int) -> None:
    """I6: a call a job, and what was in flight at each kill; what the provider refused (429, 5xx) does not count."""
    bodies = [c["body_sha256"] for c in stack.simulator.calls() if not str(c["prompt"]).startswith("canary")]
    again = sum(called_again(stack.simulator).values())
    assert again <= kills * concurrency, f"{again} calls again, {kills} kills of {concurrency} calls each"
    assert len(set(bodies)) <= accepted.count, "calls that nobody asked for"


def named(stack: Stack, batch_id: str, *reasons: str, timeout_s: float = 10.0) -> Any:
    """`explain` of the batch once it names one of these causes, while the fault lasts."""

    def found() -> Any:
        try:
            told = get(stack, f"/batches/{batch_id}/explain")
        except (AssertionError, requests.RequestException):
            return None
        return told if {w["reason"] for w in told["waiting"]} & set(reasons) else None

    return wait_for(found, timeout_s, f"explain to name one of {reasons}; it says: {_told(stack, batch_id)}")
