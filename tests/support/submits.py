"""What a client sees while Redis is tormented: a stream of asynchronous jobs, what was accepted, and what was answered instead."""

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self

import requests
from support.stack import Stack
from support.waiting import wait_for

MODEL = "gpt-4o-mini"
CANARY_S = 2.0
SAID_S = 1.0
"""Within it every refusal is said."""
BUSY_S = 1.0
"""For a machine that does other things besides."""


def body_of(text: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


def hand_in(stack: Stack, text: str) -> requests.Response:
    """A job that nobody waits for, under a key of its own: the text."""
    head = {"Prefer": "respond-async", "Idempotency-Key": text}
    return requests.post(f"{stack.base_url}/chat/completions", json=body_of(text), headers=head, timeout=10)


class Submits:
    """Within it jobs are handed in one after another, `every_s` apart. Nothing is repeated."""

    def __init__(self, stack: Stack, name: str = "job", *, every_s: float = 0.05) -> None:
        self.accepted: list[str] = []
        self.refused: list[requests.Response] = []
        self._stack = stack
        self._name = name
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    def _run(self) -> None:
        n = 0
        while not self._stopping.wait(self._every_s):
            answer = hand_in(self._stack, f"{self._name} {n}")
            if answer.status_code == 202:
                self.accepted.append(answer.json()["id"])
            else:
                self.refused.append(answer)
            n += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def check_refusals(self) -> None:
        """Each was a 503 in time, that says when to come again and what is wrong."""
        for answer in self.refused:
            check_refusal(answer)

    @property
    def slowest_s(self) -> float:
        """Of the refusals."""
        return max((answer.elapsed.total_seconds() for answer in self.refused), default=0.0)


def check_refusal(answer: requests.Response) -> str:
    """Its words."""
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.elapsed.total_seconds() <= SAID_S + BUSY_S
    return str(answer.json()["error"]["message"])


def job(stack: Stack, job_id: str) -> dict[str, Any] | None:
    """None where nobody knows it."""
    answer = requests.get(f"{stack.base_url}/jobs/{job_id}", timeout=10)
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def ended(stack: Stack, ids: Iterable[str], timeout_s: float = 60.0) -> dict[str, dict[str, Any]]:
    """The jobs that are known, once each of them has ended; those that are not known are missing."""
    open_, found = set(ids), dict[str, dict[str, Any]]()

    def all_ended() -> bool:
        for job_id in tuple(open_):
            now = job(stack, job_id)
            if now is None or now["status"] not in {"queued", "in_progress"}:
                open_.discard(job_id)
                if now is not None:
                    found[job_id] = now
        return not open_

    wait_for(all_ended, timeout_s, f"{len(open_)} jobs to end", every_s=0.2)
    return found


def canary(stack: Stack) -> float:
    """Seconds that a caller waits for an answer."""
    begun = time.monotonic()
    answer = requests.post(
        f"{stack.base_url}/chat/completions", json=body_of(f"canary {begun}"), timeout=CANARY_S + 10
    )
    assert answer.status_code == 200, answer.text
    return time.monotonic() - begun


def served_again(stack: Stack, timeout_s: float = 30.0) -> float:
    """Seconds until a caller who tries again and again is answered; then one more must take less than CANARY_S."""
    begun = time.monotonic()

    def answered() -> bool:
        with suppress(requests.RequestException, AssertionError):
            canary(stack)
            return True
        return False

    wait_for(answered, timeout_s, "a lone job's answer", every_s=0.1)
    took_s = time.monotonic() - begun
    once_more_s = canary(stack)
    assert once_more_s < CANARY_S, f"the canary took {once_more_s:.1f} s"
    return took_s


def nobody_has_ended(stack: Stack) -> None:
    """API and workers are the processes that they were."""
    assert stack.api is not None
    for process in [stack.api, *stack.workers]:
        assert process.poll() is None
