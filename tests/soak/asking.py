"""How the load asks: at one API process after the other, until it is answered; and what it counts."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import openai
from openai import OpenAI

T = TypeVar("T")

PATIENCE_S = 180.0
"""A request is repeated for so long: the API may be away, or say that it cannot now."""

PAUSE_S = 0.25
KEYED = 0.2
"""This share of what is created has an idempotency key, and is sent again when it has been answered."""

MOST_FAULTS = 200
"""Kept to be told; the others are only counted."""


class AbandonedError(Exception):
    """The soak is given up."""


class Asking:
    """`urls` are the API's base URLs. What is counted and what was not as it must be: `counts`, `faults`."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self._lock = threading.Lock()
        self.over = threading.Event()
        """Set: nothing is asked any more."""
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def fault(self, text: str) -> None:
        with self._lock:
            self.counts["faults"] += 1
            if len(self.faults) < MOST_FAULTS:
                self.faults.append(text)

    def count(self, **more: int) -> None:
        with self._lock:
            self.counts.update(more)

    def ask(self, do: Callable[[OpenAI], T], rng: random.Random) -> T:
        """Repeated until it answers."""
        return self.create(lambda client, _: do(client), rng, key=None)

    def create(self, do: Callable[[OpenAI, dict[str, str]], T], rng: random.Random, *, key: str | None) -> T:
        """The same, with headers by which one thing is created: `key`, else that it repeats, as the SDK says by itself."""
        deadline = time.monotonic() + PATIENCE_S
        headers = {} if key is None else {"Idempotency-Key": key}
        while not self.over.is_set():
            url = rng.choice(self.urls)
            try:
                with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
                    return do(client, headers)
            except (openai.APIConnectionError, openai.InternalServerError) as exc:
                if time.monotonic() > deadline:
                    raise
                status = getattr(exc, "status_code", 0)
                self.count(**{f"told_{status}" if status else "no_answer": 1})
                headers["x-stainless-retry-count"] = "1"
                self.over.wait(PAUSE_S)
        raise AbandonedError
