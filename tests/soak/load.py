"""What the stack is given to do while it is disturbed: batches of all sizes, callers who wait, jobs that are polled, cancels."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import openai
from openai import OpenAI
from support.batches import CHAT, TERMINAL, jsonl, line

T = TypeVar("T")

PATIENCE_S = 180.0
"""A request is repeated for so long: the API may be away, or say that it cannot now."""

LASTS_S = 900.0
"""Whatever was accepted has ended after so long, or it is lost."""

PAUSE_S = 0.25


class Load:
    """`urls` are the API's base URLs, in turn. Every accepted thing is followed to its end; `faults` tell what was not as it must be."""

    def __init__(self, urls: list[str], seed: int, *, clients: int) -> None:
        self._urls = urls
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(clients, thread_name_prefix="load")
        self._clients = clients
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._running: list[Future[None]] = []

    def start(self) -> None:
        kinds = [self._batch, self._waits, self._polls]
        for n in range(self._clients):
            rng = random.Random(self._rng.random())
            self._running.append(self._pool.submit(self._repeat, kinds[n % len(kinds)], rng))

    def end(self) -> None:
        """No more is begun; what was is followed to its end."""
        self._stop.set()
        for future in self._running:
            future.result()
        self._pool.shutdown()

    def _repeat(self, act: Callable[[random.Random], None], rng: random.Random) -> None:
        while not self._stop.is_set():
            try:
                act(rng)
            except Exception as exc:  # noqa: BLE001  the soak goes on, and tells at its end
                self._fault(f"{act.__name__}: {type(exc).__name__}: {str(exc)[:300]}")
            self._stop.wait(rng.uniform(0.0, 2 * PAUSE_S))

    def _fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text)

    def _count(self, **more: int) -> None:
        with self._lock:
            self.counts.update(more)

    def _ask(self, do: Callable[[OpenAI], T], rng: random.Random) -> T:
        """Repeated at one API process after the other until it answers; the key of what creates is in `do`."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            url = rng.choice(self._urls)
            try:
                with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
                    return do(client)
            except (openai.APIConnectionError, openai.InternalServerError) as exc:
                if time.monotonic() > deadline:
                    raise
                status = getattr(exc, "status_code", 0)
                self._count(**{f"told_{status}" if status else "no_answer": 1})
                time.sleep(PAUSE_S)

    # batches

    def _batch(self, rng: random.Random) -> None:
        size = rng.choice([1, 5, 50, 200, 1000])
        token = f"{rng.getrandbits(64):x}"
        rows = [line(f"{token}-{n}", f"{token} {n}") for n in range(size)]
        file = self._ask(lambda c: self._upload(c, jsonl(rows), token), rng)
        key = {"Idempotency-Key": token}
        made = self._ask(
            lambda c: c.batches.create(
                input_file_id=file, endpoint=CHAT, completion_window="24h", extra_headers=key
            ),
            rng,
        )
        self._count(batches=1, accepted=size)
        cancels = rng.random() < 0.1
        if cancels:
            time.sleep(rng.uniform(0, 2))
            self._cancel(made.id, rng)
        self._follow(made.id, {row["custom_id"] for row in rows}, rng)

    @staticmethod
    def _upload(client: OpenAI, data: bytes, token: str) -> str:
        return client.files.create(
            file=(f"{token}.jsonl", data), purpose="batch", extra_headers={"Idempotency-Key": f"f-{token}"}
        ).id

    def _cancel(self, batch_id: str, rng: random.Random) -> None:
        try:
            self._ask(lambda c: c.batches.cancel(batch_id), rng)
            self._count(cancelled=1)
        except openai.ConflictError:
            return  # it had ended

    def _follow(self, batch_id: str, names: set[str], rng: random.Random) -> None:
        deadline = time.monotonic() + LASTS_S
        while (batch := self._ask(lambda c: c.batches.retrieve(batch_id), rng)).status not in TERMINAL:
            if time.monotonic() > deadline:
                told = batch.model_dump_json()[:300]
                self._fault(f"{batch_id} has not ended after {LASTS_S:.0f} s: {told}")
                return
            time.sleep(PAUSE_S)
        rows: list[str] = []
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                text = self._ask(lambda c, name=file_id: c.files.content(name).text, rng)  # type: ignore[misc]
                rows += [json.loads(row)["custom_id"] for row in text.splitlines()]
        self._settle(batch_id, rows, names)
        if batch.status == "completed" and batch.error_file_id is not None:
            self._fault(f"{batch_id}: jobs failed, though the provider only ever failed for a time")

    def _settle(self, batch_id: str, rows: list[str], names: set[str]) -> None:
        doubled, lost = len(rows) - len(set(rows)), len(names - set(rows))
        self._count(ended=len(set(rows)), doubled=doubled, lost=lost)
        if doubled or lost or set(rows) - names:
            self._fault(f"{batch_id}: {lost} lost, {doubled} doubled of {len(names)}")

    # lone jobs

    def _waits(self, rng: random.Random) -> None:
        self._count(accepted=1, callers=1)
        answer = self._ask(lambda c: self._complete(c, f"waits {rng.getrandbits(64):x}"), rng)
        self._count(ended=1)
        assert answer["choices"]

    @staticmethod
    def _complete(client: OpenAI, prompt: str, **headers: str) -> dict[str, Any]:
        found = client.chat.completions.with_raw_response.create(
            model="m",
            messages=[{"role": "user", "content": prompt}],
            max_tokens=20,
            extra_headers={"Idempotency-Key": prompt.replace(" ", "-"), **headers},
        )
        told = json.loads(found.text)
        assert isinstance(told, dict)
        return told

    def _polls(self, rng: random.Random) -> None:
        prompt = f"polls {rng.getrandbits(64):x}"
        job = self._ask(lambda c: self._complete(c, prompt, Prefer="respond-async"), rng)["id"]
        self._count(accepted=1, polled=1)
        deadline = time.monotonic() + LASTS_S
        while True:
            told = self._ask(lambda c: c.get(f"/jobs/{job}", cast_to=object), rng)
            assert isinstance(told, dict)
            if told["status"] not in {"queued", "in_progress"}:
                break
            if time.monotonic() > deadline:
                self._fault(f"{job} has not ended after {LASTS_S:.0f} s: {str(told)[:300]}")
                return
            time.sleep(PAUSE_S)
        self._count(ended=1)
        if told["status"] != "completed":
            self._fault(f"{job} ended as {told['status']}: {str(told['error'])[:200]}")
