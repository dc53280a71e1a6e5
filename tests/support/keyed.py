"""Requests with an `Idempotency-Key`, as tests make them, and what the API has afterwards."""

import uuid
from typing import Any

import requests
from support.batches import CHAT
from support.stack import Stack

MODEL = "gpt-4o-mini"


def headers(key: str | None = None, **more: str) -> dict[str, str]:
    return {"Idempotency-Key": key or str(uuid.uuid4()), **more}


def messages(text: str) -> Any:
    return [{"role": "user", "content": text}]


def post(stack: Stack, path: str, body: Any, head: dict[str, str]) -> requests.Response:
    return requests.post(f"{stack.base_url}{path}", json=body, headers=head, timeout=30)


def send(
    stack: Stack, head: dict[str, str], data: bytes = b"{}\n", name: str = "in.jsonl"
) -> requests.Response:
    return requests.post(
        f"{stack.base_url}/files",
        files={"file": (name, data)},
        data={"purpose": "batch"},
        headers=head,
        timeout=30,
    )


def chat(text: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": messages(text)}


def create(file_id: str, **more: Any) -> dict[str, Any]:
    return {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", **more}


def list_all(stack: Stack, what: str) -> list[str]:
    return [row["id"] for row in requests.get(f"{stack.base_url}/{what}?limit=100", timeout=5).json()["data"]]
