"""Lone jobs: callers who wait, callers who leave, jobs that are polled, requests that are repeated, uploads broken off."""

import json
import random
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import openai
from openai import OpenAI
from soak.asking import KEYED, PAUSE_S, Asking
from soak.batches import LASTS_S


def waits(asking: Asking, rng: random.Random) -> None:
    text = f"waits {rng.getrandbits(64):x}"
    key = text if rng.random() < KEYED else None
    asking.count(accepted=1, waited=1)
    answer = asking.create(lambda c, h: _complete(c, text, **h), rng, key=key)
    asking.count(ended=1)
    if not answer["choices"]:
        asking.fault(f"{text}: answered without a choice: {answer}")
    if key is not None:
        again = asking.create(lambda c, h: _complete(c, text, **h), rng, key=key)
        asking.count(repeated=1)
        if again["id"] != answer["id"]:
            asking.fault(f"{text}: {answer['id']}, and repeated under its key {again['id']}")


def leaves(asking: Asking, rng: random.Random) -> None:
    """Gone before the answer, most of the time: nobody counts on it."""
    asking.count(left=1)
    url = rng.choice(asking.urls)
    try:
        with OpenAI(base_url=url, api_key="none", max_retries=0, timeout=rng.uniform(0.01, 0.1)) as client:
            _complete(client, f"leaves {rng.getrandbits(64):x}")
    except (openai.APIConnectionError, openai.InternalServerError):
        return


def polls(asking: Asking, rng: random.Random) -> None:
    """Some are cancelled or forgotten."""
    text = f"polls {rng.getrandbits(64):x}"
    key = text if rng.random() < KEYED else None
    job = asking.create(lambda c, h: _complete(c, text, Prefer="respond-async", **h), rng, key=key)["id"]
    asking.count(accepted=1, polled=1)
    if key is not None:
        again = asking.create(lambda c, h: _complete(c, text, Prefer="respond-async", **h), rng, key=key)[
            "id"
        ]
        asking.count(repeated=1)
        if again != job:
            asking.fault(f"{text}: {job}, and repeated under its key {again}")
    ends = {"completed"}
    if rng.random() < 0.1:
        ends.add("cancelled")
        _delete(asking, job, rng)
    deadline = time.monotonic() + LASTS_S
    while (told := _job(asking, job, rng)) is not None and told["status"] in {"queued", "in_progress"}:
        if time.monotonic() > deadline:
            asking.fault(f"{job} has not ended after {LASTS_S:.0f} s: {str(told)[:300]}")
            return
        time.sleep(PAUSE_S)
    asking.count(ended=1)
    if told is None and "cancelled" not in ends:
        asking.fault(f"{job} is not known any more")
    if told is not None and told["status"] not in ends:
        asking.fault(f"{job} ended as {told['status']}: {str(told['error'])[:200]}")


def breaks_off(asking: Asking, rng: random.Random) -> None:
    """An upload whose sender goes in its midst."""
    asking.count(broken_off=1)
    to = urlsplit(rng.choice(asking.urls))
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: {to.netloc}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        "Content-Length: 20000000\r\n\r\n--x\r\n"
        'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x\r\n'
        'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )
    try:
        with socket.create_connection((to.hostname or "", to.port or 0), timeout=5) as connection:
            connection.sendall(head.encode() + rng.randbytes(rng.choice([0, 1000, 3_000_000])))
    except OSError:
        return  # that process is away


def _delete(asking: Asking, job: str, rng: random.Random) -> None:
    """Cancels it; one that has ended is forgotten."""
    asking.count(job_deleted=1)
    try:
        asking.ask(lambda c: c.delete(f"/jobs/{job}", cast_to=object), rng)
    except openai.NotFoundError:
        return  # by a request whose answer was lost


def _job(asking: Asking, job: str, rng: random.Random) -> dict[str, Any] | None:
    try:
        told = asking.ask(lambda c: c.get(f"/jobs/{job}", cast_to=object), rng)
    except openai.NotFoundError:
        return None
    assert isinstance(told, dict)
    return told


def _complete(client: OpenAI, prompt: str, **headers: str) -> dict[str, Any]:
    found = client.chat.completions.with_raw_response.create(
        model="m",
        messages=[{"role": "user", "content": prompt}],
        max_tokens=20,
        extra_headers=headers,
    )
    told = json.loads(found.text)
    assert isinstance(told, dict)
    return told
