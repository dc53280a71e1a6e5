"""Lone jobs from outside: the official SDK against a running API, real workers, a real Valkey and the simulator."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from openai import OpenAI
from support.stack import Stack, running_stack

MESSAGES: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(workers=2) as running:
        yield running


def ask(client: OpenAI, text: str = "Say hello.", **changes: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="gpt-4o-mini", messages=messages, **changes)


def test_the_caller_waits_for_the_result(stack: Stack) -> None:
    raw = stack.client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=MESSAGES)
    found = raw.parse()
    assert found.choices[0].message.content
    assert found.usage is not None
    assert raw.headers["x-llm-edge-provider"] == "sim"
    job = requests.get(f"{stack.base_url}/jobs/{raw.headers['x-llm-edge-job']}", timeout=5).json()
    assert job["status"] == "completed"
    assert job["response"]["body"]["id"] == found.id
