"""Callers of lone jobs, many at once, through the official SDK."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

import msgspec
import requests
from celery import Celery
from kombu import pools
from openai import OpenAI
from support.stack import Stack

from shared.broker import Hints, celery_settings
from shared.config import load_settings

MODEL = "gpt-4o-mini"
PATIENCE_S = 120.0


class Told(msgspec.Struct, frozen=True):
    """What one caller was answered: the job, and the completion's own id."""

    job_id: str
    answer_id: str


class Callers:
    """`at_once` threads that ask; each question is asked by one `create` of the SDK.

    `repeats`: they say, as the SDK does, that they have asked before.
    """

    def __init__(
        self, base_url: str, *, at_once: int = 64, max_retries: int = 0, repeats: bool = False
    ) -> None:
        self._client = OpenAI(base_url=base_url, api_key="none", timeout=PATIENCE_S, max_retries=max_retries)
        self._headers = {"x-stainless-retry-count": "1"} if repeats else {}
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="asks")

    def ask(self, texts: list[str]) -> "list[Future[Told]]":
        return [self._threads.submit(self._ask, text) for text in texts]

    def _ask(self, text: str) -> Told:
        messages: Any = [{"role": "user", "content": text}]
        raw = self._client.chat.completions.with_raw_response.create(
            model=MODEL, messages=messages, extra_headers=self._headers
        )
        return Told(raw.headers["x-llm-edge-job"], raw.parse().id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._client.close()


def submit_async(stack: Stack, text: str, model: str = MODEL) -> str:
    """A job that nobody waits for: its id."""
    answer = requests.post(
        f"{stack.base_url}/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": text}]},
        headers={"Prefer": "respond-async"},
        timeout=10,
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


@contextmanager
def hints_to(stack: Stack) -> Iterator[Hints]:
    with Celery("hints-of-a-test", set_as_current=False) as app:
        app.conf.update(celery_settings(load_settings(stack.env), "api"))
        yield Hints(app)
        pools.reset()


def recorded(stack: Stack) -> dict[str, dict[str, Any]]:
    """Every lone job of the ledger, by id."""
    found: dict[str, dict[str, Any]] = {}
    query: dict[str, Any] = {"limit": 100}
    while True:
        page = requests.get(f"{stack.base_url}/jobs", params=query, timeout=10).json()
        found |= {job["id"]: job for job in page["data"]}
        if not page["has_more"]:
            return found
        query["after"] = page["last_id"]
