"""Batches of all sizes and ends, each followed to its end: what was accepted stands in its files once."""

import json
import random
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import msgspec
import openai
from openai import OpenAI
from openai.types import Batch
from soak.asking import KEYED, PAUSE_S, Asking
from support.batches import CHAT, TERMINAL, jsonl, line

LASTS_S = 900.0
"""Whatever was accepted has ended after so long, or it is lost."""

SIZES = (1, 5, 50, 200, 1000)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of a batch, and how it may end. `codes`: of lines in its error file."""

    name: str
    window: str = "24h"
    max_cost: float | None = None
    cancels: bool = False
    ends: frozenset[str] = frozenset({"completed"})
    codes: frozenset[str] = frozenset()


PLANS = {
    "whole": Plan(name="whole"),
    "cancelled": Plan(
        name="cancelled",
        cancels=True,
        ends=frozenset({"completed", "cancelled"}),
        codes=frozenset({"batch_cancelled"}),
    ),
    "expires": Plan(
        name="expires",
        window="4s",
        ends=frozenset({"completed", "expired"}),
        codes=frozenset({"batch_expired"}),
    ),
    "costly": Plan(
        name="costly",
        max_cost=0.02,
        ends=frozenset({"completed", "cancelled"}),
        codes=frozenset({"max_cost_reached"}),
    ),
}


def _plan(rng: random.Random) -> Plan:
    return PLANS[rng.choices(["whole", "cancelled", "expires", "costly"], [70, 12, 9, 9])[0]]


def run(asking: Asking, rng: random.Random) -> None:
    """One batch, from its upload to what is in its files; some are created twice under one key, the files of some deleted at the end."""
    plan = _plan(rng)
    size = rng.choice(SIZES)
    token = f"{rng.getrandbits(64):x}"
    rows = [line(f"{token}-{n}", f"{token} {n}") for n in range(size)]
    key = token if rng.random() < KEYED else None
    file = asking.create(lambda c, h: _upload(c, jsonl(rows), token, h), rng, key=key)
    batch = asking.create(lambda c, h: _create(c, file, plan, h), rng, key=key)
    asking.count(batches=1, accepted=size)
    if key is not None:
        again = asking.create(lambda c, h: _create(c, file, plan, h), rng, key=key)
        asking.count(created_again=1)
        if again.id != batch.id:
            asking.fault(f"{batch.id} and {again.id} were created under one idempotency key")
    if plan.cancels:
        time.sleep(rng.uniform(0, 2))
        _cancel(asking, batch.id, rng)
    ended = _follow(asking, batch.id, rng)
    if ended is None:
        return
    _judge(asking, ended, plan, _rows(asking, ended, rng), {row["custom_id"] for row in rows})
    if rng.random() < 0.3:
        for name in filter(None, (ended.output_file_id, ended.error_file_id, file)):
            _forget(asking, name, rng)


def _upload(client: OpenAI, data: bytes, token: str, headers: dict[str, str]) -> str:
    keyed = {name: f"f-{value}" if name == "Idempotency-Key" else value for name, value in headers.items()}
    return client.files.create(file=(f"{token}.jsonl", data), purpose="batch", extra_headers=keyed).id


def _create(client: OpenAI, file: str, plan: Plan, headers: dict[str, str]) -> Batch:
    window: Any = plan.window  # the SDK knows OpenAI's own only
    more = {} if plan.max_cost is None else {"max_cost": plan.max_cost}
    return client.batches.create(
        input_file_id=file,
        endpoint=CHAT,
        completion_window=window,
        extra_headers=headers,
        extra_body=more,
    )


def _cancel(asking: Asking, batch_id: str, rng: random.Random) -> None:
    try:
        asking.ask(lambda c: c.batches.cancel(batch_id), rng)
    except openai.ConflictError:
        return  # it had ended


def _follow(asking: Asking, batch_id: str, rng: random.Random) -> Batch | None:
    deadline = time.monotonic() + LASTS_S
    while (batch := asking.ask(lambda c: c.batches.retrieve(batch_id), rng)).status not in TERMINAL:
        if time.monotonic() > deadline:
            told = batch.model_dump_json()[:300]
            asking.fault(f"{batch_id} has not ended after {LASTS_S:.0f} s: {told}")
            return None
        time.sleep(PAUSE_S)
    return batch


def _rows(asking: Asking, batch: Batch, rng: random.Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        text = asking.ask(lambda c, name=file_id: c.files.content(name).text, rng)  # type: ignore[misc]
        rows += [json.loads(row) for row in text.splitlines()]
    return rows


def _forget(asking: Asking, file: str, rng: random.Random) -> None:
    with suppress(openai.NotFoundError):  # by a request whose answer was lost, or past its retention
        asking.ask(lambda c: c.files.delete(file), rng)
    asking.count(deleted=1)


def _judge(asking: Asking, batch: Batch, plan: Plan, rows: list[dict[str, Any]], names: set[str]) -> None:
    ids = [row["custom_id"] for row in rows]
    doubled, lost = len(ids) - len(set(ids)), len(names - set(ids))
    asking.count(ended=len(set(ids)), doubled=doubled, lost=lost, **{f"{plan.name}_{batch.status}": 1})
    if doubled or lost or set(ids) - names:
        asking.fault(f"{batch.id}: {lost} lost, {doubled} doubled of {len(names)}")
    if batch.status not in plan.ends:
        asking.fault(f"{batch.id}, of the kind {plan.name}, has ended as {batch.status}: {batch.errors}")
    codes = Counter(row["error"]["code"] for row in rows if row.get("error"))
    codes.update(f"status {row['response']['status_code']}" for row in rows if _failed(row))
    if codes.keys() - plan.codes:
        asking.fault(f"{batch.id}, of the kind {plan.name}: jobs failed by {dict(codes)}")
    spent = getattr(batch, "cost_usd", None)
    if plan.max_cost is not None and spent is not None and float(spent) > plan.max_cost:
        asking.fault(f"{batch.id} has spent {spent} of at most {plan.max_cost}")


def _failed(row: dict[str, Any]) -> bool:
    return bool(not row.get("error") and row["response"]["status_code"] != 200)
